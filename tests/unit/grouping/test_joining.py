from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from grouping_runs import CODE, ESSAY, PROSE, grouped, read_json, recipe_of, texts_of

from mira_megatron.grouping.joining import group_cosines, nearest_group
from mira_megatron.grouping.source_groups import group_of_source

FOUNDERS = {"novels": texts_of(PROSE), "essays": texts_of(ESSAY), "code": texts_of(CODE)}
GROWN = {**FOUNDERS, "later": texts_of(CODE, seed=2)}


def joined(folder: Path, **changes: Any) -> dict[str, Any]:
    """Founds groups, adds a source of code, and returns what it joined."""
    grouped(recipe_of(folder, FOUNDERS))
    recipe = recipe_of(folder, GROWN, **changes)
    grouped(recipe)
    entry: dict[str, Any] = read_json(recipe, "joined/mira/later/source_group.json")
    return entry


def test_later_source_joins_the_nearest_group(tmp_path: Path) -> None:
    entry = joined(tmp_path)
    assert (entry["source"], entry["group"], entry["method"]) == ("later", "text-code", "nearest")
    assert entry["cosines"]["text-code"] > 0.9 > 0.3 > entry["cosines"]["text-essays"]
    assert group_of_source(recipe_of(tmp_path, GROWN))["later"] == "text-code"


def test_later_source_joins_the_group_it_is_pinned_to(tmp_path: Path) -> None:
    entry = joined(tmp_path, pins={"later": "text-essays"})
    assert (entry["group"], entry["method"]) == ("text-essays", "pinned")
    assert entry["cosines"]["text-code"] > entry["cosines"]["text-essays"]


def test_another_pin_moves_a_joined_source(tmp_path: Path) -> None:
    joined(tmp_path)
    recipe = recipe_of(tmp_path, GROWN, pins={"later": "text-essays"})
    grouped(recipe)
    assert group_of_source(recipe)["later"] == "text-essays"


def test_pin_to_a_group_that_was_not_founded_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pinned to group text-new") as error:
        joined(tmp_path, pins={"later": "text-new"})
    assert "text-code, text-essays" in str(error.value)
    assert "rubric=NAME" in str(error.value)


def test_joining_needs_no_founders_records(tmp_path: Path) -> None:
    grouped(recipe_of(tmp_path, FOUNDERS))
    alone = recipe_of(tmp_path, {"novels": FOUNDERS["novels"], "later": GROWN["later"]})
    grouped(alone)
    assert group_of_source(alone) == {"later": "text-code", "novels": "text-essays"}


def test_joined_source_stays_when_its_records_change(tmp_path: Path) -> None:
    joined(tmp_path)
    before = (tmp_path / "run/joined/mira/later/manifest.json").read_bytes()
    with (tmp_path / "later.jsonl").open("ab") as rows:
        rows.write(orjson.dumps({"t": "the old garden"}) + b"\n")
    grouped(recipe_of(tmp_path, GROWN))
    assert (tmp_path / "run/joined/mira/later/manifest.json").read_bytes() == before


def test_cosine_is_with_the_mean_of_the_founders() -> None:
    vectors = {
        "new": np.array([[0.0, 2.0]], np.float32),
        "a": np.array([[1.0, 0.0]], np.float32),
        "b": np.array([[0.0, 1.0], [0.0, 3.0]], np.float32),
    }
    found = group_cosines("new", vectors, {"one": ["a"], "both": ["a", "b"]})
    assert found == {"one": 0.0, "both": 0.707107}


def test_equally_near_groups_are_taken_by_name() -> None:
    assert nearest_group("new", {"text-b": 0.5, "text-a": 0.5, "text-c": 0.4}) == "text-a"


def test_source_like_no_group_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="new is like no founded group") as error:
        nearest_group("new", {"text-a": 0.0, "text-b": -0.2})
    assert "`group:` in its descriptor" in str(error.value)
