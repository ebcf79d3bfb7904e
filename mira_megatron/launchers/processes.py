"""Several workers of one command on this machine, their output forwarded line by line."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from threading import Thread
from typing import IO

logger = logging.getLogger(__name__)


def run_workers(words: Sequence[str], num_workers: int) -> int:
    """Runs `mira` with these words `num_workers` times at once; returns the worst exit code.

    A worker that was killed counts as 0: what it left undone, another takes over. Every line that
    a worker writes goes to stderr behind its number.
    """
    command = [sys.executable, "-m", "mira_megatron.cli", *words]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(num_workers)
    ]
    forwarding = [
        Thread(target=_forward, args=(worker.stdout, f"[{number}] "))
        for number, worker in enumerate(workers, start=1)
    ]
    for thread in forwarding:
        thread.start()
    codes = []
    for number, (worker, thread) in enumerate(zip(workers, forwarding, strict=True), start=1):
        thread.join()
        code = worker.wait()
        if code < 0:
            logger.warning("worker %d was killed by signal %d", number, -code)
        codes.append(max(code, 0))
    return max(codes)


def end_as_interrupted() -> None:
    """Has SIGTERM end this process as Ctrl-C does: what is in flight is kept, claims given back.

    It is what SLURM sends before it kills a job that was cancelled, preempted or out of time.
    """
    # A shell's background job ignores interrupts and a Ray task's child has them blocked: either
    # would go on as if nothing had been sent.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))


def _forward(output: IO[bytes] | None, prefix: str) -> None:
    assert output is not None
    with output:
        for line in output:
            sys.stderr.write(f"{prefix}{line.decode(errors='replace')}")
            sys.stderr.flush()
