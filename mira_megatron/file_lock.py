"""Locks on files: held alone, waited for, or held together with others.

What is in use is told, not waited for, unless it is only in use for a moment: the command that was
refused may be run again as it is. Over NFS a shared
lock needs a file that is open for reading and an exclusive one a file open for writing, so lock
files are opened for both.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

IN_USE = 75  # EX_TEMPFAIL: exit code of a command that was refused a lock


class LockHeldError(ValueError):
    """Another process holds a lock, as it will not for ever."""


@contextmanager
def held_lock(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock until the block ends; LockHeldError with `refusal` where another does."""
    with _opened(path) as lock:
        if not _has_got(lock, fcntl.LOCK_EX):
            raise LockHeldError(refusal)
        yield


@contextmanager
def shared_lock(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock with others; LockHeldError with `refusal` where one holds it alone."""
    with _opened(path) as lock:
        if not _has_got(lock, fcntl.LOCK_SH):
            raise LockHeldError(refusal)
        yield


@contextmanager
def waited_lock(path: Path) -> Iterator[None]:
    """Holds the lock until the block ends, once whoever holds it now has let it go."""
    with _opened(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class JoinedLock:
    """A lock that several processes hold together; `held_lock` is refused while one of them does.

    `is_first` says whether nobody held it when this process joined.
    """

    is_first: bool
    _file: IO[Any]

    def is_last(self) -> bool:
        """Returns whether nobody else holds it any more, and none can join if so.

        To be asked on the way out: where another holds it, this process may hold it no longer.
        """
        return _has_got(self._file, fcntl.LOCK_EX)


@contextmanager
def joined_lock(path: Path, refusal: str) -> Iterator[JoinedLock]:
    """Holds the lock with others; LockHeldError with `refusal` where one holds it alone.

    Whoever joins must be kept from joining at the same time as another, by `waited_lock`.
    """
    with _opened(path) as lock:
        is_first = _has_got(lock, fcntl.LOCK_EX)
        if not _has_got(lock, fcntl.LOCK_SH):
            raise LockHeldError(refusal)
        yield JoinedLock(is_first, lock)


def _opened(path: Path) -> IO[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+")


def _has_got(lock: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
