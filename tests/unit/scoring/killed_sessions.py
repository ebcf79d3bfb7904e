"""Sessions with a store of answers, in processes of their own that may end as kill -9 does.

    python killed_sessions.py      reads sessions, one JSON line each, and forks one child for each

A session opens the folder, puts answers and closes it; its child kills itself at one of its calls
to the system, or at the end in place of closing. What is patched belongs to the standard library. A
write that is killed has done half of its work.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self
from unittest import mock

import pyarrow as pa
import stored_answers

from mira_megatron.scoring.answer_store import AnswerStore

# Every call by which files change here.
_CALLS = ("write", "fsync", "replace", "unlink", "mkdir")
ANSWERS_PER_JOURNAL = 3


class Sessions:
    """A process that holds sessions; use as a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self,
        folder: Path,
        answers: Sequence[tuple[int, str]] = (),
        *,
        kill_at: int = 0,
        is_closed: bool = True,
    ) -> tuple[bool, int]:
        """Returns whether the session came to its end, and how many answers were put by then.

        `kill_at` is the number of the call that is killed, from 1.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), answers, kill_at, is_closed]) + "\n")
        self._process.stdin.flush()
        is_ended, num_put = json.loads(self._process.stdout.readline())
        return is_ended, num_put


def _around(name: str, kill_at: int, calls: list[str], lock: Lock) -> Callable[..., Any]:
    call = getattr(os, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        with lock:
            calls.append(name)
            is_last = len(calls) == kill_at
            if is_last and name == "write":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    return counted


def _session(
    folder: Path, answers: Sequence[tuple[int, str]], kill_at: int, is_closed: bool, report: int
) -> None:
    calls: list[str] = []
    lock, tell = Lock(), os.write
    for name in _CALLS:
        mock.patch.object(os, name, _around(name, kill_at, calls, lock)).start()
    with AnswerStore(folder, answers_per_journal=ANSWERS_PER_JOURNAL) as store:
        for number, text in answers:
            store.put(stored_answers.stored(number, text))
            tell(report, b".")
        if not is_closed:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    pa.array([""])  # loads what every child would load for itself
    for line in sys.stdin:
        folder, answers, kill_at, is_closed = json.loads(line)
        receiver, sender = os.pipe()
        child = os.fork()
        if not child:
            _session(Path(folder), answers, kill_at, is_closed, sender)
            os._exit(0)
        os.close(sender)
        with os.fdopen(receiver, "rb") as told:
            num_put = len(told.read())
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL), status
        sys.stdout.write(json.dumps([status == 0, num_put]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
