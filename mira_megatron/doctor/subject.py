"""What the preflight of a recipe looks at: the recipe, where it is to run, and what is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mira_megatron.config import Recipe
from mira_megatron.eval.evaluation import missing_data
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.pipeline import STAGES, stage_units
from mira_megatron.stage import Run, Unit, unit_state


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A recipe on a cluster; without one it runs on this machine."""

    recipe: Recipe
    cluster: Cluster | None
    units: tuple[Unit, ...]  # provisional where source groups are not known yet
    unplanned: Mapping[str, str]  # stages whose units cannot be told, and why
    states: Mapping[str, str]  # of each unit, by its folder
    missing_data: Mapping[str, str]  # benchmarks that `eval` is planned without, and why

    @property
    def stages(self) -> tuple[str, ...]:
        """Returns the stages that the recipe has, in running order."""
        present = {*(unit.stage for unit in self.units), *self.unplanned}
        return tuple(stage for stage in STAGES if stage in present)

    def is_done(self, stage: str, name: str | None = None) -> bool:
        """Returns whether a stage has nothing left to do, or its unit of one name is done."""
        states = [
            self.states[unit.folder]
            for unit in self.units
            if unit.stage == stage and name in (None, unit.name)
        ]
        return bool(states) and all(state == "done" for state in states)

    def where(self, key: str) -> str:
        """Returns how messages name a setting of the recipe."""
        return f"{self.recipe.path}: {key}"


def subject_of(recipe: Recipe, cluster: Cluster | None) -> Subject:
    """Returns what is to be looked at; a stage that cannot be planned keeps no other from it."""
    missing = _missing_data(recipe)
    provisional = replace(recipe, is_provisional=True, without_data=frozenset(missing))
    units: list[Unit] = []
    unplanned = {}
    for stage in STAGES:
        try:
            units += stage_units(provisional, stage)
        except (ValueError, FileNotFoundError) as error:
            unplanned[stage] = str(error)
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    return Subject(
        recipe=recipe,
        cluster=cluster,
        units=tuple(units),
        unplanned=unplanned,
        states={unit.folder: _state(unit, run) for unit in units},
        missing_data=missing,
    )


def _missing_data(recipe: Recipe) -> Mapping[str, str]:
    try:
        return missing_data(recipe)
    except (ValueError, FileNotFoundError):
        return {}  # for the same reason the stage cannot be planned, which says it


def _state(unit: Unit, run: Run) -> str:
    try:
        return unit_state(unit, run)
    except (NotADirectoryError, PermissionError):  # path_checks says so of the run folder
        return "waiting"
