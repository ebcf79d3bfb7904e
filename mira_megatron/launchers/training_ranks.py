"""One training on one node of a job: a process per GPU, with the variables that torchrun gives.

Not by torchrun itself: its agent answers SIGTERM with SIGKILL after 30 seconds, in which a large
training cannot save, and it starts processes again that SLURM is to start again. The variables are
the same, so a script cannot tell.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from mira_megatron.launchers.job_children import (
    POLL_SECONDS,
    AttemptFailed,
    JobChildren,
    Stopped,
)
from mira_megatron.launchers.job_place import JobPlace

logger = logging.getLogger(__name__)

_STOP_SECONDS = 30.0  # for the other ranks, once one has failed


def run_ranks(
    words: Sequence[str],
    *,
    num_ranks: int,
    place: JobPlace,
    children: JobChildren,
    check_others: Callable[[], None],
) -> None:
    """Runs a script and its words as the ranks of this node, until all have ended with 0.

    Raises AttemptFailed once one has ended otherwise, and what `check_others` raises where another
    node has ended the attempt, the rest of this node being ended; Stopped where the job was told to
    end, once all have ended.
    """
    port = place.port if place.num_nodes > 1 else _free_port()
    first = place.node * num_ranks
    common = {
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "WORLD_SIZE": str(num_ranks * place.num_nodes),
        "GROUP_RANK": str(place.node),
        "GROUP_WORLD_SIZE": str(place.num_nodes),
        "MASTER_ADDR": place.head,
        "MASTER_PORT": str(port),
    }
    if num_ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        common["OMP_NUM_THREADS"] = "1"  # each rank would take all cores
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(num_ranks):
            own = {"RANK": str(first + number), "LOCAL_RANK": str(number)}
            command = [sys.executable, "-u", *words]
            ranks.append(children.start(command, environment={**common, **own}))
        logger.info(
            "ranks %d to %d of %s run %s",
            first,
            first + num_ranks - 1,
            common["WORLD_SIZE"],
            words[0],
        )
        _wait(ranks, first, children, check_others)
    finally:
        children.end(ranks, seconds=_STOP_SECONDS)
    if children.is_stopping:
        raise Stopped


def _wait(
    ranks: Sequence[subprocess.Popen[bytes]],
    first: int,
    children: JobChildren,
    check_others: Callable[[], None],
) -> None:
    """Returns when all ranks have ended; raises AttemptFailed when one did not end well."""
    running = dict(enumerate(ranks, start=first))
    while running:
        for rank, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[rank]
            # Told to end, a rank may end with any code; the others are still to save theirs.
            if code and not children.is_stopping:
                raise AttemptFailed(code, f"rank {rank} of the training {exit_words(code)}")
        check_others()  # ranks wait for those of a node that has failed, and nobody tells them
        time.sleep(POLL_SECONDS)


def exit_words(code: int) -> str:
    """Returns how a process ended, in words."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
