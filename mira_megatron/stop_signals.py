"""SIGTERM acts as the first Ctrl-C does: what is in flight is finished and kept, then it ends.

SLURM sends it before it kills a job that is cancelled, preempted or out of time. asyncio listens to
Ctrl-C alone, so SIGTERM is handed to whoever handles that. A second one changes nothing: srun and a
script's trap may both pass it on, and what it asks for is under way. Only Ctrl-C ends at once.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import wraps
from threading import current_thread, main_thread
from types import FrameType
from typing import ParamSpec

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

Arguments = ParamSpec("Arguments")


class Terminated(KeyboardInterrupt):
    """SIGTERM came while nothing was in flight."""


def heeding_sigterm(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Returns the command with SIGTERM taken as Ctrl-C; its exit code is then 143 for 130."""

    @wraps(command)
    def heeding(*given: Arguments.args, **named: Arguments.kwargs) -> int:
        with _sigterm_as_interrupt() as received:
            try:
                code = command(*given, **named)
            except BrokenExecutor:
                # srun sends it to worker processes as well, which end at once.
                if not received:
                    raise
                return TERMINATED
        return TERMINATED if received and code == INTERRUPTED else code

    return heeding


@contextmanager
def _sigterm_as_interrupt() -> Iterator[list[int]]:
    """Hands SIGTERM to the handler of SIGINT until the block ends; yields what has come so far.

    Where SIGINT is ignored, as by the background job of a script that traps SIGTERM to pass it on,
    it is not ignored in here: asyncio would listen to neither.
    """
    received: list[int] = []
    if current_thread() is not main_thread():
        yield received  # Python lets only the main thread handle signals
        return

    def hand_over(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            return
        handler = signal.getsignal(signal.SIGINT)
        if _is_under_way(handler):
            return
        if handler is signal.default_int_handler or not callable(handler):
            raise Terminated
        handler(signal.SIGINT, frame)

    on_interrupt = signal.getsignal(signal.SIGINT)
    on_terminate = signal.signal(signal.SIGTERM, hand_over)
    if on_interrupt is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # a Ray task's child has it blocked
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, on_terminate)
        signal.signal(signal.SIGINT, on_interrupt)


@contextmanager
def holding_back_sigterm() -> Iterator[None]:
    """Has a SIGTERM that comes within the block act at its end; processes started in it get theirs.

    Blocking the signal instead would have the processes that are started here inherit that.
    """
    if current_thread() is not main_thread():
        yield  # Python lets only the main thread handle signals
        return
    received: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
    if received:
        signal.raise_signal(signal.SIGTERM)


def _is_under_way(handler: object) -> bool:
    """Returns whether Ctrl-C has come before, by asyncio's handler of it (asyncio.Runner)."""
    task = getattr(handler, "keywords", {}).get("main_task")
    return isinstance(task, asyncio.Task) and task.cancelling() > 0
