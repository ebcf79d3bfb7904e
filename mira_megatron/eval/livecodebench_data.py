"""LiveCodeBench's raw files: which of them a release is, and the tasks of a window of days.

A release is its files: `release_v6` is test.jsonl to test6.jsonl, `v6` is test6.jsonl alone and
`v4_v6` three of them, as the publisher names them. In place of a file testN.jsonl there may be
testN.parquet, or a folder vN of Parquet files. A window bounds the day of the contest, both ends
included. A score means nothing without the two.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from mira_megatron.eval.data_rows import Place, read_rows, row_at, text_fields
from mira_megatron.eval.livecodebench_tests import LcbTest, unpacked_tests
from mira_megatron.eval.verdicts import digest

logger = logging.getLogger(__name__)

_RELEASE = re.compile(r"release_v([1-9]\d?)|v([1-9]\d?)(?:_v([1-9]\d?))?")
_TESTS = ("public_test_cases", "private_test_cases")
_OPTIONS = ("release", "from", "until", "python", "call_seconds")
_FIELDS = ("question_id", "question_content", "contest_date", "starter_code", "metadata", *_TESTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Edition:
    """Which tasks: a release, and the days between which their contests lay."""

    release: str
    first_day: date | None = None
    last_day: date | None = None

    def __post_init__(self) -> None:
        release_numbers(self.release)
        if self.first_day and self.last_day and self.last_day < self.first_day:
            raise ValueError(f"from={self.first_day} is after until={self.last_day}")

    def __str__(self) -> str:
        if self.first_day is None and self.last_day is None:
            return self.release
        return f"{self.release} {self.first_day or ''}..{self.last_day or ''}"

    def has(self, day: date) -> bool:
        """True = a contest of that day lies in the window."""
        return (self.first_day or date.min) <= day <= (self.last_day or date.max)


@dataclass(frozen=True, kw_only=True, slots=True)
class LcbTask:
    """One task without its tests, which can be hundreds of megabytes."""

    task_id: str
    content: str
    starter_code: str
    function: str | None  # None: a program that reads and prints
    day: date
    place: Place
    digest: str  # of everything that decides a verdict

    def tests(self) -> tuple[LcbTest, ...]:
        """Returns the tests, read from the file. Raises ValueError with file and line."""
        row = row_at(self.place, _TESTS)
        text_fields(row, _TESTS, self.place)
        tests = unpacked_tests(row[_TESTS[0]], row[_TESTS[1]], self.place)
        if not tests or any(test.is_functional != bool(self.function) for test in tests):
            kind = "functional" if self.function else "stdin"
            raise ValueError(f"{self.place}: expected tests, all of them {kind}")
        return tests


def edition_of(options: Mapping[str, Any], where: str) -> Edition:
    """Returns the edition of a suite's options. Raises ValueError for what they lack."""
    try:
        if unknown := sorted(set(options) - set(_OPTIONS)):
            raise ValueError(f"unknown options {unknown}")
        return Edition(
            release=str(options.get("release")),
            first_day=_day(options.get("from")),
            last_day=_day(options.get("until")),
        )
    except ValueError as error:
        raise ValueError(
            f"{where}: {error}; expected `release` (release_v6: all up to v6; v6: that one alone) "
            "and, for a window, `from` and `until` as YYYY-MM-DD; `python` names another "
            "interpreter, `call_seconds` another limit"
        ) from error


def release_numbers(release: str) -> range:
    """Returns the numbers of a release's files. Raises ValueError for another name."""
    found = _RELEASE.fullmatch(release)
    if found is None:
        raise ValueError(f"release={release!r} is no release of LiveCodeBench")
    if found[1]:
        return range(1, int(found[1]) + 1)
    numbers = range(int(found[2]), int(found[3] or found[2]) + 1)
    if not numbers:
        raise ValueError(f"release={release!r} ends before it begins")
    return numbers


def release_files(folder: Path, release: str) -> tuple[Path, ...]:
    """Returns the files of a release. Raises FileNotFoundError naming the first missing one."""
    return tuple(
        path for number in release_numbers(release) for path in _files_of(folder, number, release)
    )


def load_tasks(folder: Path, edition: Edition) -> dict[str, LcbTask]:
    """Returns an edition's tasks in the files' order. Raises ValueError with file and line."""
    tasks: dict[str, LcbTask] = {}
    num_rows = 0
    for path in release_files(folder, edition.release):
        for task in _tasks_of(path):
            num_rows += 1
            known = tasks.get(task.task_id)
            if known is not None and known.digest != task.digest:
                raise ValueError(
                    f"{task.place}: task {task.task_id} is another one in {known.place}"
                )
            if known is None and edition.has(task.day):
                tasks[task.task_id] = task
    if not tasks:
        raise ValueError(
            f"{folder}: none of {num_rows:,} tasks of {edition.release} is in {edition}; "
            "choose another `release`, `from` or `until`"
        )
    logger.info("livecodebench %s: %d of %d tasks", edition, len(tasks), num_rows)
    return tasks


def _files_of(folder: Path, number: int, release: str) -> Iterable[Path]:
    stem = "test" if number == 1 else f"test{number}"
    for path in (folder / f"{stem}.jsonl", folder / f"{stem}.parquet"):
        if path.is_file():
            return [path]
    mirrored = sorted((folder / f"v{number}").glob("*.parquet"))
    if not mirrored:
        raise FileNotFoundError(
            f"{folder / stem}.jsonl is not there; LiveCodeBench {release} needs it, or "
            f"{stem}.parquet, or v{number}/*.parquet, from livecodebench/code_generation_lite"
        )
    return mirrored


def _tasks_of(path: Path) -> Iterable[LcbTask]:
    for place, row in read_rows(path, _FIELDS):
        text_fields(row, _FIELDS, place)
        try:
            day = datetime.fromisoformat(row["contest_date"]).date()
            function = _function_of(row["metadata"])
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        yield LcbTask(
            task_id=row["question_id"],
            content=row["question_content"],
            starter_code=row["starter_code"],
            function=function,
            day=day,
            place=place,
            digest=digest(row["question_id"], function or "", *(row[name] for name in _TESTS)),
        )


def _function_of(metadata: str) -> str | None:
    found = json.loads(metadata)
    function = found.get("func_name") if isinstance(found, dict) else ""
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise ValueError(
            f"metadata={metadata[:60]!r} names no function, expected func_name or {{}}"
        )
    return function


def _day(value: Any) -> date | None:
    return None if value is None else date.fromisoformat(str(value))
