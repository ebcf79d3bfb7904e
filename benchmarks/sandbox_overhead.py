"""What a sandbox costs a program: one run in bubblewrap beside one without any isolation.

The same command 200 times in turn, its output checked; wall-clock milliseconds of the fastest run,
which is the least disturbed by whatever else the machine does.
The sandbox is granted its level by its own attacks first. The ratio is the speed that is left; a
program that itself takes long keeps nearly all of it.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.sandbox.contract import Job, Limits

LIMITS = Limits(
    wall_seconds=30,
    cpu_seconds=10,
    memory_bytes=1 << 30,
    output_bytes=1 << 16,
    num_processes=32,
    file_bytes=16 << 20,
    num_open_files=64,
)
COMMANDS = {
    "true": (("/bin/true",), b"", 0.03),
    "python": (("/usr/bin/python3", "-I", "-c", "print(6 * 7)"), b"42\n", 0.3),
}
REPEATS = 200


def main() -> int:
    """Returns the exit code."""
    sandbox = best_sandbox()
    figures = []
    for name, (argv, expected, bar) in COMMANDS.items():
        job = Job(argv=argv, limits=LIMITS)

        def ours(job: Job = job) -> bytes:
            return sandbox.run(job).stdout

        def peer(argv: tuple[str, ...] = argv) -> bytes:
            return subprocess.run(argv, capture_output=True, check=True).stdout

        if ours() != expected or peer() != expected:
            sys.exit(f"{name}: not the expected output")
        ours_ms, peer_ms = _in_turn(ours, peer)
        figures.append(
            {
                "name": f"sandbox: {name}, level {sandbox.level}",
                "ours": round(ours_ms, 2),
                "peer": round(peer_ms, 2),
                "unit": "ms per run",
                "ratio": round(peer_ms / ours_ms, 3),
                "bar": bar,
            }
        )
    for figure in figures:
        print(json.dumps(figure))
    return int(any(figure["ratio"] < figure["bar"] for figure in figures))


def _in_turn(ours: Callable[[], bytes], peer: Callable[[], bytes]) -> tuple[float, float]:
    """Returns the fewest milliseconds of each, taken one after the other."""
    milliseconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for side, run in zip(milliseconds, (ours, peer), strict=True):
            started = time.perf_counter()
            run()
            side.append(1000 * (time.perf_counter() - started))
    return min(milliseconds[0]), min(milliseconds[1])


if __name__ == "__main__":
    sys.exit(main())
