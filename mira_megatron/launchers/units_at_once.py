"""Several models at once on one machine: units of one stage that do not read each other.

A model of a few million parameters keeps one core busy and no more. So the stages that train or
measure one model per unit are shared by processes, each on its part of the threads, and each takes
the next unit that nobody has. What they leave, because it failed or they were killed, the process
that started them does afterwards, alone.

How many threads a sum is spread over decides its last digits, so a recipe says how many
(`training.num_threads`, `eval.num_threads`); without that no models are made beside each other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mira_megatron.config import Recipe
from mira_megatron.launchers.processes import run_workers
from mira_megatron.manifest import read_manifest
from mira_megatron.stage import Run, Unit, unit_state
from mira_megatron.training.trained_arms import trained_arms

logger = logging.getLogger(__name__)

# Sections that say on how many threads, by stages that work on one model each.
SECTIONS = {
    "midtrain": "midtrain",
    "held-out": "midtrain",
    "instruct-sft": "instruct_sft",
    "eval": "eval",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitsAtOnce:
    """Given each stage before it is run, has its models made beside each other."""

    recipe: Recipe
    number: int  # of processes
    workers: int  # that all of them have together
    log_level: str
    made: set[str] = field(default_factory=set)  # folders of the units that they ended

    def __call__(self, stage: str, units: Sequence[Unit], run: Run) -> None:
        """Runs those units of the stage that are left and have what they read, if several."""
        # Where a recipe says no threads, a model may take a whole GPU: one at a time.
        is_shared = any(threads is not None for _, threads in _threads(self.recipe, [stage]))
        left = [unit for unit in units if is_shared and _can_be_run(unit, run)]
        number = min(self.number, len(left))
        if number < 2:
            return
        logger.info("%s: %d units, %d at once", stage, len(left), number)
        workers = max(1, self.workers // number)
        words = [stage, str(self.recipe.path), *self.recipe.overrides, "--share"]
        words += ["--workers", str(workers), "--log-level", self.log_level]
        # Whatever it says: what failed fails again where it can be told from the rest.
        run_workers(words, number, num_threads=workers)
        self.made.update(unit.folder for unit in left if _is_done(unit, run))


def fitting_number(recipe: Recipe, workers: int) -> int:
    """Returns how many models fit beside each other: 1 unless the recipe says their threads."""
    found = [threads for _, threads in _threads(recipe, list(SECTIONS))]
    if not found or None in found or len(trained_arms(recipe)) < 2:
        return 1
    return max(1, workers // max(threads or 1 for threads in found))


def check_threads(recipe: Recipe, stages: Sequence[str]) -> None:
    """Raises ValueError for stages to be shared whose recipe does not say on how many threads.

    One model alone has all of them in any case.
    """
    if len(trained_arms(recipe)) < 2:
        return
    for where, threads in _threads(recipe, stages):
        if threads is None:
            raise ValueError(
                f"{recipe.path}: {where}.num_threads is not set: models made beside each other "
                "have fewer threads each, and their numbers other last digits. Set it, for "
                "example to 1 for a model of a few million parameters, or make one at a time"
            )


def _threads(recipe: Recipe, stages: Sequence[str]) -> list[tuple[str, int | None]]:
    """Returns the threads that each section gives a model here, with where it says so."""
    found = []
    for section in dict.fromkeys(SECTIONS[stage] for stage in stages if stage in SECTIONS):
        values = recipe.values.get(section)
        if not isinstance(values, Mapping):
            continue
        if section == "eval":
            if values.get("engine") == "transformers":
                found.append((section, values.get("num_threads")))
        elif isinstance(training := values.get("training"), Mapping):
            found.append((f"{section}.training", training.get("num_threads")))
    return found


def _can_be_run(unit: Unit, run: Run) -> bool:
    upstream = (read_manifest(run.folder / folder) for folder in unit.upstream)
    return unit.can_be_left and None not in upstream and unit_state(unit, run) != "done"


def _is_done(unit: Unit, run: Run) -> bool:
    return read_manifest(run.folder / unit.folder) is not None
