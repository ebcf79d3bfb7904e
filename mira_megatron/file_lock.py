"""Locks that one process holds: another is refused, or waits for work that is short."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held_lock(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock until the block ends; ValueError with `refusal` where another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(refusal) from error
        yield


@contextmanager
def waited_lock(path: Path) -> Iterator[None]:
    """Holds the lock until the block ends, once whoever holds it now has let it go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
