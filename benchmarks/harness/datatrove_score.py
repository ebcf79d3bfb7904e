"""Has datatrove's InferenceRunner ask a server about every record of a jsonl file; one process.

Runs in the environment of requirements/peers.txt (see peers.py). Prints one line of JSON: records,
seconds and cpu_seconds of the asking alone, imports and reading the file left out. Every record
must have come out with an answer, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger


def main() -> int:
    """Returns the exit code."""
    words = _words()
    logger.remove()  # its lines per document are a cost that a user can turn off, so it is off here
    with words.records.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    documents = [Document(text=row["text"], id=row["id"]) for row in rows]
    runner = _runner(words)
    started, cpu_started = time.perf_counter(), _cpu_seconds()
    runner.run(iter(documents), rank=0, world_size=1)
    seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu_started
    answered = _answered(words.folder / "answers")
    if sorted(answered) != sorted(document.id for document in documents):
        sys.exit(f"{len(answered):,} of {len(documents):,} records came out with an answer")
    figures = {"records": len(answered), "seconds": seconds, "cpu_seconds": cpu_seconds}
    print(json.dumps(figures))
    return 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="of the server, with or without /v1")
    parser.add_argument("--records", required=True, type=Path, help="jsonl of id and text")
    parser.add_argument("--folder", required=True, type=Path, help="for answers and checkpoints")
    parser.add_argument("--system-file", type=Path, help="text of a system message for all records")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--no-checkpoints", action="store_true", help="nothing to resume from")
    return parser.parse_args()


def _runner(words: argparse.Namespace) -> InferenceRunner:
    shared = []
    if words.system_file is not None:
        shared = [{"role": "system", "content": words.system_file.read_text("utf-8")}]

    async def rollout(
        document: Document, generate: Callable[[dict[str, Any]], Awaitable[Any]]
    ) -> dict[str, Any]:
        messages = [*shared, {"role": "user", "content": document.text}]
        result = await generate({"messages": messages})
        return {"text": result.text, "finish_reason": result.finish_reason}

    return InferenceRunner(
        rollout_fn=rollout,
        config=InferenceConfig(
            server_type="endpoint",
            model_name_or_path="instant",
            endpoint_url=words.url.removesuffix("/").removesuffix("/v1"),
            use_chat=True,
            default_generation_params={"temperature": 0, "max_tokens": words.max_tokens},
            max_concurrent_generations=words.in_flight,
            max_concurrent_documents=words.in_flight,
        ),
        output_writer=JsonlWriter(
            str(words.folder / "answers"),
            output_filename="${rank}_chunk_${chunk_index}.jsonl",
            compression=None,
        ),
        checkpoints_local_dir=None if words.no_checkpoints else str(words.folder / "checkpoints"),
    )


def _answered(folder: Path) -> list[str]:
    """Returns the ids of the records that have an answer with text in it."""
    rows = (
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    )
    return [row["id"] for row in rows if row["metadata"]["rollout_results"][0]["text"]]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
