"""What evaluations left, read once into typed records; nothing behind this module sees JSON.

Reads   FOLDER/results.json, or FOLDER/<entry>/results.json of a whole suite, each with
        verdicts.jsonl and tasks.jsonl beside it; FOLDER/suite.json, where it is there (style)
Writes  nothing: a folder may be read while another process grades into it

Scores are computed anew from the verdicts, and refused where results.json says otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mira_megatron.eval.comparison.protocol import NOT_RECORDED, Protocol
from mira_megatron.eval.grade_tool import RESULTS_FILE
from mira_megatron.eval.graded_tasks import TASKS_FILE, GradedTask, read_tasks
from mira_megatron.eval.grading import VERDICTS_FILE
from mira_megatron.eval.verdicts import Status, Verdict, digest, verdict_of_line

_INTERPRETER = "python"  # a path: the same libraries lie elsewhere on another machine
SUITE_FILE = "suite.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One benchmark of one evaluation: what became of every sample."""

    benchmark: str  # the verdicts' name
    entry: str  # the suite's, which may give several
    stratum: str  # benchmarks of one kind name their clusters alike
    statuses: Mapping[str, tuple[Status, ...]]  # by task, in the order of the data file
    clusters: Mapping[str, str]  # by task
    is_subset: bool  # tasks of the data file were left out
    failing: frozenset[str]  # tasks whose gold program fails on the machine that graded
    protocol: Protocol

    @property
    def fractions(self) -> dict[str, float]:
        """Returns the share of right samples by task."""
        return {
            task: sum(status is Status.PASS for status in each) / len(each)
            for task, each in self.statuses.items()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All that one folder holds."""

    folder: Path
    outcomes: Mapping[str, Outcome]  # by benchmark


def read_evaluation(folder: Path) -> Evaluation:
    """Returns what was graded below a folder.

    Raises FileNotFoundError where there are no results, ValueError with the file for what is wrong
    with them.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected what was graded into")
    own = folder / RESULTS_FILE
    paths = [own] if own.is_file() else sorted(folder.glob(f"*/{RESULTS_FILE}"))
    if not paths:
        raise FileNotFoundError(
            f"{folder}: neither {RESULTS_FILE} nor <benchmark>/{RESULTS_FILE}; expected the output "
            "of `mira evaluate`, or a folder with outputs of `mira grade`"
        )
    style = _style(folder / SUITE_FILE)
    outcomes: dict[str, Outcome] = {}
    for path in paths:
        for outcome in _entry_outcomes(path, style):
            if outcome.benchmark in outcomes:
                raise ValueError(
                    f"{path}: {outcome.benchmark} is also in "
                    f"{outcomes[outcome.benchmark].entry}; keep one of them in {folder}"
                )
            outcomes[outcome.benchmark] = outcome
    return Evaluation(folder=folder, outcomes=outcomes)


def _entry_outcomes(path: Path, style: str) -> list[Outcome]:
    results = _mapping(path)
    tasks = _tasks(path.parent / TASKS_FILE)
    verdicts = _verdicts(path.parent / VERDICTS_FILE)
    grader = _text(results, "grader", path)
    scores = results.get("scores")
    if not isinstance(scores, dict) or not scores:
        raise ValueError(f"{path}: no scores; grade again")
    outcomes = []
    for name, score in scores.items():
        statuses = _statuses(tasks, verdicts, grader, name)
        _check_score(path, name, score, statuses)
        outcomes.append(
            Outcome(
                benchmark=name,
                entry=_text(results, "benchmark", path),
                stratum=str(results.get("kind", results["benchmark"])),
                statuses=statuses,
                clusters={task.task_id: task.cluster for task in tasks if task.task_id in statuses},
                is_subset=any(not task.programs for task in tasks),
                failing=_failing(score, path),
                protocol=Protocol(
                    data=_data(results, path),
                    settings=_settings(results, path),
                    tasks=f"{len(statuses):,} ({digest(*statuses)[:8]})",
                    samples=_numbers({len(each) for each in statuses.values()}),
                    protocol=_text(results, "protocol", path),
                    template=_asked(results, "template", path),
                    style=style,
                    sampling=_asked(results, "sampling", path),
                    grader=grader,
                    isolation=str(results.get("isolation", NOT_RECORDED)),
                ),
            )
        )
    return outcomes


def _statuses(
    tasks: Sequence[GradedTask], verdicts: Mapping[str, Verdict], grader: str, benchmark: str
) -> dict[str, tuple[Status, ...]]:
    """Returns the statuses by task; a task without a verdict is none of this benchmark's."""
    found: dict[str, tuple[Status, ...]] = {}
    for task in tasks:
        keys = [
            f"{task.task_id}#{sample}#{program}#{grader}#{benchmark}"
            for sample, program in sorted(task.programs.items())
        ]
        statuses = tuple(verdicts[key].status for key in keys if key in verdicts)
        if statuses:
            found[task.task_id] = statuses
    return found


def _check_score(
    path: Path, name: str, score: Any, statuses: Mapping[str, tuple[Status, ...]]
) -> None:
    num_samples = sum(map(len, statuses.values()))
    fractions = [
        sum(status is Status.PASS for status in each) / len(each) for each in statuses.values()
    ]
    try:
        is_same = (
            len(statuses) == score["num_tasks"]
            and num_samples == score["num_samples"]
            and bool(fractions)
            and abs(score["pass@1"] - 100 * math.fsum(fractions) / len(fractions)) < 1e-6
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: scores.{name} lacks {error}; grade again") from error
    if not is_same:
        said = (
            "no verdict" if not fractions else f"{100 * math.fsum(fractions) / len(fractions):.4f}"
        )
        raise ValueError(
            f"{path}: scores.{name} is {score['pass@1']:.4f} over {score['num_tasks']} tasks, but "
            f"{VERDICTS_FILE} gives {said} over {len(statuses)}: the files are not of one run. "
            "Grade again"
        )


def _verdicts(path: Path) -> dict[str, Verdict]:
    """Returns verdicts by key, the later of two; a torn last line is no verdict."""
    content = _content(path)
    verdicts = {}
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            verdict = verdict_of_line(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}; grade again") from error
        verdicts[verdict.key] = verdict
    return verdicts


def _tasks(path: Path) -> list[GradedTask]:
    try:
        return read_tasks(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file; grade again (verdicts that are there are kept)"
        ) from error


def _data(results: Mapping[str, Any], path: Path) -> str:
    data = results.get("data")
    sha256 = data.get("sha256") if isinstance(data, dict) else None
    if isinstance(sha256, dict) and sha256:
        return digest(json.dumps(sha256, sort_keys=True))
    return _text({"data.sha256": sha256}, "data.sha256", path)


def _settings(results: Mapping[str, Any], path: Path) -> str:
    """Returns options and single facts of the results, but not where an interpreter lies."""
    options, facts = results.get("options") or {}, results.get("facts") or {}
    if not isinstance(options, dict) or not isinstance(facts, dict):
        raise ValueError(f"{path}: options or facts are no mapping; grade again")
    single = {name: fact for name, fact in facts.items() if not isinstance(fact, dict | list)}
    settings = {**options, **single}
    settings.pop(_INTERPRETER, None)
    return json.dumps(settings, sort_keys=True)


def _failing(score: Mapping[str, Any], path: Path) -> frozenset[str]:
    """Returns the tasks whose controls failed; none where no controls were run."""
    controlled = score.get("controlled") or {}
    failing = controlled.get("failing", []) if isinstance(controlled, dict) else None
    if not isinstance(failing, list) or not all(isinstance(task, str) for task in failing):
        raise ValueError(f"{path}: controlled is {controlled!r}, expected task ids; grade again")
    return frozenset(failing)


def _style(path: Path) -> str:
    return str(_mapping(path).get("style", NOT_RECORDED)) if path.is_file() else NOT_RECORDED


def _asked(results: Mapping[str, Any], name: str, path: Path) -> str:
    """Returns with what answers were generated; of predictions made elsewhere nobody knows."""
    asked = results.get("asked")
    if asked is None:
        return NOT_RECORDED
    words = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{path}: asked.{name} is {words!r}, expected a list; grade again")
    return ", ".join(words)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(_content(path))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); grade again") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: {type(fields).__name__}, expected an object; grade again")
    return fields


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file; grade again") from error


def _text(fields: Mapping[str, Any], name: str, path: Path) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{path}: {name} is {value!r}, expected text; grade again")
    return value


def _numbers(values: set[int]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return str(low) if low == high else f"{low} to {high}"
