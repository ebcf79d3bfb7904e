"""What is left of a shared stage: the parts that are not there, and the claims that are alive."""

from __future__ import annotations

from collections.abc import Iterator

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.launchers.claims import Claims, this_process
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import unit_states
from mira_megatron.unit_folder import SCRATCH


def missing_parts(recipe: Recipe) -> Iterator[str]:
    """Yields a line for every unit of the stage `score` that is not done."""
    for unit, state in unit_states(recipe, ["score"]):
        if state == "done":
            continue
        if not unit.can_be_shared:
            yield f"{unit.label}: {state}"
            continue
        records = read_manifest(recipe.run_folder / layout.records(unit.name))
        if state not in ("waiting", "unfinished") or records is None:
            yield f"{unit.label}: {state if records else 'its records are not there yet'}"
            continue
        folder = recipe.run_folder / unit.folder
        names = [part.path for part in records.parts if part.path.endswith(".parquet")]
        missing = [name for name in names if not (folder / name).is_file()]
        claims = Claims(folder / SCRATCH, this_process())
        num_held = sum(claims.is_held(name) for name in missing)
        yield (
            f"{unit.label}: {len(missing):,} of {len(names):,} parts missing, {num_held:,} of them "
            "claimed by workers that are alive"
        )
