"""What is left of the shared stage `score`: parts that are not there, and claims that are alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.launchers.claims import Claims, this_process
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import unit_states
from mira_megatron.unit_folder import SCRATCH


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitLeft:
    """A unit of the stage `score` that is not done."""

    label: str
    problem: str  # why its parts cannot be counted yet, "" where they are
    num_parts: int = 0
    num_missing: int = 0
    num_held: int = 0  # of the missing ones, by workers that are not taken for dead

    @property
    def can_be_worked_on(self) -> bool:
        """Returns whether a worker would find something to do: a part, or the unit to be ended."""
        return self.num_missing == 0 or self.num_held < self.num_missing

    def __str__(self) -> str:
        """Returns the line that `--missing` shows."""
        if self.problem:
            return f"{self.label}: {self.problem}"
        return (
            f"{self.label}: {self.num_missing:,} of {self.num_parts:,} parts missing, "
            f"{self.num_held:,} of them claimed by workers that are alive"
        )


def units_left(recipe: Recipe) -> Iterator[UnitLeft]:
    """Yields every unit of the stage `score` that is not done."""
    for unit, state in unit_states(recipe, ["score"]):
        if state == "done":
            continue
        if not unit.can_be_shared:
            yield UnitLeft(label=unit.label, problem=state)
            continue
        records = read_manifest(recipe.run_folder / layout.records(unit.name))
        if state not in ("waiting", "unfinished") or records is None:
            problem = state if records else "its records are not there yet"
            yield UnitLeft(label=unit.label, problem=problem)
            continue
        folder = recipe.run_folder / unit.folder
        names = [part.path for part in records.parts if part.path.endswith(".parquet")]
        missing = [name for name in names if not (folder / name).is_file()]
        claims = Claims(folder / SCRATCH, this_process())
        yield UnitLeft(
            label=unit.label,
            problem="",
            num_parts=len(names),
            num_missing=len(missing),
            num_held=sum(claims.is_held(name) for name in missing),
        )
