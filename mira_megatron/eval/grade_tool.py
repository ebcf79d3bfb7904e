"""`mira grade`: a file of predictions -> verdicts and scores.

Reads   a suite, its benchmark's data file, predictions in the benchmark's own format
Writes  OUTPUT/verdicts.jsonl, a line per sample and benchmark (grading.py)
        OUTPUT/controls.json, whether programs whose verdicts are known get them here (controls.py)
        OUTPUT/results.json, scores over all tasks and over those whose controls hold, with what
        they stand on: files by SHA-256, grader, isolation, what a regrade changed
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from mira_megatron.atomic_files import write_json
from mira_megatron.eval.benchmark import Benchmark
from mira_megatron.eval.controls import CONTROLS_FILE, Controls, run_controls, write_controls
from mira_megatron.eval.grade_shards import Shard
from mira_megatron.eval.grading import VERDICTS_FILE, Graded, all_verdicts, grade
from mira_megatron.eval.predictions import check_complete, read_predictions
from mira_megatron.eval.regrading import Flip, check_regraded, earlier_verdicts, flips
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.suite import Entry, load_suite, open_benchmark
from mira_megatron.eval.verdicts import Sample, Status, Verdict

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
    has_controls: bool = True
    is_regrade: bool = False  # samples that another grader graded are graded by this one
    shard: Shard | None = None  # these tasks alone, and no scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One benchmark's number."""

    benchmark: str
    num_tasks: int
    num_samples: int
    pass_at_1: float  # percent: the mean over tasks of the fraction of samples that pass
    counts: dict[str, int]  # samples by status
    num_controlled: int | None = None  # tasks whose gold program passes here; None: not looked at
    controlled_pass_at_1: float | None = None  # over these; None: there are none


def run(console: Console, options: GradeOptions) -> int:
    """Grades, writes both files, prints the scores; returns 0, or 1 where this machine failed.

    Raises ValueError or FileNotFoundError for what the user can fix.
    """
    entry = load_suite(options.suite, options.data_folder).entry(options.benchmark)
    cache = options.cache if options.cache is not None else options.output / "cache"
    benchmark = open_benchmark(entry, cache)
    samples = read_predictions(options.predictions, benchmark.task_ids)
    if not options.is_subset:
        check_complete(samples, benchmark.task_ids, options.predictions)
    sandbox = best_sandbox(options.min_isolation)
    graded_before = all_verdicts(options.output)
    if not options.is_regrade:
        check_regraded(
            options.output / VERDICTS_FILE,
            graded_before,
            [(sample.task_id, sample.number) for sample in samples],
            benchmark.grader,
        )
    controls = _controls(options, benchmark, samples, sandbox, cache)
    graded = grade(
        benchmark,
        samples,
        sandbox,
        options.output,
        cache,
        workers=options.workers,
        shard=options.shard,
    )
    num_unknown = sum(verdict.status is Status.INFRA for verdict in graded.verdicts)
    if num_unknown:
        logger.error("%d verdicts say nothing about the program; run the same again", num_unknown)
    if options.shard is not None:
        said = f"{options.shard.file_name}: {len(graded.verdicts):,} verdicts. Scores: the same "
        _print(console, f"{said}command without --shard, once every shard has ended")
        return int(num_unknown > 0)
    changed = flips(earlier_verdicts(graded_before, benchmark.grader), graded.verdicts)
    found = scores(graded.verdicts, controls)
    _write_results(options, entry, found, graded, controls, changed)
    _print_scores(console, found)
    if options.is_regrade:
        _print(console, f"{len(changed):,} verdicts are not what an earlier grader gave")
        for flip in changed:
            _print(console, str(flip))
    return int(num_unknown > 0)


def _controls(
    options: GradeOptions,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    sandbox: Sandbox,
    cache: Path,
) -> Controls | None:
    """Returns what the controls of the graded tasks show; a shard looks at its own tasks alone."""
    if not options.has_controls:
        return None
    asked = {sample.task_id for sample in samples}
    task_ids = [
        task_id
        for number, task_id in enumerate(benchmark.task_ids)
        if task_id in asked and (options.shard is None or options.shard.has(number))
    ]
    controls = run_controls(benchmark, task_ids, sandbox, cache, workers=options.workers)
    if options.shard is None:
        write_controls(options.output / CONTROLS_FILE, options.benchmark, controls)
    controls.check(options.benchmark)
    return controls


def _print_scores(console: Console, found: Sequence[Score]) -> None:
    for score in found:
        statuses = ", ".join(f"{name} {count}" for name, count in score.counts.items())
        said = (
            f"{score.benchmark}: {score.pass_at_1:.2f} % of {score.num_tasks:,} tasks, "
            f"{score.num_samples:,} samples ({statuses})"
        )
        if score.num_controlled is not None and score.num_controlled < score.num_tasks:
            of = score.controlled_pass_at_1
            said += f"; {'no score' if of is None else f'{of:.2f} %'} of the "
            said += f"{score.num_controlled:,} tasks whose gold program passes here"
        _print(console, said)


def _print(console: Console, said: str) -> None:
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def scores(verdicts: Sequence[Verdict], controls: Controls | None = None) -> list[Score]:
    """Returns a score per benchmark that the verdicts are of."""
    by_benchmark: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_benchmark.setdefault(verdict.benchmark, []).append(verdict)
    return [_score(name, each, controls) for name, each in by_benchmark.items()]


def _score(name: str, verdicts: Sequence[Verdict], controls: Controls | None) -> Score:
    by_task: dict[str, list[bool]] = {}
    for verdict in verdicts:
        by_task.setdefault(verdict.task_id, []).append(verdict.is_pass)
    fractions = {task_id: sum(passes) / len(passes) for task_id, passes in by_task.items()}
    counted = Counter(verdict.status for verdict in verdicts)
    score = Score(
        benchmark=name,
        num_tasks=len(by_task),
        num_samples=len(verdicts),
        pass_at_1=_percent(list(fractions.values())),
        counts={status.value: counted[status] for status in Status if counted[status]},
    )
    if controls is None:
        return score
    failing = set(controls.failing_ids(name))
    holding = [fraction for task_id, fraction in fractions.items() if task_id not in failing]
    return replace(
        score,
        num_controlled=len(holding),
        controlled_pass_at_1=_percent(holding) if holding else None,
    )


def _percent(fractions: Sequence[float]) -> float:
    return 100 * sum(fractions) / len(fractions)


def _write_results(
    options: GradeOptions,
    entry: Entry,
    found: Sequence[Score],
    graded: Graded,
    controls: Controls | None,
    changed: Sequence[Flip],
) -> None:
    content = {
        "benchmark": entry.name,
        "category": entry.category,
        "protocol": entry.protocol,
        "suite": str(options.suite),
        "data": {"path": str(entry.file), "sha256": _sha256(entry.file)},
        "predictions": {
            "path": str(options.predictions),
            "sha256": _sha256(options.predictions),
        },
        "grader": graded.verdicts[0].grader,
        "isolation": min(verdict.isolation for verdict in graded.verdicts),
        "is_subset": options.is_subset,
        "num_resumed": graded.num_resumed,
        "num_cached": graded.num_cached,
        "num_run": graded.num_run,
        "controls": None if controls is None else {"num_gold": controls.num_gold},
        "flips": [flip.to_fields() for flip in changed],
        "scores": {
            score.benchmark: {
                "pass@1": score.pass_at_1,
                "num_tasks": score.num_tasks,
                "num_samples": score.num_samples,
                "statuses": score.counts,
                "controlled": None
                if controls is None
                else {
                    "pass@1": score.controlled_pass_at_1,
                    "num_tasks": score.num_controlled,
                    "failing": controls.failing_ids(score.benchmark),
                },
            }
            for score in found
        },
    }
    write_json(options.output / RESULTS_FILE, content)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
