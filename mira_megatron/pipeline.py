"""The stages of a recipe in the order the data flows, and running them.

Each stage's module offers `units(recipe) -> list[Unit]`; units meet only in files. Modules listed
here are light: what needs torch, megatron or a template engine is named by a unit and imported when
that unit is run.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import cast

from mira_megatron.config import Recipe
from mira_megatron.stage import Resources, Run, Unit, run_unit, unit_state

logger = logging.getLogger(__name__)

STAGES = {
    "ingest": "mira_megatron.corpus.ingest",
    "score": "mira_megatron.scoring.score",
    "aggregate": "mira_megatron.reliability.aggregate",
    "tokenize": "mira_megatron.tokenization.tokenize",
    "select": "mira_megatron.retention.selection",
    "blend": "mira_megatron.tokenization.blend",
    "midtrain": "mira_megatron.training.midtrain",
    "report": "mira_megatron.report.report",
}


def recipe_units(recipe: Recipe) -> list[Unit]:
    """Returns every unit of the recipe in running order; ValueError for a setting that is wrong."""
    return [unit for name in STAGES for unit in stage_units(recipe, name)]


def stage_units(recipe: Recipe, stage: str) -> list[Unit]:
    """Returns the units of one stage."""
    return cast("list[Unit]", importlib.import_module(STAGES[stage]).units(recipe))


def run_stages(recipe: Recipe, stages: Sequence[str], resources: Resources) -> None:
    """Runs every unit of the stages named, skipping what is done.

    Units of earlier stages are not run, but they must be done with this recipe's settings.
    """
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    units = recipe_units(recipe)
    wanted = [unit for unit in units if unit.stage in stages]
    _check_upstream(wanted, units, run)
    for unit in wanted:
        run_unit(unit, run, resources)


def unit_states(recipe: Recipe, stages: Sequence[str]) -> list[tuple[Unit, str]]:
    """Returns every unit of the stages named with its state, without running anything."""
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    return [(unit, unit_state(unit, run)) for unit in recipe_units(recipe) if unit.stage in stages]


def _check_upstream(wanted: Sequence[Unit], units: Sequence[Unit], run: Run) -> None:
    """Raises ValueError when a finished unit that is needed was made for other settings."""
    by_folder = {unit.folder: unit for unit in units}
    to_check = [name for unit in wanted for name in unit.upstream]
    seen = {unit.folder for unit in wanted}
    while to_check:
        name = to_check.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in by_folder:
            raise ValueError(
                f"{run.folder / name}: this recipe's stages do not make it. Correct the name in "
                f"{_readers(units, name)}, or add what makes it."
            )
        unit = by_folder[name]
        to_check.extend(unit.upstream)
        state = unit_state(unit, run)
        if state in ("different", "outdated"):
            raise ValueError(
                f"{run.folder / name}: {unit.label} is {state} for this recipe. "
                "Run all stages with `mira run`, which says more."
            )


def _readers(units: Sequence[Unit], folder: str) -> str:
    return ", ".join(unit.label for unit in units if folder in unit.upstream)
