"""Paid answers, kept under the digest of what was asked, and what may have been paid for nothing.

A process appends the answers that it pays for to a journal of its own (answer_journal); what no
process writes any more lies in segments (answer_segments). An answer is in the operating system's
hands before `put` returns, so kill -9 forgets none. Where there is a spend ceiling (spending), a
line says what is about to be sent: what has not ended, because its answer was lost or the process
killed, is charged at its most.

Memory does not grow with the corpus: a journal that has grown becomes a segment while the next one
is written. What another process is writing at the time is not seen, which costs a second question
at worst; of two answers to one question the first stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import numpy as np

from mira_megatron.file_lock import held_lock, shared_lock
from mira_megatron.scoring.answer_journal import SUFFIX, Journal, SyncThread
from mira_megatron.scoring.answer_segments import AnswerSegments, Found, take_in
from mira_megatron.scoring.key_files import KEY_DTYPE
from mira_megatron.scoring.stored_answer import Charged, Sent, StoredAnswer

__all__ = ["AnswerStore", "Charged", "StoredAnswer", "asking"]

_SECONDS_PER_SYNC = 5.0
_ANSWERS_PER_JOURNAL = 1 << 16
_BYTES_PER_JOURNAL = 1 << 28
_MOST_BEING_MADE = 2  # segments: were answers ever to come faster than that, they wait
_LOCK = ".lock"


def asking(folder: Path, *, together: bool) -> AbstractContextManager[None]:
    """Keeps processes from asking with the same folder of answers until the block ends.

    Two that asked at once would pay twice for one question, and each up to the spend ceiling; but
    for workers that share the questions among them (`together`), and have no such ceiling.
    """
    refusal = (
        f"{folder}: another process is asking with this answers folder. Wait for it to "
        "end, or use another one (answers_folder in the section teacher or score)."
    )
    lock = folder / _LOCK
    return shared_lock(lock, refusal) if together else held_lock(lock, refusal)


class AnswerStore:
    """The answers in a folder, of which this process adds those it pays for.

    Opening it makes segments of the journals that earlier processes left. Raises ValueError with
    file and line for a journal that is damaged elsewhere than at its end, with the file for a
    damaged segment; OSError (one of atomic_files.NO_SPACE) with the way out when the disk is full.
    What goes wrong in the background is raised by the next `put`, `send`, `end` or the exit.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds_per_sync: float = _SECONDS_PER_SYNC,
        answers_per_journal: int = _ANSWERS_PER_JOURNAL,
    ) -> None:
        self.folder = folder
        self._segments = AnswerSegments(folder)
        self._journals: deque[Journal] = deque()  # oldest first; the last is the one written
        self._made: deque[Future[Found]] = deque()  # segments of all journals but the last
        self._name = uuid4().hex
        self._num_journals = 0
        self._num_sent = 0
        self._seconds_per_sync = seconds_per_sync
        self._answers_per_journal = answers_per_journal
        self._syncing: SyncThread | None = None
        self._making: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._syncing is None:
            return
        self._syncing.stop()
        try:
            if error is None:
                self._syncing.check()
                if self._journals:
                    self._retire(self._journals[-1])
                while self._made:
                    self._take_over()
        finally:
            if self._making is not None:
                self._making.shutdown(cancel_futures=True)
            # What is left here after an error becomes a segment when the folder is opened next.
            with ExitStack() as closing:
                for journal in self._journals:
                    closing.callback(journal.close)
                    closing.callback(journal.sync)

    def __len__(self) -> int:
        own = {key for journal in self._journals for key in journal.places}
        return len(self._segments) + len(own) - int(self._segments.has(_digests(own)).sum())

    def __contains__(self, key: str) -> bool:
        digest = bytes.fromhex(key)
        if any(digest in journal.places for journal in self._journals):
            return True
        return bool(self._segments.has(_digests([digest]))[0])

    def charged(self, model: str) -> Charged:
        """Returns the tokens of all answers of a model, and the most of what has not ended.

        An answer paid for twice counts twice.
        """
        total = self._segments.charged(model)
        for journal in self._journals:
            total += journal.charges.by_model.get(model, Charged())
        return total

    def get(self, key: str) -> StoredAnswer | None:
        """Returns the answer to a question, or None where it has not been answered."""
        # Most have not been answered, which is known sooner than where an answer lies.
        return self.known([key])[key] if key in self else None

    def known(self, keys: Sequence[str]) -> dict[str, StoredAnswer]:
        """Returns the answers to those questions that have been answered, by their keys.

        For all keys of a shard at once: a key alone costs as much as several hundred more.
        """
        digests = [bytes.fromhex(key) for key in keys]
        found = {keys[index]: stored for index, stored in self._segments.get(_digests(digests))}
        for journal in self._journals:
            for key, digest in zip(keys, digests, strict=True):
                if key not in found and (stored := journal.get(digest)) is not None:
                    found[key] = stored
        return found

    def send(self, model: str, most: Charged) -> int:
        """Notes what is about to be sent; returns its number, for `put` or `end`."""
        number, self._num_sent = self._num_sent, self._num_sent + 1
        self._journal().send(number, Sent(model, most))
        return number

    def end(self, number: int) -> None:
        """Notes that what was sent has cost nothing."""
        self._journal().end(number)

    def lose(self, number: int) -> None:
        """Notes that nobody will tell what was sent has cost: it is charged at its most."""
        self._journals[-1].lose(number)

    def put(self, stored: StoredAnswer, number: int | None = None) -> None:
        """Writes an answer, with the number of what it answers; a killed process has it."""
        self._journal().put(stored, number)

    def _journal(self) -> Journal:
        """Returns the journal to write to."""
        if self._syncing is None:
            self._syncing = SyncThread(self._seconds_per_sync)
        self._syncing.check()
        while self._made and (self._made[0].done() or len(self._made) >= _MOST_BEING_MADE):
            self._take_over()
        if self._journals:
            journal = self._journals[-1]
            is_full = (
                len(journal.places) >= self._answers_per_journal
                or journal.num_bytes >= _BYTES_PER_JOURNAL
            )
            if not is_full:
                return journal
        # Numbered, so that those of a process that is killed are taken in in their order.
        self._num_journals += 1
        following = Journal(self.folder / f"{self._name}-{self._num_journals:06d}{SUFFIX}")
        if self._journals:
            # What is in flight is charged twice for a moment, rather than not at all.
            sent = dict(journal.charges.sent)
            for number, each in sent.items():
                following.send(number, each)
            for number in sent:
                journal.end(number)
            self._retire(journal)
        self._journals.append(following)
        self._syncing.journal = following
        return following

    def _retire(self, journal: Journal) -> None:
        """Has a segment made of a journal that is not written any more."""
        if self._making is None:
            self._making = ThreadPoolExecutor(1, "segments of answers")
        self._made.append(self._making.submit(_synced_and_taken_in, journal))

    def _take_over(self) -> None:
        """Finds the answers of the oldest journal in its segment from here on."""
        found = self._made[0].result()  # what failed once is raised for good
        self._made.popleft()
        self._segments.use(found)
        self._journals.popleft().close()


def _synced_and_taken_in(journal: Journal) -> Found:
    journal.sync()
    return take_in(journal.path)


def _digests(digests: Sequence[bytes] | set[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), KEY_DTYPE)
