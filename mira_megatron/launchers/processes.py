"""Several workers of one command on this machine, their output forwarded line by line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from threading import Thread
from typing import IO

from mira_megatron.stop_signals import INTERRUPTED, TERMINATED, Terminated, holding_back_sigterm

logger = logging.getLogger(__name__)


def run_workers(words: Sequence[str], num_workers: int, num_threads: int | None = None) -> int:
    """Runs `mira` with these words `num_workers` times at once; returns the worst exit code.

    Each computes on `num_threads` threads, None: on as many as its libraries take. A
    worker that was killed counts as 0: what it left undone, another takes over. Every line that a
    worker writes goes to stderr behind its number.
    """
    command = [sys.executable, "-m", "mira_megatron.cli", *words]
    environment = {} if num_threads is None else {"OMP_NUM_THREADS": str(num_threads)}
    workers: list[subprocess.Popen[bytes]] = []
    forwarding: list[Thread] = []
    try:
        # Raised between a worker's start and its place in the list, it would leave that one behind.
        with holding_back_sigterm():
            for number in range(1, num_workers + 1):
                worker = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                )
                workers.append(worker)
                thread = Thread(target=_forward, args=(worker.stdout, f"[{number}] "))
                forwarding.append(thread)
                thread.start()
        return max(map(_exit_code, count(1), workers, forwarding))
    except Terminated:
        # Unlike Ctrl-C on a terminal it may have come to this process alone.
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        raise


def _exit_code(number: int, worker: subprocess.Popen[bytes], forwarding: Thread) -> int:
    """Returns the exit code of a worker once it has ended; 0 for one that was told to, or killed.

    What it left undone, another takes over.
    """
    forwarding.join()
    code = worker.wait()
    if code < 0:
        logger.warning("worker %d was killed by signal %d", number, -code)
    elif code in (INTERRUPTED, TERMINATED):
        logger.warning("worker %d was told to end", number)
    return 0 if code in (INTERRUPTED, TERMINATED) else max(code, 0)


def _forward(output: IO[bytes] | None, prefix: str) -> None:
    assert output is not None
    with output:
        for line in output:
            sys.stderr.write(f"{prefix}{line.decode(errors='replace')}")
            sys.stderr.flush()
