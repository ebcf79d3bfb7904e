"""Files of predicted statements as Spider's and BIRD's own scripts read them.

    Spider  a statement per line in the order of dev.json, optionally with a tab and the database's
            name behind it; an empty line is an empty prediction
    BIRD    one .json object, {"0": "SQL<tab>----- bird -----<tab>database"}; keys are places in
            dev.json or, where they do not count from 0, question_ids

Files that end in .jsonl are read as for every benchmark: task_id with solution or completion.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mira_megatron.eval.predictions import read_predictions
from mira_megatron.eval.sql.tasks import SqlTask
from mira_megatron.eval.verdicts import Form, Sample

BIRD_SEPARATOR = "\t----- bird -----\t"


def spider_predictions(path: Path, tasks: Mapping[str, SqlTask]) -> list[Sample]:
    """Returns one sample per line. Raises ValueError with file and line for what does not fit."""
    if path.suffix == ".jsonl":
        return read_predictions(path, list(tasks))
    text = path.read_bytes().decode(errors="surrogateescape")
    lines = text.removesuffix("\n").split("\n")
    while len(lines) > len(tasks) and not lines[-1].strip():
        lines.pop()  # empty lines behind the last task's
    if not text.strip() or len(lines) > len(tasks):
        raise ValueError(
            f"{path}: {len(lines) if text.strip() else 0:,} lines for {len(tasks):,} tasks; "
            "expected a statement per line, in the order of dev.json"
        )
    names = {task.database for task in tasks.values()}
    samples = []
    for number, (task, line) in enumerate(zip(tasks.values(), lines, strict=False), start=1):
        statement, tab, database = line.rstrip().rpartition("\t")
        if not tab:
            statement = database
        elif database.strip() in names:
            _check_database(database.strip(), task, f"{path}:{number}")
        else:  # a tab within the statement
            statement = line
        samples.append(_sample(task, statement))
    return samples


def bird_predictions(path: Path, tasks: Mapping[str, SqlTask]) -> list[Sample]:
    """Returns one sample per key. Raises ValueError with file and key for what does not fit."""
    if path.suffix == ".jsonl":
        return read_predictions(path, list(tasks))
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, dict) or not entries:
        raise ValueError(
            f'{path}: expected {{"0": "SQL\\t----- bird -----\\tdatabase"}}, or task_ids in .jsonl'
        )
    places = list(tasks.values())
    if set(entries) == {str(place) for place in range(len(entries))}:
        by_key = {str(place): task for place, task in enumerate(places)}
    else:
        by_key = {task.task_id.removeprefix("bird/"): task for task in places}
    samples = []
    for key, text in entries.items():
        where = f"{path}: {key!r}"
        if key not in by_key:
            raise ValueError(
                f"{where}: no place and no question_id of the {len(tasks):,} tasks; give the "
                "predictions of the same data file"
            )
        samples.append(_bird_sample(by_key[key], text, where))
    return samples


def _bird_sample(task: SqlTask, text: object, where: str) -> Sample:
    if not isinstance(text, str):  # how BIRD's own files say that there was no answer
        return _sample(task, "")
    statement, separator, database = text.rpartition(BIRD_SEPARATOR)
    if not separator:
        raise ValueError(f"{where}: no {BIRD_SEPARATOR!r} between statement and database")
    _check_database(database.strip(), task, where)
    return _sample(task, statement)


def _check_database(database: str, task: SqlTask, where: str) -> None:
    if database != task.database:
        raise ValueError(
            f"{where}: a statement for {database!r}, but {task.task_id} is about "
            f"{task.database!r}; the predictions are of another file, or in another order"
        )


def _sample(task: SqlTask, statement: str) -> Sample:
    return Sample(task_id=task.task_id, number=0, text=statement, form=Form.PROGRAM)
