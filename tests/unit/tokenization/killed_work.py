"""Work in a process of its own that ends as kill -9 does, at one of its calls to the system.

What is patched belongs to the standard library. A write that is killed has done half of its work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from threading import Lock
from typing import Any
from unittest import mock

# Every call by which files change here, and the argument that says how much it is to do.
_CALLS = ("replace", "fsync", "pwrite", "copy_file_range", "symlink")


class _Killing:
    """The calls of _CALLS, counted together; one of them is the last."""

    def __init__(self, kill_at: int) -> None:
        self.num_calls = 0
        self._kill_at = kill_at
        self._lock = Lock()

    def around(self, name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def counted(*arguments: Any) -> Any:
            with self._lock:
                self.num_calls += 1
                if self.num_calls != self._kill_at:
                    return call(*arguments)
                if name == "pwrite":
                    descriptor, content, place = arguments
                    call(descriptor, content[: len(content) // 2], place)
                os.kill(os.getpid(), signal.SIGKILL)

        return counted


def num_calls_or_killed(
    work: Callable[..., object], arguments: tuple[Any, ...], kill_at: int
) -> int:
    """Returns how many calls `work` made, or minus the signal that ended it at one of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, arguments, kill_at, sender))
    process.start()
    sender.close()
    process.join()
    return int(process.exitcode or 0) or int(receiver.recv())


def _run(
    work: Callable[..., object], arguments: tuple[Any, ...], kill_at: int, sender: Any
) -> None:
    killing = _Killing(kill_at)
    patches = [mock.patch.object(os, name, killing.around(name)) for name in _CALLS]
    for patch in patches:
        patch.start()
    work(*arguments)
    sender.send(killing.num_calls)
