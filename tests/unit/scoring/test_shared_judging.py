"""Sharing by the rule judge: one worker's bytes, whoever shares."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mira_megatron.config import Recipe
from mira_megatron.launchers.claims import Claims, this_process
from mira_megatron.launchers.missing import units_left
from mira_megatron.manifest import Part
from mira_megatron.reliability import reliability
from mira_megatron.rubric import label
from mira_megatron.scoring import score
from mira_megatron.stage import Resources, Run, Unit, run_unit
from mira_megatron.unit_folder import SCRATCH

pytest_plugins = ("labelled_recipes",)

Make = Callable[..., Recipe]


def made(unit: Unit, folder: Path, **resources: Any) -> tuple[Part, ...]:
    return run_unit(unit, Run(folder=folder), Resources(**resources)).parts


def both_ways(units: Callable[[Recipe], list[Unit]], recipe: Recipe) -> Iterator[tuple[Part, ...]]:
    (unit,) = units(recipe)
    for is_shared in (False, True):
        yield made(unit, recipe.run_folder, is_shared=is_shared)
        (recipe.run_folder / unit.folder).rename(recipe.run_folder / f"set_aside_{is_shared}")


@pytest.mark.parametrize("stage", [score, reliability], ids=["score", "reliability"])
def test_shared_unit_has_the_bytes_of_one_that_is_not(labelled: Make, stage: Any) -> None:
    alone, shared = both_ways(stage.units, labelled(reliability_fraction=0.5))
    assert len(alone) > 2
    assert shared == alone


def test_shared_labels_have_the_bytes_of_others(judged_recipe: Make) -> None:
    recipe = judged_recipe(label={"records_per_source": 12, "reliability_fraction": 0.5})
    alone, shared = both_ways(label.units, recipe)
    assert shared == alone


def test_missing_parts_are_told_with_how_many_are_claimed(judged_recipe: Make) -> None:
    recipe = judged_recipe()
    (unit,) = score.units(recipe)
    scratch = recipe.run_folder / unit.folder / SCRATCH
    line = "score notes: 4 of 4 parts missing, {} of them claimed by workers that are alive"
    assert [str(unit) for unit in units_left(recipe)] == [line.format(0)]
    with Claims(scratch, this_process()) as worker:
        worker.take("part-00002.parquet")
        assert [str(unit) for unit in units_left(recipe)] == [line.format(1)]
    assert [str(unit) for unit in units_left(recipe)] == [line.format(0)]
    shutil.rmtree(scratch)
    made(unit, recipe.run_folder, is_shared=True)
    assert [str(unit) for unit in units_left(recipe)] == []


def test_ceiling_on_what_one_process_spends_is_refused_when_several_do(
    judged_recipe: Make,
) -> None:
    section = {
        "engine": "endpoint",
        "model": "m",
        "temperature": 0,
        "top_p": 1,
        "max_tokens": 64,
        "endpoints": ["http://127.0.0.1:9/v1"],
        "spend_ceiling": 5.0,
        "price_per_million_prompt_tokens": 1.0,
        "price_per_million_output_tokens": 1.0,
    }
    recipe = judged_recipe(score=section)
    (unit,) = score.units(recipe)
    with pytest.raises(
        ValueError, match="spend_ceiling and ceilings on tokens count what one process"
    ):
        made(unit, recipe.run_folder, is_shared=True)
