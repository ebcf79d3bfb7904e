"""The journal of answers that a process writes: one write per answer, forced to disk in groups.

A journal lies as `<uuid>-<number>.jsonl` in the folder of answers and belongs to the process that
holds a lock on it. What is written is in the operating system's hands when the call returns, so
kill -9 takes nothing back; a thread forces it to disk every few seconds, so a power failure takes
at most those. Its answers are found through a dict of this process's own, some 150 bytes for each.
"""

from __future__ import annotations

import fcntl
import os
from io import FileIO
from pathlib import Path
from threading import Event, Lock, Thread

import orjson

from mira_megatron.atomic_files import explaining_full_disk
from mira_megatron.scoring.stored_answer import (
    Charges,
    Sent,
    StoredAnswer,
    answer_line,
    ended_line,
    sent_line,
    stored_from,
)

SUFFIX = ".jsonl"
KEEPING = "keeping an answer. Answers so far are kept: make room and run the same command again"
_LENGTH_BITS = 32


class Journal:
    """A journal that this process writes, and has locked until it is closed.

    Raises OSError (one of atomic_files.NO_SPACE) with the way out when the disk is full; what was
    written before is whole.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.charges = Charges()
        self.num_bytes = 0
        # By key, offset and length of the line in one number: half the memory of a pair.
        self.places: dict[bytes, int] = {}
        with explaining_full_disk(self.path, KEEPING):
            self.file = FileIO(self.path, "xb+", opener=_open_to_append)
        # A journal without a byte is never taken for one that was left: nobody is in between.
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self._num_synced = 0
        self._closing = Lock()

    def put(self, stored: StoredAnswer, number: int | None) -> None:
        """Appends an answer, and the end of what it answers."""
        line = answer_line(stored)
        place = self.num_bytes << _LENGTH_BITS | len(line)
        self._append(line if number is None else line + ended_line(number))
        # Of two answers to one question, the first stands.
        self.places.setdefault(bytes.fromhex(stored.key), place)
        self.charges.add(stored.model, stored.charged)
        if number is not None:
            self.charges.end(number)

    def send(self, number: int, sent: Sent) -> None:
        """Appends what is about to be sent."""
        self._append(sent_line(number, sent))
        self.charges.send(number, sent)

    def end(self, number: int) -> None:
        """Appends the end of what was sent."""
        self._append(ended_line(number))
        self.charges.end(number)

    def lose(self, number: int) -> None:
        """Leaves what was sent charged at its most, for good.

        Nothing is written: this journal says that it was sent, and never that it ended. So what is
        lost stays here, and is not taken along from journal to journal.
        """
        del self.charges.sent[number]

    def get(self, key: bytes) -> StoredAnswer | None:
        """Returns the answer to a question, or None where it is not in this journal."""
        place = self.places.get(key)
        if place is None:
            return None
        length = place & (1 << _LENGTH_BITS) - 1
        line = os.pread(self.file.fileno(), length, place >> _LENGTH_BITS)
        return stored_from(orjson.loads(line))

    def sync(self) -> None:
        """Forces to disk what was written before the call."""
        with self._closing:
            num_bytes = self.num_bytes
            if num_bytes == self._num_synced or self.file.closed:
                return
            with explaining_full_disk(self.path, KEEPING):
                os.fsync(self.file.fileno())
            self._num_synced = num_bytes

    def close(self) -> None:
        """Lets the file go: whoever opens the folder next may take it in."""
        with self._closing:
            self.file.close()

    def _append(self, lines: bytes) -> None:
        descriptor = self.file.fileno()
        try:
            written = os.write(descriptor, lines)
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
        except OSError:
            os.ftruncate(descriptor, self.num_bytes)  # the next line must not follow half a line
            with explaining_full_disk(self.path, KEEPING):
                raise
        self.num_bytes += len(lines)


class SyncThread:
    """Forces a journal to disk every few seconds; what fails is raised by `check`."""

    def __init__(self, seconds: float) -> None:
        self.journal: Journal | None = None
        self._seconds = seconds
        self._stopped = Event()
        self._error: OSError | None = None
        self._thread = Thread(target=self._run, daemon=True, name="answers to disk")
        self._thread.start()

    def check(self) -> None:
        """Raises the OSError with which an answer could not be forced to disk."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the thread, once it has ended what it is doing."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                if self.journal is not None:
                    self.journal.sync()
            except OSError as error:
                self._error = error
                return


def _open_to_append(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND, 0o666)
