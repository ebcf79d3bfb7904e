"""`mira grade`: a file of predictions -> verdicts and scores.

Reads   a suite, its benchmark's data file, predictions in the benchmark's own format
Writes  OUTPUT/verdicts.jsonl, a line per sample and benchmark (grading.py)
        OUTPUT/controls.json, whether programs whose verdicts are known get them here (controls.py)
        OUTPUT/results.json, scores over all tasks and over those whose controls hold, with what
        they stand on: files by SHA-256, grader, isolation, what a regrade changed
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
from mira_megatron.eval.scores import (
    Score,
    file_sha256,
    print_line,
    print_scores,
    score_fields,
    scores,
)
from mira_megatron.eval.suite import Entry, load_suite, open_benchmark
from mira_megatron.eval.verdicts import Sample, Status

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
        print_line(console, f"{said}command without --shard, once every shard has ended")
        return int(num_unknown > 0)
    changed = flips(earlier_verdicts(graded_before, benchmark.grader), graded.verdicts)
    found = scores(graded.verdicts, controls)
    _write_results(options, entry, found, graded, controls, changed)
    print_scores(console, found)
    if options.is_regrade:
        print_line(console, f"{len(changed):,} verdicts are not what an earlier grader gave")
        for flip in changed:
            print_line(console, str(flip))
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
        "data": {"path": str(entry.file), "sha256": file_sha256(entry.file)},
        "predictions": {
            "path": str(options.predictions),
            "sha256": file_sha256(options.predictions),
        },
        "grader": graded.verdicts[0].grader,
        "isolation": min(verdict.isolation for verdict in graded.verdicts),
        "is_subset": options.is_subset,
        "num_resumed": graded.num_resumed,
        "num_cached": graded.num_cached,
        "num_run": graded.num_run,
        "controls": None if controls is None else {"num_gold": controls.num_gold},
        "flips": [flip.to_fields() for flip in changed],
        "scores": {score.benchmark: score_fields(score, controls) for score in found},
    }
    write_json(options.output / RESULTS_FILE, content)
