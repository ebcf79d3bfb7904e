"""BigCodeBench's files: all tasks, and which of them are the hard ones.

The published Parquet files (release v0.1.4) or JSON lines with the same fields. The hard file is a
selection of the full one; of it only the task ids are read.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mira_megatron.eval.data_rows import Place, read_rows, text_fields
from mira_megatron.eval.unittest_runs import expected_tests
from mira_megatron.eval.verdicts import digest

SPLITS = ("instruct", "complete")
_OPTIONS = ("split", "hard", "python", "prefill")
_FIELDS = (
    *("task_id", "complete_prompt", "instruct_prompt", "canonical_solution", "code_prompt"),
    *("test", "entry_point"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BcbOptions:
    """What a suite says of the benchmark beside its file."""

    split: str  # that chats are asked; a program's verdict does not depend on it
    hard: str | None = None  # the hard file, beside the full one; None: no verdict of it
    python: Path | None = None  # with the tasks' libraries; None: the one that this runs on
    has_prefill: bool = False  # chats are asked with the beginning of their answer

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r}, expected {' or '.join(SPLITS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BcbTask:
    """One task with its tests."""

    task_id: str
    complete_prompt: str  # imports, signature and docstring
    instruct_prompt: str
    code_prompt: str  # imports and signature
    solution: str  # of the body
    tests: str
    entry_point: str
    libraries: tuple[str, ...]  # modules that it names
    is_hard: bool
    digest: str  # of everything that decides a verdict


def bcb_options(options: Mapping[str, Any], where: str) -> BcbOptions:
    """Returns a suite's options. Raises ValueError for one that is missing, unknown or wrong."""
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise ValueError(f"{where}: unknown options {unknown}, expected {', '.join(_OPTIONS)}")
    has_prefill = options.get("prefill", False)
    if not isinstance(has_prefill, bool):
        raise ValueError(f"{where}: prefill={has_prefill!r}, expected true or false")
    hard, python = options.get("hard"), options.get("python")
    try:
        return BcbOptions(
            split=str(options.get("split")),
            hard=None if hard is None else str(hard),
            python=None if python is None else Path(str(python)),
            has_prefill=has_prefill,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def bcb_files(path: Path, options: BcbOptions) -> tuple[Path, ...]:
    """Returns the files that the benchmark is read from."""
    return (path,) if options.hard is None else (path, path.parent / options.hard)


def load_tasks(path: Path, hard_path: Path | None) -> dict[str, BcbTask]:
    """Returns the tasks in the file's order. Raises ValueError with file and line."""
    hard = set() if hard_path is None else _ids(hard_path)
    tasks: dict[str, BcbTask] = {}
    for place, row in read_rows(path, (*_FIELDS, "libs")):
        text_fields(row, _FIELDS, place)
        task = _task(row, place, is_hard=row["task_id"] in hard)
        if task.task_id in tasks:
            raise ValueError(f"{place}: {task.task_id} is there twice")
        tasks[task.task_id] = task
    if not tasks:
        raise ValueError(f"{path}: no tasks; expected the file of bigcode/bigcodebench")
    if strange := sorted(hard - set(tasks)):
        raise ValueError(
            f"{hard_path}: task {strange[0]!r} is none of the {len(tasks):,} in {path}; take both "
            "files of one release"
        )
    return tasks


def _ids(path: Path) -> set[str]:
    ids = set()
    for place, row in read_rows(path, ("task_id",)):
        text_fields(row, ("task_id",), place)
        ids.add(row["task_id"])
    if not ids:
        raise ValueError(f"{path}: no tasks; expected the file of bigcode/bigcodebench-hard")
    return ids


def _task(row: Mapping[str, Any], place: Place, *, is_hard: bool) -> BcbTask:
    try:
        expected_tests(row["test"])
        libraries = _libraries(row.get("libs"))
    except ValueError as error:
        raise ValueError(f"{place}: {row['task_id']}: {error}") from error
    return BcbTask(
        task_id=row["task_id"],
        complete_prompt=row["complete_prompt"],
        instruct_prompt=row["instruct_prompt"],
        code_prompt=row["code_prompt"],
        solution=row["canonical_solution"],
        tests=row["test"],
        entry_point=row["entry_point"],
        libraries=libraries,
        is_hard=is_hard,
        digest=digest(row["task_id"], row["code_prompt"], row["test"], str(is_hard)),
    )


def _libraries(value: Any) -> tuple[str, ...]:
    """Returns the modules of a list, or of a text that is one in Python, as published."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"libs={value[:60]!r} is no list") from error
    names = [] if value is None else value
    if not isinstance(names, list) or not all(
        isinstance(name, str) and all(map(str.isidentifier, name.split("."))) for name in names
    ):
        raise ValueError(f"libs={str(value)[:60]!r} is no list of modules")
    return tuple(names)
