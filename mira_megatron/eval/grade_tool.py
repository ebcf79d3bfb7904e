"""`mira grade`: a file of predictions -> verdicts and scores.

Reads   a suite, its benchmark's data file, predictions in the benchmark's own format
Writes  OUTPUT/verdicts.jsonl, a line per sample and benchmark (grading.py)
        OUTPUT/tasks.jsonl, every task with its cluster (graded_tasks.py)
        OUTPUT/results.json, scores with what they stand on: files by SHA-256, grader, isolation
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mira_megatron.atomic_files import write_json
from mira_megatron.eval.benchmark import Benchmark, HasFacts, HasPredictionFormat
from mira_megatron.eval.graded_tasks import TASKS_FILE, write_tasks
from mira_megatron.eval.grading import Graded, grade
from mira_megatron.eval.predictions import check_complete, read_predictions
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.suite import Entry, load_suite, open_benchmark
from mira_megatron.eval.verdicts import Status, Verdict

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class GradeOptions:
    """What `mira grade` was told."""

    suite: Path
    benchmark: str
    predictions: Path
    output: Path
    data_folder: Path | None
    cache: Path | None  # None: OUTPUT/cache
    min_isolation: int
    workers: int
    is_subset: bool  # tasks may lack a prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One benchmark's number."""

    benchmark: str
    num_tasks: int
    num_samples: int
    pass_at_1: float  # percent: the mean over tasks of the fraction of samples that pass
    counts: dict[str, int]  # samples by status


def run(console: Console, options: GradeOptions) -> int:
    """Grades, writes both files, prints the scores; returns 0, or 1 where this machine failed.

    Raises ValueError or FileNotFoundError for what the user can fix.
    """
    entry = load_suite(options.suite, options.data_folder).entry(options.benchmark)
    cache = options.cache if options.cache is not None else options.output / "cache"
    benchmark = open_benchmark(entry, cache)
    if isinstance(benchmark, HasPredictionFormat):
        samples = benchmark.read_predictions(options.predictions)
    else:
        samples = read_predictions(options.predictions, benchmark.task_ids)
    if not options.is_subset:
        check_complete(samples, benchmark.task_ids, options.predictions)
    sandbox = best_sandbox(options.min_isolation)
    graded = grade(benchmark, samples, sandbox, options.output, cache, workers=options.workers)
    found = scores(graded.verdicts)
    write_tasks(options.output / TASKS_FILE, benchmark, graded.verdicts)
    _write_results(options, entry, benchmark, found, graded)
    for score in found:
        statuses = ", ".join(f"{name} {count}" for name, count in score.counts.items())
        console.print(
            f"{score.benchmark}: {score.pass_at_1:.2f} % of {score.num_tasks:,} tasks, "
            f"{score.num_samples:,} samples ({statuses})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    num_unknown = sum(score.counts.get(Status.INFRA, 0) for score in found)
    if num_unknown:
        logger.error("%d verdicts say nothing about the program; run the same again", num_unknown)
    return int(num_unknown > 0)


def scores(verdicts: Sequence[Verdict]) -> list[Score]:
    """Returns a score per benchmark that the verdicts are of."""
    by_benchmark: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_benchmark.setdefault(verdict.benchmark, []).append(verdict)
    return [_score(name, each) for name, each in by_benchmark.items()]


def _score(name: str, verdicts: Sequence[Verdict]) -> Score:
    by_task: dict[str, list[bool]] = {}
    for verdict in verdicts:
        by_task.setdefault(verdict.task_id, []).append(verdict.is_pass)
    fractions = [sum(passes) / len(passes) for passes in by_task.values()]
    counted = Counter(verdict.status for verdict in verdicts)
    return Score(
        benchmark=name,
        num_tasks=len(by_task),
        num_samples=len(verdicts),
        pass_at_1=100 * sum(fractions) / len(fractions),
        counts={status.value: counted[status] for status in Status if counted[status]},
    )


def _write_results(
    options: GradeOptions,
    entry: Entry,
    benchmark: Benchmark,
    found: Sequence[Score],
    graded: Graded,
) -> None:
    content: dict[str, Any] = {
        "benchmark": entry.name,
        "kind": entry.kind,
        "category": entry.category,
        "protocol": entry.protocol,
        "suite": str(options.suite),
        "data": {"path": str(entry.file), "sha256": _sha256(entry.file)},
        "predictions": {
            "path": str(options.predictions),
            "sha256": _sha256(options.predictions),
        },
        "grader": benchmark.grader,
        "isolation": min(verdict.isolation for verdict in graded.verdicts),
        "is_subset": options.is_subset,
        "num_resumed": graded.num_resumed,
        "num_cached": graded.num_cached,
        "num_run": graded.num_run,
        "scores": {
            score.benchmark: {
                "pass@1": score.pass_at_1,
                "num_tasks": score.num_tasks,
                "num_samples": score.num_samples,
                "statuses": score.counts,
            }
            for score in found
        },
    }
    if isinstance(benchmark, HasFacts):
        content["facts"] = benchmark.facts(graded.verdicts)
    write_json(options.output / RESULTS_FILE, content)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
