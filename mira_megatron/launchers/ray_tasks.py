"""The stage `score` shared by Ray tasks: each is one `mira score --share`, wherever Ray has room.

Ray decides where tasks run and when. Who does which part is decided by the claims in the run folder
(launchers/claims.py), which all nodes see, as they do the folder that the driver is started in. So
a task that dies, comes late or is started again never makes a record count twice.

A task runs `mira` as a child process, with the GPUs that Ray gave it, and hands on its lines. The
driver shows them, starts tasks again that have died, and ends when all parts are there.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from mira_megatron.config import Recipe
from mira_megatron.launchers.end_with_parent import end_with_parent
from mira_megatron.launchers.missing import units_left
from mira_megatron.stop_signals import INTERRUPTED, TERMINATED

logger = logging.getLogger(__name__)

MAX_RETRIES = 3  # of each task, and of what is left when all have ended
_CONNECT_SECONDS = 10.0
_POLL_SECONDS = 5.0  # while others hold all that is left
_LISTEN_SECONDS = 0.2  # how soon a task hears that it is cancelled


@dataclass(frozen=True, kw_only=True, slots=True)
class RayWorkers:
    """What the tasks run, how many there are, and what each needs."""

    words: Sequence[str]  # of `mira`
    address: str  # of the cluster; "" as ray.init finds one, or starts one on this machine
    num_tasks: int | None  # None: as the cluster has GPUs for, or one per node
    gpus_per_task: float
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  # environment variables


def run_ray_workers(
    workers: RayWorkers, recipe: Recipe, *, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Scores with Ray tasks until all parts are there; returns the worst exit code of a worker.

    Returns 1 where workers died so often that something is left. Raises KeyboardInterrupt once
    interrupted workers have ended, ValueError where there is no cluster.
    """
    with _connected(workers.address):
        tasks = _Tasks(workers)
        num_tasks = workers.num_tasks or _room(workers.gpus_per_task)
        code = tasks.run(num_tasks)
        num_rounds = 0
        while code == 0 and (left := list(units_left(recipe))):
            if not any(unit.can_be_worked_on for unit in left):
                sleep(_POLL_SECONDS)  # until the others are done, or are taken for dead
                continue
            if num_rounds == MAX_RETRIES:
                logger.error("%s", "; ".join(map(str, left)))
                logger.error("workers died too often; the same command goes on from here")
                return 1
            num_rounds += 1
            code = tasks.run(min(num_tasks, sum(max(1, unit.num_missing) for unit in left)))
        return code


class _Tasks:
    """The tasks that run now; one that has died is started again, some times."""

    def __init__(self, workers: RayWorkers) -> None:
        # Retried here, not by Ray: it would have a task repeat its lines, and show only the new.
        self._share = ray.remote(_share).options(
            name="mira score --share",
            num_cpus=1,
            num_gpus=workers.gpus_per_task,
            num_returns="streaming",
            max_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._arguments = (tuple(workers.words), str(Path.cwd()), dict(workers.secrets))
        self._numbers: dict[Any, int] = {}  # of the workers that run, by what they say
        self._num_retries: Counter[int] = Counter()  # by worker

    def run(self, num_tasks: int) -> int:
        """Runs so many until they have ended; returns the worst exit code but for those that died.

        Raises KeyboardInterrupt after an interrupt, once all have ended.
        """
        for number in range(1, num_tasks + 1):
            self._start(number)
        worst = 0
        try:
            while self._numbers:
                worst = max(worst, self._listen())
        except KeyboardInterrupt:
            logger.warning("stopping: waiting for the workers to end what is in flight")
            for said in self._numbers:
                ray.cancel(said)
            while self._numbers:
                self._listen(is_ending=True)
            raise
        return worst

    def _start(self, number: int) -> None:
        self._numbers[self._share.remote(*self._arguments)] = number

    def _listen(self, *, is_ending: bool = False) -> int:
        """Waits until a worker says something or ends; returns the exit code, 0 before the end."""
        (said, *_), _ = ray.wait(list(self._numbers), num_returns=1, fetch_local=False)
        try:
            message: str | int = ray.get(next(said))
        except (StopIteration, TaskCancelledError):
            return self._ended(said, "was cancelled", is_ending)
        except RayTaskError:
            raise  # our own mistake
        except RayError as error:
            return self._ended(said, f"died ({type(error).__name__})", is_ending)
        if isinstance(message, str):
            sys.stderr.write(f"[{self._numbers[said]}] {message}")
            sys.stderr.flush()
            return 0
        if message < 0 or message in (INTERRUPTED, TERMINATED):
            signalled = f"by signal {-message}" if message < 0 else "politely"
            return self._ended(said, f"was ended {signalled}", is_ending)
        del self._numbers[said]
        return message

    def _ended(self, said: Any, how: str, is_ending: bool) -> int:
        """Starts a worker again that has not come to its end, where it may."""
        number = self._numbers.pop(said)
        if not is_ending:
            may_retry = self._num_retries[number] < MAX_RETRIES
            logger.warning(
                "worker %d %s; %s",
                number,
                how,
                "started again" if may_retry else "that was too often, what it left is others' now",
            )
            if may_retry:
                self._num_retries[number] += 1
                self._start(number)
        return 0


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connects to the cluster at `address`, or one that ray.init finds or starts."""
    _check_reachable(address)
    try:
        ray.init(
            address=address or None,
            log_to_driver=True,  # what a task writes once it is cancelled, and Ray's own warnings
            configure_logging=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).partition("\n")[0]) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises ValueError where nobody listens at HOST:PORT, which ray.init tries for minutes."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise _no_cluster(address, "a Ray client cannot follow what tasks say")
    if not port.isdigit():
        return  # a word of ray.init's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, problem: str) -> ValueError:
    return ValueError(
        f"--ray {address}: no Ray cluster to work on there ({problem}). Give the HOST:PORT that "
        "`ray start --head` prints, or leave it out for a cluster on this machine"
    )


def _room(gpus_per_task: float) -> int:
    """Returns how many workers the cluster has GPUs for; one per node where they need none."""
    if not gpus_per_task:
        return sum(bool(node["Alive"]) for node in ray.nodes())
    num_gpus = ray.cluster_resources().get("GPU", 0.0)
    if num_gpus < gpus_per_task:
        logger.warning(
            "a worker needs %g GPUs and the cluster has %g: it waits until there are more "
            "(--gpus-per-task changes what it asks for)",
            gpus_per_task,
            num_gpus,
        )
    return max(1, int(num_gpus / gpus_per_task))


def _share(words: Sequence[str], folder: str, secrets: Mapping[str, str]) -> Iterator[str | int]:
    """Runs `mira` in `folder` as a task; yields its lines, then its exit code.

    Cancelling the task interrupts `mira`, and the task ends when it has.
    """
    if not Path(folder).is_dir():
        yield f"{folder}: the folder that you started in is not there on {os.uname().nodename}\n"
        yield 2
        return
    worker = subprocess.Popen(
        [sys.executable, "-m", "mira_megatron.cli", *words],
        cwd=folder,
        env={**os.environ, **secrets},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=end_with_parent,  # it would go on beside the one that is started in its place
    )
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(worker, lines), daemon=True).start()
    try:
        # Ray's interrupt is seen between two waits, not in the middle of reading from a pipe.
        while (line := _next(lines)) is not None:
            yield line.decode(errors="replace")
    except KeyboardInterrupt:
        worker.send_signal(signal.SIGINT)
        # A task that is cancelled can yield nothing more; Ray hands on what it writes.
        while (line := _next(lines)) is not None:
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()
        worker.wait()
        return
    yield worker.wait()


def _read(worker: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    assert worker.stdout is not None
    with worker.stdout:
        for line in worker.stdout:
            lines.put(line)
    lines.put(None)


def _next(lines: queue.SimpleQueue[bytes | None]) -> bytes | None:
    while True:
        try:
            return lines.get(timeout=_LISTEN_SECONDS)
        except queue.Empty:
            continue
