"""`mira swe run` and `mira swe grade`: an agent's patches -> logs -> verdicts and a score.

Reads   the dataset's rows and the agent's predictions (instances.py)
Writes  LOGS/<instance>/<digest>.log and .json (container_runs.py)
        OUTPUT/verdicts.jsonl, results.json, controls.json and tasks.jsonl, as `mira grade` does
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mira_megatron.atomic_files import write_json
from mira_megatron.eval.controls import CONTROLS_FILE, Controls, write_controls
from mira_megatron.eval.grade_shards import Shard
from mira_megatron.eval.graded_tasks import TASKS_FILE, write_tasks
from mira_megatron.eval.grading import VERDICTS_FILE, append_verdicts, read_verdicts
from mira_megatron.eval.regrading import Flip, earlier_verdicts, flips
from mira_megatron.eval.scores import (
    Score,
    file_sha256,
    print_line,
    print_scores,
    score_fields,
    scores,
)
from mira_megatron.eval.swe.container_runs import run_patches
from mira_megatron.eval.swe.engines import SETTINGS, Engine
from mira_megatron.eval.swe.instances import (
    Instance,
    check_all_instances,
    gold_patches,
    load_instances,
    load_patches,
)
from mira_megatron.eval.swe.log_grading import (
    BENCHMARK,
    CONTAINER_LEVEL,
    gold_controls,
    graded,
    patch_run,
    setting_of,
)
from mira_megatron.eval.verdicts import Status, Verdict
from mira_megatron.file_lock import held_lock

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What `mira swe run` was told."""

    dataset: Path
    predictions: Path | None  # None: the dataset's own patches
    logs: Path
    engine: Engine
    workers: int
    seconds: float  # that a container may live
    shard: Shard | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SweGradeOptions:
    """What `mira swe grade` was told."""

    dataset: Path
    predictions: Path
    logs: Path
    output: Path
    is_subset: bool  # the dataset may have fewer than all instances
    setting: str | None = None  # of the runs, one of SETTINGS; None: the only one that is there


def run(console: Console, options: RunOptions) -> int:
    """Runs what has no log yet; returns 0, or 1 where the engine failed on some."""
    instances = load_instances(options.dataset)
    patches = _patches(options.dataset, options.predictions, instances)
    runs = [
        patch_run(instance, patches[name], options.engine.setting)
        for number, (name, instance) in enumerate(instances.items())
        if patches.get(name, "").strip() and (options.shard is None or options.shard.has(number))
    ]
    counts = run_patches(
        runs, options.engine, options.logs, workers=options.workers, seconds=options.seconds
    )
    print_line(
        console,
        f"{len(runs):,} patches: {counts['there']:,} had been run, {counts['ran']:,} were run, "
        f"{counts['failed']:,} could not be run by {options.engine.name}",
    )
    if counts["failed"]:
        logger.error("run the same again: what could not be run has no log")
    return int(counts["failed"] > 0)


def grade(console: Console, options: SweGradeOptions) -> int:
    """Grades logs, writes the files, prints the score; returns 0, or 1 where runs are missing."""
    instances = load_instances(options.dataset)
    if not options.is_subset:
        check_all_instances(options.dataset, list(instances))
    patches = load_patches(options.predictions, instances)
    setting = options.setting or setting_of(instances, patches, options.logs) or SETTINGS[0]
    verdicts = graded(instances, patches, options.logs, setting)
    controls = gold_controls(instances, options.logs, setting)
    path = options.output / VERDICTS_FILE
    refusal = f"{path}: another process grades into it; run the same again when it has ended"
    with held_lock(path.with_name(f".{path.stem}.lock"), refusal):
        found, changed = _written(options, instances, verdicts, controls, setting)
    print_scores(console, found)
    for flip in changed:
        print_line(console, str(flip))
    num_missing = sum(verdict.status is Status.INFRA for verdict in verdicts)
    if num_missing:
        logger.error("%d patches have not been run: `mira swe run` does it", num_missing)
    return int(num_missing > 0)


def _written(
    options: SweGradeOptions,
    instances: Mapping[str, Instance],
    verdicts: Sequence[Verdict],
    controls: Controls | None,
    setting: str,
) -> tuple[list[Score], list[Flip]]:
    """Returns the scores and what an earlier grader saw otherwise, with all files written."""
    path = options.output / VERDICTS_FILE
    before = read_verdicts(path)
    changed = flips(earlier_verdicts(before, verdicts[0].grader), verdicts)
    append_verdicts(path, [verdict for verdict in verdicts if verdict not in before])
    if controls is not None:
        write_controls(options.output / CONTROLS_FILE, BENCHMARK, controls)
    found = scores(verdicts, controls)
    content = {
        "benchmark": BENCHMARK,
        "kind": "swe",
        "category": "swe",
        "protocol": "swe-bench-multilingual",
        "options": {"setting": setting},
        "data": {"path": str(options.dataset), "sha256": file_sha256(options.dataset)},
        "predictions": {
            "path": str(options.predictions),
            "sha256": file_sha256(options.predictions),
        },
        "grader": verdicts[0].grader,
        "isolation": CONTAINER_LEVEL,
        "is_subset": options.is_subset,
        "controls": None if controls is None else {"num_gold": controls.num_gold},
        "flips": [flip.to_fields() for flip in changed],
        "scores": {score.benchmark: score_fields(score, controls) for score in found},
    }
    write_json(options.output / "results.json", content)
    clusters = {name: instance.repo for name, instance in instances.items()}
    write_tasks(options.output / TASKS_FILE, clusters, verdicts)
    return found, changed


def _patches(
    dataset: Path, predictions: Path | None, instances: Mapping[str, Instance]
) -> dict[str, str]:
    if predictions is None:
        return gold_patches(dataset, instances)
    return load_patches(predictions, instances)
