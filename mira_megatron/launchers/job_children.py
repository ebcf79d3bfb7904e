"""The processes that a job starts: told to end when the job is, and gone when it is gone.

SIGTERM and SIGUSR1 to the job become SIGTERM to those that do its work. Which of the two came makes
no difference: a cancelled, a preempted and a timed-out job all keep what they have. SLURM may send
a signal to every process of a step. Children ignore SIGUSR1, which most programs die of; so it is
the one by which a job ends in order, servers last.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import IO, Any, Self

from mira_megatron.launchers.end_with_parent import end_with_parent

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_CANNOT_BE_RUN = 127  # as a shell has it


class Stopped(Exception):
    """The job was told to end."""


class AttemptFailed(Exception):
    """Something failed that may work at the next attempt; `code` is its exit code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class AttemptOver(Exception):
    """Another node has ended this attempt."""


class JobChildren:
    """Receives the signals of a job while the block is open. Only the main thread may have one."""

    def __init__(self) -> None:
        self.is_stopping = False
        self._workers: list[subprocess.Popen[bytes]] = []
        self._all: list[subprocess.Popen[bytes]] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {each: signal.signal(each, self._receive) for each in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end([each for each in self._all if each.poll() is None], seconds=0)
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def start(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
        is_server: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Starts a process; a server is not told of signals, but ended by who started it.

        Its words go to the job's log, or to `output`. Raises Stopped where the job was told to end,
        and AttemptFailed where there is no such program.
        """
        if self.is_stopping:
            raise Stopped
        try:
            child = subprocess.Popen(
                words,
                env=None if environment is None else {**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                start_new_session=is_server,  # what a server starts is ended with it
                preexec_fn=_prepare,
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise AttemptFailed(
                _CANNOT_BE_RUN, f"{words[0]}: cannot be run ({error.strerror})"
            ) from error
        self._all.append(child)
        if not is_server:
            self._workers.append(child)
            if self.is_stopping:  # the signal came before the child was known
                _terminate(child)
        return child

    def run(self, words: Sequence[str]) -> int:
        """Runs a process to its end and returns its exit code, -N where signal N ended it."""
        child = self.start(words)
        try:
            return child.wait()
        finally:
            self.forget(child)

    def pause(self, seconds: float) -> None:
        """Returns after so many seconds, or as soon as the job is told to end."""
        deadline = time.monotonic() + seconds
        while not self.is_stopping and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def forget(self, child: subprocess.Popen[bytes]) -> None:
        """Leaves out a child that has ended."""
        for children in (self._workers, self._all):
            if child in children:
                children.remove(child)

    def end(self, children: Sequence[subprocess.Popen[bytes]], *, seconds: float) -> None:
        """Tells children to end, and has them ended when that takes longer than `seconds`."""
        for child in children:
            _terminate(child)
        deadline = time.monotonic() + seconds
        while any(child.poll() is None for child in children) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for child in children:
            child.kill()
            if child not in self._workers:
                # A server is the first of a session, so its number is that of a group as well.
                with suppress(ProcessLookupError):  # nothing is left of it
                    os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self.forget(child)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.is_stopping:
            name = signal.Signals(number).name
            logger.warning("%s: told to end, what is running is told to keep what it has", name)
        self.is_stopping = True
        for child in self._workers:
            _terminate(child)


def _terminate(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        child.terminate()


def _prepare() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if end_with_parent is not None:
        end_with_parent()
