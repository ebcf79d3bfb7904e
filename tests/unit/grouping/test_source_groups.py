from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.grouping.source_groups import (
    NotYetKnown,
    SourceGroup,
    founders,
    group_of_source,
    source_groups,
)
from mira_megatron.manifest import INTENT


def recipe_of(folder: Path, *names: str, **sections: object) -> Recipe:
    source = {"format": "jsonl", "family": "text", "fields": {"text": "t"}, "paths": ["no.jsonl"]}
    values = {
        "run_folder": str(folder / "run"),
        "rubric": "r",
        "sources": dict.fromkeys(names, source),
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return load_recipe(path)


def begin(recipe: Recipe, *names: str, failure: str | None = None) -> None:
    """Leaves what a founding by these sources leaves when it is interrupted, or fails."""
    folder = recipe.run_folder / layout.groups("r", "text")
    inputs = {layout.records(name): "digest" for name in names}
    write_json(folder / INTENT, {"inputs": inputs, "failure": failure})


def test_founders_before_any_founding_are_all_sources(tmp_path: Path) -> None:
    assert founders(recipe_of(tmp_path, "b", "a", group={}), "text") == ("a", "b")
    assert founders(recipe_of(tmp_path, "a", "b", group={"founders": ["b"]}), "text") == ("b",)


def test_founders_of_an_interrupted_founding_stay_those_it_began_with(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "a", "b", "late", group={})
    begin(recipe, "a", "b")
    assert founders(recipe, "text") == ("a", "b")


def test_founders_of_a_failed_founding_may_change(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "a", "b", group={})
    begin(recipe, "a", failure="1 sources cannot make 2 groups")
    assert founders(recipe, "text") == ("a", "b")


def test_founders_of_an_interrupted_founding_that_lost_a_source_may_change(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "a", group={})
    begin(recipe, "a", "gone")
    assert founders(recipe, "text") == ("a",)


def test_groups_that_are_not_found_yet_are_told_with_the_command(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "a", group={})
    with pytest.raises(NotYetKnown, match="Run `mira group"):
        source_groups(recipe)
    provisional = group_of_source(replace(recipe, is_provisional=True))
    assert provisional == {"a": "text"}


def test_groups_of_a_recipe_without_the_section_are_pins_or_families(tmp_path: Path) -> None:
    found = source_groups(recipe_of(tmp_path, "b", "a"))
    assert found == {
        "text": SourceGroup(name="text", family="text", founders=("a", "b"), members=("a", "b"))
    }
