"""Cells to decisions to record scores, by the stage `aggregate` as it is run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rated_tables import RATED_AS, Rating, ratings

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import Counts
from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.aggregate import units
from mira_megatron.reliability.cells import CELL_SCHEMA
from mira_megatron.shards import part_name, write_parquet
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit

MASK = "reliability_masks/s/wiki/cells.parquet"
SCORES = "record_scores/s/wiki/part-00000.parquet"
# What a slot's cell holds beside a limit of 1.0 for the error and of 0.5 for rho.
GOOD = {"n": 40, "mae": 0.5, "mae_low": 0.4, "mae_high": 0.6} | {
    "rho": 0.8,
    "rho_low": 0.7,
    "rho_high": 0.9,
}
BAD = {**GOOD, "mae": 3.0, "mae_low": 2.5, "mae_high": 3.5}
OPEN = {**GOOD, "mae": 1.1, "mae_low": 0.9, "mae_high": 1.3}
FEW = {**GOOD, "n": 5}
# The first three slots count for little: a record's own score is in those after them.
ROW: Rating = ("a", [10, 10, 10, 4, 4, 4], "ok")


def write_cells(workspace: Workspace, settings: Sequence[Mapping[str, Any]]) -> WorkResult:
    """The work of a unit that stands where the reliability stage would."""
    rows = [
        {"source": "wiki", "group": "text", "anchor_id": f"A{slot}", "anchor_name": f"n{slot}"}
        | {**RATED_AS, **cell}
        for slot, cell in enumerate(settings, start=1)
    ]
    write_parquet(workspace.folder / layout.CELLS, pa.Table.from_pylist(rows, schema=CELL_SCHEMA))
    # The scorer's ratings of the held-back records lie beside them.
    write_parquet(workspace.folder / part_name(0), ratings([("held back", [1, 2, 3], "ok")]))
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def write_ratings(workspace: Workspace, settings: Sequence[Rating]) -> WorkResult:
    write_parquet(workspace.folder / part_name(0), ratings(settings))
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def made(folder: Path, cells: Sequence[Mapping[str, Any]], rows: Sequence[Rating]) -> None:
    """Makes what the stage reads of one source."""
    for stage, where, work, settings in (
        ("reliability", layout.reliability("mira", "wiki"), "write_cells", cells),
        ("score", layout.ratings("mira", "wiki"), "write_ratings", rows),
    ):
        unit = Unit(
            stage=stage,
            name="wiki",
            folder=where,
            version=1,
            config={},
            work=f"test_mask:{work}",
            settings=settings,
        )
        run_unit(unit, Run(folder=folder), Resources())


def recipe_of(folder: Path, *, scoring: str = "s", **sections: Any) -> Recipe:
    wiki = {
        "format": "jsonl",
        "family": "text",
        "fields": {"text": "text"},
        "paths": ["never read.jsonl"],
    }
    recipe = {
        "run_folder": str(folder),
        "sources": {"wiki": wiki},
        "label": {},
        "score": {},
        "reliability": {"max_mae": 1.0, "min_rho": 0.5},
        "aggregate": {"scoring": scoring, "trim_fraction": 0.2, "min_slots": 3},
        **sections,
    }
    path = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        orjson.dumps({name: value for name, value in recipe.items() if value is not None})
    )
    return load_recipe(path)


def aggregated(recipe: Recipe) -> None:
    for unit in units(recipe):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def padded(*cells: Mapping[str, Any], rest: Mapping[str, Any] = GOOD) -> list[Mapping[str, Any]]:
    return [*cells, *[rest] * (NUM_SLOTS - len(cells))]


def rows_at(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / name).to_pylist()
    return found


def test_aggregate_leaves_masked_slots_out_and_says_what_it_decided(tmp_path: Path) -> None:
    made(tmp_path, padded(BAD, OPEN, FEW), [ROW])
    aggregated(recipe_of(tmp_path))
    # A1 fails, A2 by its estimate; A3 has too few records to tell, and is kept.
    assert rows_at(tmp_path, SCORES) == [{"record_id": "a", "score": 5.5, "reason": None}]
    decided = rows_at(tmp_path, MASK)
    assert [(row["anchor_id"], row["decision"], row["is_masked"]) for row in decided[:4]] == [
        ("A1", "masked", True),
        ("A2", "undecided", True),
        ("A3", "too_few", False),
        ("A4", "keep", False),
    ]
    measured = rows_at(tmp_path, "reliability/mira/wiki/cells.parquet")
    assert [{**cell, **row} for cell, row in zip(measured, decided, strict=True)] == decided


@pytest.mark.parametrize(
    ("settings", "score"),
    [
        ({"undecided": "keep"}, 6.0),  # 10 10 4 4 4: one goes at each end
        ({"undecided": "mask", "too_few": "mask"}, 4.0),
        ({"min_records": 3, "max_mae": 10.0}, 7.0),  # all six: one goes at each end
    ],
)
def test_aggregate_masks_as_its_settings_say(
    tmp_path: Path, settings: dict[str, Any], score: float
) -> None:
    made(tmp_path, padded(BAD, OPEN, FEW), [ROW])
    aggregated(recipe_of(tmp_path, reliability={"max_mae": 1.0, "min_rho": 0.5, **settings}))
    assert rows_at(tmp_path, SCORES)[0]["score"] == score


def test_aggregate_without_the_section_masks_nothing(tmp_path: Path) -> None:
    made(tmp_path, padded(rest=BAD), [ROW])
    aggregated(recipe_of(tmp_path, reliability=None))
    assert rows_at(tmp_path, SCORES)[0]["score"] == 7.0
    assert not (tmp_path / "reliability_masks").exists()


@pytest.mark.parametrize(
    ("cells", "reason", "left"),
    [
        (padded(rest=BAD), "all_slots_masked", "no anchor is left"),
        (padded(GOOD, GOOD, rest=BAD), "too_few_slots", "only 2 of 15 anchors are left"),
    ],
)
def test_aggregate_names_a_source_that_its_mask_leaves_without_scores(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    cells: list[Mapping[str, Any]],
    reason: str,
    left: str,
) -> None:
    made(tmp_path, cells, [ROW])
    with caplog.at_level(logging.WARNING):
        aggregated(recipe_of(tmp_path))
    assert rows_at(tmp_path, SCORES) == [{"record_id": "a", "score": None, "reason": reason}]
    assert f"aggregate wiki: {left} by its reliability mask, and min_slots is 3" in caplog.text


@pytest.mark.parametrize("name", ["model", "prompt_key", "answer_mode"])
def test_aggregate_refuses_ratings_made_otherwise_than_the_cells(tmp_path: Path, name: str) -> None:
    made(tmp_path, padded(rest={**GOOD, name: "other"}), [ROW])
    with pytest.raises(
        ValueError, match=r"part-00000\.parquet: holds ratings of model=m"
    ) as caught:
        aggregated(recipe_of(tmp_path))
    message = str(caught.value)
    assert f"{name}={RATED_AS[name]}" in message
    assert f"{name}=other" in message
    assert f"{MASK} says how far" in message
    assert "leave the section `reliability` out" in message
    assert not list(tmp_path.glob("record_scores/**/manifest.json"))


def test_aggregate_threshold_changed_is_refused_by_name_with_the_way_out(tmp_path: Path) -> None:
    made(tmp_path, padded(BAD), [ROW])
    aggregated(recipe_of(tmp_path))
    with pytest.raises(ValueError, match=r"aggregate\.reliability\.max_mae was 1\.0") as caught:
        aggregated(recipe_of(tmp_path, reliability={"max_mae": 5.0, "min_rho": 0.5}))
    assert "for another trim or reliability threshold, name another aggregate.scoring" in str(
        caught.value
    )
    with pytest.raises(ValueError, match="reliability_mask was True and is False"):
        aggregated(recipe_of(tmp_path, reliability=None))


def test_aggregate_two_thresholds_lie_side_by_side(tmp_path: Path) -> None:
    made(tmp_path, padded(BAD), [("a", [10, 4, 4], "ok"), ("b", [10, 4, 4, 4], "ok")])
    aggregated(recipe_of(tmp_path))
    loose = {"max_mae": 5.0, "min_rho": 0.5}
    aggregated(recipe_of(tmp_path, scoring="loose", reliability=loose))
    strict = [row["score"] for row in rows_at(tmp_path, SCORES)]
    assert strict == [None, 4.0]
    assert [row["score"] for row in rows_at(tmp_path, SCORES.replace("/s/", "/loose/"))] == [
        6.0,
        5.5,
    ]


def test_aggregate_intervals_are_no_setting_of_a_mask(tmp_path: Path) -> None:
    made(tmp_path, padded(BAD), [ROW])
    aggregated(recipe_of(tmp_path))
    other = {"max_mae": 1.0, "min_rho": 0.5, "confidence": 0.5, "resamples": 7}
    aggregated(recipe_of(tmp_path, reliability=other))  # they decide the cells, which are an input


@pytest.mark.parametrize("missing", ["label", "score"])
def test_aggregate_refuses_thresholds_with_nothing_to_go_by(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ValueError, match="does not have both sections `label` and `score`"):
        units(recipe_of(tmp_path, **{missing: None}))


def test_aggregate_unknown_threshold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"reliability: unknown key 'max_mea'\. Did you mean 'max_mae'"
    ):
        units(recipe_of(tmp_path, reliability={"max_mea": 1.0}))
