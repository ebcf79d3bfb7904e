"""Paid answers, kept under the digest of what was asked.

A folder of append-only segments, `<uuid>.jsonl`, one per process that writes, one answer per line.
An answer is handed to the operating system before it is used, so a killed process loses none that
it had received; it is forced to disk after every 64 answers or 5 seconds, whichever is first, so a
power failure loses at most those. A line that was cut off at the end of a segment is ignored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import orjson

from mira_megatron.atomic_files import NO_SPACE
from mira_megatron.scoring.completion import Answer

_ANSWERS_PER_SYNC = 64
_SECONDS_PER_SYNC = 5.0
_SUFFIX = ".jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Charged:
    """Tokens that were paid for."""

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAnswer:
    """One line of a segment."""

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
        )


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


class AnswerStore:
    """The answers in a folder, of which this process adds those it pays for.

    Raises ValueError, with file and line, for a segment that is damaged elsewhere than at its end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[bytes, _Place] = {}
        self._charged: dict[str, Charged] = {}
        self._segment: FileIO | None = None
        self._path = folder / f"{uuid4().hex}{_SUFFIX}"
        self._num_bytes = 0
        self._num_unsynced = 0
        self._last_sync = time.monotonic()
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            for place, stored in _read_segment(path):
                self._take_in(place, stored)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._segment is not None:
            with self._segment, _explaining_full_disk(self._path):
                os.fsync(self._segment.fileno())

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    def charged(self, model: str) -> Charged:
        """Returns the tokens of all answers of a model; an answer paid for twice counts twice."""
        return self._charged.get(model, Charged())

    def get(self, key: str) -> StoredAnswer | None:
        """Returns the answer to a question, or None where it has not been answered."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        with place.segment.open("rb") as file:
            file.seek(place.offset)
            return _parse(file.read(place.num_bytes))

    def put(self, stored: StoredAnswer) -> None:
        """Writes an answer; from then on a killed process has it.

        Raises OSError (one of atomic_files.NO_SPACE) with the way out when the disk is full.
        """
        line = orjson.dumps(stored, option=orjson.OPT_APPEND_NEWLINE)
        with _explaining_full_disk(self._path):
            segment = self._opened()
            _write_whole(segment, line)
            self._sync_now_and_then(segment)
        self._take_in(_Place(self._path, self._num_bytes, len(line)), stored)
        self._num_bytes += len(line)

    def _take_in(self, place: _Place, stored: StoredAnswer) -> None:
        # Of two answers to one question, paid for by processes side by side, the first stands.
        self._places.setdefault(bytes.fromhex(stored.key), place)
        so_far = self.charged(stored.model)
        self._charged[stored.model] = Charged(
            num_prompt_tokens=so_far.num_prompt_tokens + stored.charged.num_prompt_tokens,
            num_output_tokens=so_far.num_output_tokens + stored.charged.num_output_tokens,
        )

    def _opened(self) -> FileIO:
        if self._segment is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._segment = FileIO(self._path, "xb")
        return self._segment

    def _sync_now_and_then(self, segment: FileIO) -> None:
        self._num_unsynced += 1
        is_due = time.monotonic() - self._last_sync >= _SECONDS_PER_SYNC
        if is_due or self._num_unsynced >= _ANSWERS_PER_SYNC:
            os.fsync(segment.fileno())
            self._num_unsynced, self._last_sync = 0, time.monotonic()


@contextmanager
def _explaining_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise OSError(
            error.errno,
            f"{path}: no space left while keeping an answer. Answers so far are kept: make room "
            "and run the same command again",
        ) from error


def _write_whole(segment: FileIO, line: bytes) -> None:
    written = 0
    while written < len(line):
        written += segment.write(line[written:])


def _read_segment(path: Path) -> Iterator[tuple[_Place, StoredAnswer]]:
    """Yields every whole line of a segment and where it stands."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # the last, cut off by a kill or a full disk
                return
            try:
                stored = _parse(line)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{path}:{number}: not a stored answer ({error}). Restore the file, or delete "
                    "this line to have its question paid for again."
                ) from error
            yield _Place(path, offset, len(line)), stored
            offset += len(line)


def _parse(line: bytes) -> StoredAnswer:
    content = orjson.loads(line)
    bytes.fromhex(content["key"])
    return StoredAnswer(**{**content, "charged": Charged(**content["charged"])})
