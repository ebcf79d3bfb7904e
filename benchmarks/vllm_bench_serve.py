"""Prompts through a real vLLM server on this CPU: ours beside `vllm bench serve`.

Both sides ask one server the same chat prompts of 600 tokens in the same order, 64 in flight, for
answers of 64 tokens each (temperature 0, ignore_eos), each in one process of its own. Ours is what
`mira score` asks with, and keeps every answer in its store; the peer keeps none, and reads answers
as streams, which it cannot do without. Sides take turns, and who begins a pair does too. Before the
first pair each side has asked everything once, so every prompt is in the server's prefix cache
throughout; the server's counters say after each run that both met the same cache and got the same
tokens. The model is tiny and its weights are random: its answers cost as little as can be, so the
client counts for as much as can be.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below a bar.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

# The server and its model are those of the integration tests.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "integration"))
from scores_only import PROMPT_TOKENS, prompts_of_one_length
from tiny_chat_model import write_tiny_chat_model
from vllm_server import VllmServer, running_vllm, vllm_python

HARNESS = Path(__file__).parent / "harness"

OUTPUT_TOKENS = 64
NUM_PROMPTS = 768
IN_FLIGHT = 64
PAIRS = 5
SPEED_BAR, CPU_BAR = 0.95, 1.0
LEAST_CACHED = 0.8  # of the prompts' tokens: 512 of 600 are, for only whole blocks of 128 are kept
_COUNTERS = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """What one side took for all prompts, by its own account."""

    completed: int
    output_tokens: int
    seconds: float
    cpu_seconds: float  # of the client's process


def main() -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_tiny_chat_model(folder / "tiny-chat")
        with running_vllm(model, max_model_len=2048, log_path=folder / "vllm.log") as server:
            prompts = folder / "prompts.jsonl"
            texts = prompts_of_one_length(server, NUM_PROMPTS)
            lines = (json.dumps({"prompt": text}) + "\n" for text in texts)
            prompts.write_text("".join(lines), encoding="utf-8")
            bench = _Bench(server=server, model=model, prompts=prompts, folder=folder)
            for side in ("ours", "peer"):  # fills the cache, and warms what is compiled once
                bench.run(side)
            pairs = [_pair(bench, number) for number in range(PAIRS)]
    ours, peer = ([pair[side] for pair in pairs] for side in ("ours", "peer"))
    figures = [
        _figure(
            "vllm_bench_serve_speed",
            [NUM_PROMPTS / run.seconds for run in ours],
            [NUM_PROMPTS / run.seconds for run in peer],
            unit="requests per second",
            bar=SPEED_BAR,
        ),
        _figure(
            "vllm_bench_serve_requests_per_cpu_second",
            [NUM_PROMPTS / run.cpu_seconds for run in ours],
            [NUM_PROMPTS / run.cpu_seconds for run in peer],
            unit="requests per CPU second of the client",
            bar=CPU_BAR,
        ),
    ]
    for figure in figures:
        print(json.dumps(figure))
    return int(figures[0]["ratio"] < SPEED_BAR or figures[1]["ratio"] <= CPU_BAR)


def _pair(bench: _Bench, number: int) -> dict[str, Side]:
    order = ("ours", "peer") if number % 2 == 0 else ("peer", "ours")
    runs = {side: bench.checked_run(side) for side in order}
    speeds = (f"{side} {NUM_PROMPTS / runs[side].seconds:.1f}/s" for side in sorted(runs))
    sys.stderr.write(f"pair {number + 1} of {PAIRS}: {', '.join(speeds)}\n")
    return runs


def _figure(
    name: str, ours: Sequence[float], peer: Sequence[float], *, unit: str, bar: float
) -> dict[str, Any]:
    """Returns a figure where more is better; its ratio is the median of the pairs' own."""
    ratio = median(one / other for one, other in zip(ours, peer, strict=True))
    return {
        "name": name,
        "ours": round(median(ours), 1),
        "peer": round(median(peer), 1),
        "unit": f"{unit}, median of {PAIRS}; peer: vllm bench serve",
        "ratio": round(ratio, 3),
        "bar": bar,
    }


class _Bench:
    """Runs either side against one server."""

    def __init__(self, *, server: VllmServer, model: Path, prompts: Path, folder: Path) -> None:
        self._server = server
        self._model = model
        self._prompts = prompts
        self._folder = folder

    def checked_run(self, side: str) -> Side:
        """Runs a side; exits where it was not answered as the other one is."""
        before = self._counters()
        run = self.run(side)
        prompt, generated, queries, hits = (
            after - earlier for after, earlier in zip(self._counters(), before, strict=True)
        )
        num_output = NUM_PROMPTS * OUTPUT_TOKENS
        if not (
            run.completed == NUM_PROMPTS
            and run.output_tokens == generated == num_output
            and prompt == NUM_PROMPTS * PROMPT_TOKENS
            and hits >= LEAST_CACHED * queries > 0
        ):
            sys.exit(
                f"{side}: not as asked for, so no speed is worth anything: {run}, and the server "
                f"counts {prompt:,.0f} tokens of prompts, {generated:,.0f} of answers, "
                f"{hits:,.0f} of {queries:,.0f} cached"
            )
        return run

    def run(self, side: str) -> Side:
        """Runs a side."""
        command = self._ours() if side == "ours" else self._peer()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:  # else what it wrote besides is of no interest
            sys.exit(f"{side}: exit code {done.returncode}: {done.stderr[-4000:]}")
        return Side(**json.loads(done.stdout.splitlines()[-1]))

    def _ours(self) -> list[str]:
        answers = tempfile.mkdtemp(prefix="answers-", dir=self._folder)
        return [
            *(sys.executable, str(HARNESS / "ask_prompts.py")),
            *("--url", self._server.endpoint, "--model", self._server.model),
            *("--prompts", str(self._prompts), "--answers", answers),
            *("--in-flight", str(IN_FLIGHT), "--max-tokens", str(OUTPUT_TOKENS)),
        ]

    def _peer(self) -> list[str]:
        return [
            *(str(vllm_python()), str(HARNESS / "vllm_bench.py")),
            *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
            *("--base-url", self._server.url, "--model", self._server.model),
            *("--tokenizer", str(self._model)),
            *("--dataset-name", "custom", "--dataset-path", str(self._prompts)),
            # The server puts prompts into its chat template; done before, it would be done twice.
            *("--skip-chat-template", "--disable-shuffle"),
            *("--num-prompts", str(NUM_PROMPTS), "--custom-output-len", str(OUTPUT_TOKENS)),
            *("--max-concurrency", str(IN_FLIGHT), "--temperature", "0", "--top-p", "1"),
            "--ignore-eos",
            # No request beside those that are counted, and no bar to draw.
            *("--ready-check-timeout-sec", "0", "--disable-tqdm"),
        ]

    def _counters(self) -> list[float]:
        return [self._server.metric(name) for name in _COUNTERS]


if __name__ == "__main__":
    sys.exit(main())
