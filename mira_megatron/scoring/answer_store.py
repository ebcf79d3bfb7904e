"""Paid answers, kept under the digest of what was asked, and what may have been paid for nothing.

A folder of append-only segments, `<uuid>.jsonl`, one per process that writes. Lines are of three
kinds:

    {"sent": 7, "model", "most"}   written before a request is sent: the most that it can cost
    {"key", "model", ...}          an answer (StoredAnswer)
    {"ended": 7}                   beside the answer to what was sent, or for a failure without cost

What was sent and has not ended, because its answer was lost or the process killed, is charged at
its most. A line is handed to the operating system before the next step is taken, so a killed
process forgets nothing; it is forced to disk after every 64 answers or 5 seconds, whichever is
first, so a power failure loses at most those. A line that was cut off at the end of a segment is
ignored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import orjson

from mira_megatron.atomic_files import explaining_full_disk
from mira_megatron.file_lock import held_lock
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import SlotOdds

_ANSWERS_PER_SYNC = 64
_SECONDS_PER_SYNC = 5.0
_SUFFIX = ".jsonl"
_LOCK = ".lock"
_KEEPING = "keeping an answer. Answers so far are kept: make room and run the same command again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Charged:
    """Tokens that were paid for."""

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0

    def __add__(self, other: Charged) -> Charged:
        return Charged(
            num_prompt_tokens=self.num_prompt_tokens + other.num_prompt_tokens,
            num_output_tokens=self.num_output_tokens + other.num_output_tokens,
        )

    def __sub__(self, other: Charged) -> Charged:
        return Charged(
            num_prompt_tokens=self.num_prompt_tokens - other.num_prompt_tokens,
            num_output_tokens=self.num_output_tokens - other.num_output_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAnswer:
    """An answer as a line of a segment has it."""

    key: str  # see question_key
    model: str
    charged: Charged  # what the server counted, or else the most it can have been
    text: str | None
    reasoning: str | None
    finish_reason: str | None
    num_prompt_tokens: int | None  # as the server counted
    num_output_tokens: int | None
    failure: str | None  # of a completion without usable text: refused, no_content
    failure_detail: str | None
    # With answer_mode=expected, as Answer has them; segments from before it hold neither.
    odds: tuple[SlotOdds, ...] | None = None
    first_top: tuple[tuple[str, float], ...] | None = None

    def answer(self, key: str) -> Answer:
        """Returns what was received, as the answer to the request called `key`."""
        return Answer(
            key=key,
            text=self.text,
            reasoning=self.reasoning,
            finish_reason=self.finish_reason,
            num_prompt_tokens=self.num_prompt_tokens,
            num_output_tokens=self.num_output_tokens,
            failure=self.failure,
            failure_detail=self.failure_detail,
            is_completion=True,
            odds=self.odds,
            first_top=self.first_top,
        )


@dataclass(frozen=True, slots=True)
class _Sent:
    model: str
    most: Charged


@dataclass(frozen=True, slots=True)
class _Place:
    segment: Path
    offset: int
    num_bytes: int


def question_key(
    *, model: str, messages: bytes, sampling: Sequence[object], fields: Mapping[str, Any]
) -> str:
    """Returns 32 hex digits of what decides an answer; `messages` is their JSON."""
    asked = orjson.dumps([model, sampling, fields], option=orjson.OPT_SORT_KEYS)
    digest = blake2b(digest_size=16)
    for part in (asked, messages):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def asking_alone(folder: Path) -> AbstractContextManager[None]:
    """Keeps other processes from asking with the same folder of answers until the block ends.

    Two that asked at once would pay twice for one question, and each up to the spend ceiling.
    """
    return held_lock(
        folder / _LOCK,
        f"{folder}: another process is asking with this answers folder. Wait for it to "
        "end, or use another one (answers_folder in the section teacher or score).",
    )


class AnswerStore:
    """The answers in a folder, of which this process adds those it pays for.

    Raises ValueError, with file and line, for a segment that is damaged elsewhere than at its end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[bytes, _Place] = {}
        self._charged: dict[str, Charged] = {}
        self._sent: dict[int, _Sent] = {}  # by this process, and not ended
        self._num_sent = 0
        self._segment: FileIO | None = None
        self._path = folder / f"{uuid4().hex}{_SUFFIX}"
        self._num_bytes = 0
        self._num_unsynced = 0
        self._last_sync = time.monotonic()
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            self._read(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._segment is not None:
            with self._segment, explaining_full_disk(self._path, _KEEPING):
                os.fsync(self._segment.fileno())

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    def charged(self, model: str) -> Charged:
        """Returns the tokens of all answers of a model, and the most of what has not ended.

        An answer paid for twice counts twice.
        """
        return self._charged.get(model, Charged())

    def get(self, key: str) -> StoredAnswer | None:
        """Returns the answer to a question, or None where it has not been answered."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        with place.segment.open("rb") as file:
            file.seek(place.offset)
            return _stored(orjson.loads(file.read(place.num_bytes)))

    def send(self, model: str, most: Charged) -> int:
        """Notes what is about to be sent; returns its number, for `put` or `end`.

        Raises OSError as `put` does.
        """
        number, self._num_sent = self._num_sent, self._num_sent + 1
        self._write(_line({"sent": number, "model": model, "most": most}))
        self._sent[number] = _Sent(model, most)
        self._charge(model, most)
        return number

    def end(self, number: int) -> None:
        """Notes that what was sent has cost nothing; raises OSError as `put` does."""
        self._write(_line({"ended": number}))
        self._discharge(self._sent.pop(number))

    def put(self, stored: StoredAnswer, number: int | None = None) -> None:
        """Writes an answer, with the number of what it answers; a killed process has it.

        Raises OSError (one of atomic_files.NO_SPACE) with the way out when the disk is full.
        """
        line = _line(stored)
        place = _Place(self._path, self._num_bytes, len(line))
        self._write(line if number is None else line + _line({"ended": number}))
        self._take_in(stored, place)
        if number is not None:
            self._discharge(self._sent.pop(number))
        with explaining_full_disk(self._path, _KEEPING):
            self._sync_now_and_then()

    def _write(self, lines: bytes) -> None:
        with explaining_full_disk(self._path, _KEEPING):
            if self._segment is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._segment = FileIO(self._path, "xb")
            _write_whole(self._segment, lines)
        self._num_bytes += len(lines)

    def _read(self, path: Path) -> None:
        """Takes in every whole line of a segment."""
        offset = 0
        sent: dict[int, _Sent] = {}
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):  # the last, cut off by a kill or a full disk
                    return
                try:
                    self._read_line(orjson.loads(line), _Place(path, offset, len(line)), sent)
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(
                        f"{path}:{number}: not a stored answer ({error}). Restore the file, or "
                        "delete this line to have its question paid for again."
                    ) from error
                offset += len(line)

    def _read_line(self, content: Any, place: _Place, sent: dict[int, _Sent]) -> None:
        """Takes in one line; `sent` is what its segment says was sent and has not ended."""
        if "sent" in content:
            most = Charged(**content["most"])
            sent[content["sent"]] = _Sent(content["model"], most)
            self._charge(content["model"], most)
        elif "ended" in content:
            self._discharge(sent.pop(content["ended"]))
        else:
            self._take_in(_stored(content), place)

    def _take_in(self, stored: StoredAnswer, place: _Place) -> None:
        # Of two answers to one question, the first stands.
        self._places.setdefault(bytes.fromhex(stored.key), place)
        self._charge(stored.model, stored.charged)

    def _charge(self, model: str, charged: Charged) -> None:
        self._charged[model] = self.charged(model) + charged

    def _discharge(self, sent: _Sent) -> None:
        self._charged[sent.model] = self.charged(sent.model) - sent.most

    def _sync_now_and_then(self) -> None:
        assert self._segment is not None
        self._num_unsynced += 1
        is_due = time.monotonic() - self._last_sync >= _SECONDS_PER_SYNC
        if is_due or self._num_unsynced >= _ANSWERS_PER_SYNC:
            os.fsync(self._segment.fileno())
            self._num_unsynced, self._last_sync = 0, time.monotonic()


def _write_whole(segment: FileIO, line: bytes) -> None:
    written = 0
    while written < len(line):
        written += segment.write(line[written:])


def _line(content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def _stored(content: dict[str, Any]) -> StoredAnswer:
    bytes.fromhex(content["key"])
    odds, first_top = content.get("odds"), content.get("first_top")
    return StoredAnswer(
        **{
            **content,
            "charged": Charged(**content["charged"]),
            "odds": None if odds is None else tuple(SlotOdds(**slot) for slot in odds),
            "first_top": None if first_top is None else tuple(map(tuple, first_top)),
        }
    )
