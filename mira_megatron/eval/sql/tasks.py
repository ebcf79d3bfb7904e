"""The questions of Spider and BIRD with their gold statements, from the published files.

    Spider  dev.json: a list of {db_id, question, query}; no ids, so a task is its place: spider/0
    BIRD    dev.json: a list of {question_id, db_id, question, evidence, SQL, difficulty}

A gold file in the published form, SQL, a tab and the database's name per line, may take the place
of the statements in dev.json; there the last tab counts, since statements may hold tabs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_SPIDER_FIELDS: Mapping[str, type] = {"db_id": str, "question": str, "query": str}
_BIRD_FIELDS: Mapping[str, type] = {
    "question_id": int,
    "db_id": str,
    "question": str,
    "evidence": str,
    "SQL": str,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SqlTask:
    """One question on one database."""

    task_id: str
    database: str
    question: str
    evidence: str  # what BIRD says beside the question; "" where there is nothing
    gold: str
    difficulty: str  # BIRD's; "" where the file has none


def load_spider(path: Path, gold_file: Path | None = None) -> dict[str, SqlTask]:
    """Returns Spider's tasks by id. Raises ValueError with file and place for what is wrong."""
    tasks = [
        SqlTask(
            task_id=f"spider/{number}",
            database=fields["db_id"],
            question=fields["question"],
            evidence="",
            gold=fields["query"],
            difficulty="",
        )
        for number, fields in enumerate(_entries(path, _SPIDER_FIELDS))
    ]
    return _by_id(path, tasks, gold_file)


def load_bird(path: Path, gold_file: Path | None = None) -> dict[str, SqlTask]:
    """Returns BIRD's tasks by id. Raises ValueError with file and place for what is wrong."""
    tasks = [
        SqlTask(
            task_id=f"bird/{fields['question_id']}",
            database=fields["db_id"],
            question=fields["question"],
            evidence=fields["evidence"].strip(),
            gold=fields["SQL"],
            difficulty=str(fields.get("difficulty", "")),
        )
        for fields in _entries(path, _BIRD_FIELDS)
    ]
    return _by_id(path, tasks, gold_file)


def _entries(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f"{path}: expected a list of tasks with {', '.join(fields)}, as dev.json is"
        )
    for number, entry in enumerate(entries):
        for name, kind in fields.items():
            found = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(found, kind) or isinstance(found, bool):
                raise ValueError(
                    f"{path}: task {number}: {name} is {ascii(found)[:40]}, expected "
                    f"{kind.__name__}; a task has {', '.join(fields)}"
                )
        name = entry["db_id"]
        if not name or "/" in name or name in (".", "..") or "\0" in name:
            raise ValueError(f"{path}: task {number}: db_id {name!r}, expected a folder's name")
    return entries


def _by_id(path: Path, tasks: Sequence[SqlTask], gold_file: Path | None) -> dict[str, SqlTask]:
    if gold_file is not None:
        tasks = _with_gold(tasks, gold_file)
    by_id = {task.task_id: task for task in tasks}
    if len(by_id) != len(tasks):
        counted = Counter(task.task_id for task in tasks)
        raise ValueError(
            f"{path}: {counted.most_common(1)[0][0]} is there twice; a task's id is its own"
        )
    return by_id


def _with_gold(tasks: Sequence[SqlTask], path: Path) -> list[SqlTask]:
    try:
        lines = path.read_bytes().decode().rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); unpack it again") from error
    if len(lines) != len(tasks):
        raise ValueError(
            f"{path}: {len(lines):,} lines for {len(tasks):,} tasks, expected a line each"
        )
    replaced = []
    for number, (task, line) in enumerate(zip(tasks, lines, strict=True), start=1):
        gold, tab, database = line.rstrip().rpartition("\t")
        if not tab or database.strip() != task.database:
            raise ValueError(
                f"{path}:{number}: database {database.strip()[-40:]!r} behind the last tab, "
                f"expected {task.database!r}, that of {task.task_id}"
            )
        replaced.append(replace(task, gold=gold.strip()))
    return replaced
