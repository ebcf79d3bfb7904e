"""The scorer asked about the records held back from it, by judges that are really run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distill_settings import done

from mira_megatron.config import Recipe
from mira_megatron.manifest import Manifest
from mira_megatron.pipeline import recipe_units
from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability import reliability

pytest_plugins = ("labelled_recipes",)

Make = Callable[..., Recipe]

FOLDER = "reliability/mira/notes"


def held_back(recipe: Recipe) -> list[str]:
    """Returns the ids of the reliability half, in the order of the records."""
    folder = recipe.run_folder / "teacher_ratings/mira/notes"
    table = pa.concat_tables(map(pq.read_table, sorted(folder.glob("part-*.parquet"))))
    return [row["record_id"] for row in table.to_pylist() if row["split"] == "reliability"]


def rated(recipe: Recipe) -> dict[str, list[str]]:
    """Returns the ids in every part of the scorer's answers."""
    parts = sorted((recipe.run_folder / FOLDER).glob("part-*.parquet"))
    return {path.name: pq.read_table(path)["record_id"].to_pylist() for path in parts}


def cells_of(recipe: Recipe) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        recipe.run_folder / FOLDER / "cells.parquet"
    ).to_pylist()
    return rows


def columns(path: Path, names: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path, columns=names).to_pylist()
    return rows


def rows_of(manifest: Manifest) -> dict[str, int | None]:
    return {part.path: part.num_rows for part in manifest.parts}


def test_reliability_asks_about_the_held_back_half_and_nothing_else(labelled: Make) -> None:
    recipe = labelled(reliability_fraction=0.5)
    manifest = done(recipe, "reliability")
    wanted, parts = held_back(recipe), rated(recipe)

    assert 0 < len(wanted) < 20
    assert [record_id for ids in parts.values() for record_id in ids] == wanted
    assert rows_of(manifest) == {
        **{name: len(ids) for name, ids in parts.items()},
        "cells.parquet": NUM_SLOTS,
    }
    assert (manifest.counts.num_in, manifest.counts.num_out) == (len(wanted), len(wanted))


def test_reliability_part_without_a_held_back_record_has_no_file(labelled: Make) -> None:
    recipe = labelled(reliability_fraction=0.3, records_per_source=6)
    done(recipe, "reliability")
    num_parts = len(list((recipe.run_folder / "records/notes").glob("part-*.parquet")))

    assert 0 < len(rated(recipe)) < num_parts
    assert [record_id for ids in rated(recipe).values() for record_id in ids] == held_back(recipe)


def test_reliability_scorer_that_judges_as_the_teacher_agrees_in_every_cell(labelled: Make) -> None:
    recipe = labelled(reliability_fraction=0.5)
    manifest = done(recipe, "reliability")
    found = cells_of(recipe)

    assert [cell["anchor_id"] for cell in found] == [f"A{slot}" for slot in range(1, NUM_SLOTS + 1)]
    assert {cell["mae"] for cell in found if cell["n"]} == {0.0}
    ranked = [cell for cell in found if cell["rho"] is not None]
    assert {round(cell["rho"], 9) for cell in ranked} == {1.0}
    assert all(cell["reason"] for cell in found if cell["rho"] is None)
    assert {(cell["mae_low"], cell["mae_high"]) for cell in found if cell["n"] >= 3} == {(0.0, 0.0)}
    assert {cell["rho_high"] for cell in ranked} == {1.0}
    assert all(-1 <= cell["rho_low"] <= cell["rho_high"] for cell in ranked)
    num_followed = sum(abs(cell["rho_of_length"] or 0) < cell["rho"] for cell in ranked)
    assert 0 < manifest.counts.totals["anchors followed"] == num_followed


def test_reliability_cells_say_how_the_ratings_beside_them_were_made(labelled: Make) -> None:
    recipe = labelled(reliability_fraction=0.5)
    done(recipe, "reliability")
    names = ["model", "prompt_key", "answer_mode"]
    paths = sorted((recipe.run_folder / FOLDER).glob("part-*.parquet"))
    made = {tuple(row.values()) for path in paths for row in columns(path, names)}
    assert {tuple(cell[name] for name in names) for cell in cells_of(recipe)} == made


def test_reliability_intervals_follow_the_recipes_settings(labelled: Make) -> None:
    recipe = labelled(reliability_fraction=0.5)
    done(recipe, "reliability")
    thresholds = {"max_mae": 0.1, "min_rho": 0.9, "combine": "rho"}  # another matter
    done(replace(recipe, values={**recipe.values, "reliability": thresholds}), "reliability")
    assert list((recipe.run_folder / FOLDER).parent.glob("*.superseded-*")) == []
    for num_before, settings in enumerate(({"resamples": 10}, {"confidence": 0.5}), start=1):
        done(replace(recipe, values={**recipe.values, "reliability": settings}), "reliability")
        superseded = (recipe.run_folder / FOLDER).parent.glob("*.superseded-*")
        assert len(list(superseded)) == num_before  # made anew, and not refused


def test_reliability_own_scorer_that_answers_nothing_has_cells_that_say_so(labelled: Make) -> None:
    score = {"engine": "transformers", "answer_mode": "expected", "max_tokens": 8}
    score |= {"max_failed_fraction": 1.0}
    recipe = labelled(reliability_fraction=0.5)
    recipe = replace(recipe, values={**recipe.values, "score": score})
    manifest = done(recipe, "sft-data", "distill", "reliability")

    assert [record_id for ids in rated(recipe).values() for record_id in ids] == held_back(recipe)
    assert {(cell["n"], cell["mae"], cell["rho"]) for cell in cells_of(recipe)} == {(0, None, None)}
    assert {cell["answer_mode"] for cell in cells_of(recipe)} == {"expected"}
    assert cells_of(recipe)[0]["reason"] == "too few records: 0 of at least 3"
    assert manifest.counts.totals["unparsed"] == len(held_back(recipe))


def test_reliability_without_a_held_back_record_has_cells_only(labelled: Make) -> None:
    recipe = labelled(reliability_fraction=1e-9)
    manifest = done(recipe, "reliability")

    assert rows_of(manifest) == {"cells.parquet": NUM_SLOTS}
    assert {cell["n"] for cell in cells_of(recipe)} == {0}


def test_reliability_follows_the_labels_when_they_change(labelled: Make) -> None:
    recipe = labelled(reliability_fraction=0.5)
    done(recipe, "reliability")
    before = held_back(recipe)
    (recipe.run_folder / "teacher_ratings").rename(recipe.run_folder / "old_ratings")
    label = {"records_per_source": 100, "reliability_fraction": 0.8}
    recipe = replace(recipe, values={**recipe.values, "label": label})
    done(recipe, "label", "reliability")

    assert len(held_back(recipe)) > len(before)
    assert [record_id for ids in rated(recipe).values() for record_id in ids] == held_back(recipe)


def test_reliability_recipe_without_labels_or_scorer_has_no_units(labelled: Make) -> None:
    recipe = labelled()
    values = {name: value for name, value in recipe.values.items() if name != "label"}
    assert reliability.units(replace(recipe, values=values)) == []
    values = {name: value for name, value in recipe.values.items() if name != "score"}
    units = recipe_units(replace(recipe, values=values))
    assert not [unit for unit in units if unit.stage == "reliability"]


def test_reliability_is_planned_before_the_groups_are_found(judged_recipe: Make) -> None:
    settings = {"min_silhouette": 0.1, "min_cosine": 0.6, "num_resamples": 2}
    group = {"by": "family", "records_per_source": 9, **settings}
    embedder = {"engine": "tfidf_svd", "dimensions": 8, "max_chars": 500}
    label = {"records_per_source": 9, "reliability_fraction": 0.3}
    recipe = judged_recipe(stages=(), label=label, group=group, embedder=embedder)
    (unit,) = [unit for unit in recipe_units(recipe) if unit.stage == "reliability"]

    assert unit.folder == FOLDER
    assert "teacher_ratings/mira/notes" in unit.upstream
    with pytest.raises(ValueError, match="no source groups yet"):
        reliability.units(recipe)
