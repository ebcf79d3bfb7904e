"""A finished evaluation without what tells one run from another of the same answers.

Answers and verdicts stand in the order in which they came, earlier attempts of this machine among
them, and results say how many were resumed, and where files lay. What is kept here is a function of
the model, the data and the settings: the answers that are planned and the verdicts that count, in
the order of the data; names in the place of paths. Everything that `mira compare` reads stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.eval.evaluate_tool import Work
from mira_megatron.eval.generation.generations import GENERATIONS_FILE, read_generations
from mira_megatron.eval.generation.suite_file import SUITE_FILE
from mira_megatron.eval.grade_tool import RESULTS_FILE
from mira_megatron.eval.graded_tasks import TASKS_FILE, read_tasks
from mira_megatron.eval.grading import VERDICTS_FILE, read_verdicts
from mira_megatron.eval.scores import file_sha256

_OF_ONE_RUN = ("num_resumed", "num_cached", "num_run")
_LOCK = f".{VERDICTS_FILE.partition('.')[0]}.lock"


def settle(output: Path, works: Iterable[Work]) -> dict[str, int]:
    """Writes the files of a whole evaluation anew; returns the rows of those that have some.

    May be ended at any moment and done again: each file is replaced whole.
    """
    rows = {}
    for work in works:
        folder = output / work.entry.name
        rows[f"{work.entry.name}/{GENERATIONS_FILE}"] = _settle_generations(work, output)
        rows[f"{work.entry.name}/{VERDICTS_FILE}"] = _settle_verdicts(work, folder)
        _settle_results(work, folder)
        (folder / _LOCK).unlink(missing_ok=True)
    _settle_suite(output / SUITE_FILE)
    return rows


def _settle_generations(work: Work, output: Path) -> int:
    path = work.path(output)
    generations = read_generations(path)
    lines = [generations[planned.key].to_line() for planned in work.planned]
    write_bytes(path, b"".join(lines))
    return len(lines)


def _settle_verdicts(work: Work, folder: Path) -> int:
    by_key = {verdict.key: verdict for verdict in read_verdicts(folder / VERDICTS_FILE)}
    keys = (
        f"{task.task_id}#{number}#{program}#{work.benchmark.grader}#{name}"
        for task in read_tasks(folder / TASKS_FILE)
        for number, program in sorted(task.programs.items())
        for name in work.benchmark.verdict_names
    )
    lines = [by_key[key].to_line() for key in keys if key in by_key]
    write_bytes(folder / VERDICTS_FILE, b"".join(lines))
    return len(lines)


def _settle_results(work: Work, folder: Path) -> None:
    path = folder / RESULTS_FILE
    results: dict[str, Any] = json.loads(path.read_bytes())
    for name in _OF_ONE_RUN:
        results.pop(name, None)
    results["suite"] = Path(results["suite"]).name
    results["data"]["path"] = work.entry.file.name
    results["predictions"] = {
        "path": GENERATIONS_FILE,
        "sha256": file_sha256(folder / GENERATIONS_FILE),
    }
    write_json(path, results)


def _settle_suite(path: Path) -> None:
    content: dict[str, Any] = json.loads(path.read_bytes())
    for benchmark in content["benchmarks"].values():
        benchmark["suite"] = {"name": benchmark["suite"]["name"]}
    lengths = sorted({each["max_model_len"] for each in content["served"]} - {None})
    content["served"] = [
        {"endpoint": None, "model": content["model"], "root": None, "max_model_len": length}
        for length in lengths
    ]
    write_json(path, content)
