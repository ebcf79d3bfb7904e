"""`mira grade`: a file of predictions -> verdicts and scores.

Reads   a suite, its benchmark's data file, predictions in the benchmark's own format or the
        generations.jsonl of `mira evaluate`
Writes  OUTPUT/verdicts.jsonl, a line per sample and benchmark (grading.py)
        OUTPUT/tasks.jsonl, every task with its cluster (graded_tasks.py)
        OUTPUT/controls.json, whether programs whose verdicts are known get them here (controls.py)
        OUTPUT/results.json, scores over all tasks and over those whose controls hold, with what
        they stand on: files by SHA-256, grader, isolation, what a regrade changed
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mira_megatron.atomic_files import write_json
from mira_megatron.eval.benchmark import Benchmark, HasFacts, HasPredictionFormat
from mira_megatron.eval.controls import CONTROLS_FILE, Controls, run_controls, write_controls
from mira_megatron.eval.generation.generations import generated_samples, read_generations, style_of
from mira_megatron.eval.generation.planned import asked_of, planned_answers
from mira_megatron.eval.grade_shards import Shard
from mira_megatron.eval.graded_tasks import TASKS_FILE, write_tasks
from mira_megatron.eval.grading import VERDICTS_FILE, all_verdicts, grade
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
from mira_megatron.eval.suite import Entry, Suite, data_files, load_suite, open_benchmark
from mira_megatron.eval.verdicts import Sample, Verdict

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
    is_generated: bool = False  # `predictions` is a generations.jsonl

    @property
    def cache_folder(self) -> Path:
        """Returns where gold values and verdicts by content are kept."""
        return self.cache if self.cache is not None else self.output / "cache"


def run(console: Console, options: GradeOptions) -> int:
    """Grades, writes all files, prints the scores; returns 0, or 1 where this machine failed.

    Raises ValueError or FileNotFoundError for what the user can fix.
    """
    suite = load_suite(options.suite, options.data_folder)
    entry = suite.entry(options.benchmark)
    benchmark = open_benchmark(entry, options.cache_folder)
    samples, asked = read_samples(
        suite, entry, benchmark, options.predictions, is_generated=options.is_generated
    )
    if not options.is_subset:
        check_complete(samples, benchmark.task_ids, options.predictions)
    sandbox = best_sandbox(options.min_isolation)
    if options.shard is not None:
        return _grade_shard(console, options, options.shard, benchmark, samples, sandbox)
    found, changed = _graded(options, entry, benchmark, samples, sandbox, asked)
    print_scores(console, found)
    if options.is_regrade:
        print_line(console, f"{len(changed):,} verdicts are not what an earlier grader gave")
        for flip in changed:
            print_line(console, str(flip))
    return _exit_code(sum(score.num_unknown for score in found))


def read_samples(
    suite: Suite, entry: Entry, benchmark: Benchmark, path: Path, *, is_generated: bool
) -> tuple[list[Sample], Mapping[str, Any] | None]:
    """Returns the samples of a file, and what they were generated with where that is known."""
    if is_generated:
        generations = read_generations(path)
        style = style_of(generations.values())
        planned = planned_answers(benchmark, suite.sampling_of(entry), style)
        return generated_samples(planned, generations, path), asked_of(planned)
    if isinstance(benchmark, HasPredictionFormat):
        return benchmark.read_predictions(path), None
    return read_predictions(path, benchmark.task_ids), None


def grade_samples(
    options: GradeOptions,
    entry: Entry,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    sandbox: Sandbox,
    *,
    asked: Mapping[str, Any] | None,
) -> list[Score]:
    """Returns a score per verdict name, with all files written.

    `asked` is what the samples were generated with, None where they were made elsewhere.
    """
    return _graded(options, entry, benchmark, samples, sandbox, asked)[0]


def _graded(
    options: GradeOptions,
    entry: Entry,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    sandbox: Sandbox,
    asked: Mapping[str, Any] | None,
) -> tuple[list[Score], list[Flip]]:
    before = _graded_before(options, benchmark, samples)
    controls = _controls(options, benchmark, samples, sandbox)
    if controls is not None:
        write_controls(options.output / CONTROLS_FILE, options.benchmark, controls)
        controls.check(options.benchmark)
    cache, workers = options.cache_folder, options.workers
    graded = grade(benchmark, samples, sandbox, options.output, cache, workers=workers)
    changed = flips(earlier_verdicts(before, benchmark.grader), graded.verdicts)
    found = scores(graded.verdicts, controls)
    clusters = {task_id: benchmark.cluster(task_id) for task_id in benchmark.task_ids}
    write_tasks(options.output / TASKS_FILE, clusters, graded.verdicts)
    content: dict[str, Any] = {
        "benchmark": entry.name,
        "kind": entry.kind,
        "category": entry.category,
        "protocol": entry.protocol,
        "suite": str(options.suite),
        "options": dict(entry.options),
        "data": _data(entry),
        "predictions": {
            "path": str(options.predictions),
            "sha256": file_sha256(options.predictions),
        },
        "asked": asked,
        "grader": benchmark.grader,
        "isolation": min(verdict.isolation for verdict in graded.verdicts),
        "is_subset": options.is_subset,
        "num_resumed": graded.num_resumed,
        "num_cached": graded.num_cached,
        "num_run": graded.num_run,
        "controls": None if controls is None else {"num_gold": controls.num_gold},
        "flips": [flip.to_fields() for flip in changed],
        "scores": {score.benchmark: score_fields(score, controls) for score in found},
    }
    if isinstance(benchmark, HasFacts):
        content["facts"] = benchmark.facts(graded.verdicts)
    write_json(options.output / RESULTS_FILE, content)
    return found, changed


def _grade_shard(
    console: Console,
    options: GradeOptions,
    shard: Shard,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    sandbox: Sandbox,
) -> int:
    """Grades one shard's tasks, behind their controls, and writes its verdicts alone."""
    _graded_before(options, benchmark, samples)
    controls = _controls(options, benchmark, samples, sandbox)
    if controls is not None:
        controls.check(options.benchmark)
    cache, workers = options.cache_folder, options.workers
    graded = grade(benchmark, samples, sandbox, options.output, cache, workers=workers, shard=shard)
    print_line(
        console,
        f"{shard.file_name}: {len(graded.verdicts):,} verdicts. Scores: the same command without "
        "--shard, once every shard has ended",
    )
    found = scores(graded.verdicts, controls)
    return _exit_code(sum(score.num_unknown for score in found))


def _graded_before(
    options: GradeOptions, benchmark: Benchmark, samples: Sequence[Sample]
) -> list[Verdict]:
    """Returns the verdicts that are there; ValueError where only another grader gave them."""
    before = all_verdicts(options.output)
    if not options.is_regrade:
        places = [(sample.task_id, sample.number) for sample in samples]
        check_regraded(options.output / VERDICTS_FILE, before, places, benchmark.grader)
    return before


def _controls(
    options: GradeOptions, benchmark: Benchmark, samples: Sequence[Sample], sandbox: Sandbox
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
    return run_controls(benchmark, task_ids, sandbox, options.cache_folder, workers=options.workers)


def _data(entry: Entry) -> dict[str, object]:
    """Returns where the data lies and its SHA-256; of several files each one's, by name."""
    files = data_files(entry)
    if files == (entry.file,):
        return {"path": str(entry.file), "sha256": file_sha256(entry.file)}
    folder = entry.file if entry.file.is_dir() else entry.file.parent
    return {
        "path": str(entry.file),
        "sha256": {str(path.relative_to(folder)): file_sha256(path) for path in files},
    }


def _exit_code(num_unknown: int) -> int:
    if num_unknown:
        logger.error("%d verdicts say nothing about the program; run the same again", num_unknown)
    return int(num_unknown > 0)
