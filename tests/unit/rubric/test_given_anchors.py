from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from anchor_material import anchors

from mira_megatron.config import load_recipe
from mira_megatron.rubric.anchor_files import read_anchors, write_anchors
from mira_megatron.rubric.given_anchors import (
    PUBLISHED,
    GivenAnchors,
    given_anchors,
    published_names,
    read_given,
)

FIELDS = {
    "anchor_id": "dim",
    "name": "dim_name",
    "cluster_size": "size",
    "references": "examples",
    "references.score": "rating",
    "references.reason": "why",
}


def given_of(folder: Path, **scorer: Any) -> GivenAnchors | None:
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps({"scorers": {"g": scorer}}))
    return given_anchors(load_recipe(path), "g")


def foreign(path: Path, examples: Sequence[dict[str, Any]] = (), **changes: Any) -> GivenAnchors:
    """Fifteen lines of another format, the first slot last."""
    rows = [
        {"dim": f"dim_{slot}", "dim_name": f"Name {slot}", "size": 100 - slot, "x": 0}
        for slot in (*range(2, 16), 1)
    ]
    rows = [{**row, "examples": list(examples), **changes} for row in rows]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return GivenAnchors(path=path, fields=FIELDS)


def test_given_anchors_of_a_group_without_them_are_none(tmp_path: Path) -> None:
    assert given_of(tmp_path) is None
    assert given_of(tmp_path, model="some/model") is None


def test_given_anchors_path_starts_from_the_recipes_folder(tmp_path: Path) -> None:
    assert given_of(tmp_path, anchors_path="mine.jsonl") == GivenAnchors(
        path=tmp_path / "mine.jsonl"
    )


@pytest.mark.parametrize("name", published_names())
def test_given_anchors_published_table_knows_its_family(tmp_path: Path, name: str) -> None:
    assert given_of(tmp_path, published=name) == GivenAnchors(
        path=PUBLISHED / f"{name}.jsonl", family=name.split("-")[0]
    )


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({"published": "text-group9"}, r"no table 'text-group9' is shipped\. Did you mean"),
        ({"published": "text-group3", "anchors_path": "a"}, "exclude each other"),
        ({"anchor_fields": {"name": "x"}}, "anchor_fields is for a file at anchors_path"),
        ({"anchors_path": "a", "anchor_fields": {"nam": "x"}}, "unknown field 'nam'. Did you mean"),
        ({"anchors_path": "a", "anchor_fields": {"part": "x"}}, "say which field holds the name"),
        ({"anchors_path": "a", "anchor_fields": "name"}, "expected an object, got 'name'"),
    ],
)
def test_given_anchors_that_make_no_sense_are_refused_by_name(
    tmp_path: Path, scorer: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"recipe\.yaml: scorers\.g.*{message}"):
        given_of(tmp_path, **scorer)


def test_read_given_takes_a_file_of_our_format_as_it_is(tmp_path: Path) -> None:
    write_anchors(tmp_path / "a.jsonl", anchors())
    given = GivenAnchors(path=tmp_path / "a.jsonl")
    assert read_given(given, name="other", family="qa") == anchors()


def test_read_given_of_a_foreign_file_maps_fields_and_slots(tmp_path: Path) -> None:
    slots = read_given(foreign(tmp_path / "f.jsonl"), name="mira-g", family="text")
    assert [slot.name for slot in slots] == [f"Name {number}" for number in range(1, 16)]
    assert (slots[0].anchor_id, slots[0].cluster_size) == ("A1", 99)
    assert slots[0].rubric_version.startswith("mira-g-")
    write_anchors(tmp_path / "ours.jsonl", slots)
    assert read_anchors(tmp_path / "ours.jsonl") == slots


def test_read_given_of_a_foreign_file_takes_references_low_to_high(tmp_path: Path) -> None:
    examples = [{"rating": 9, "why": "very\ngood"}, {"rating": 2, "why": "bad"}]
    given = foreign(tmp_path / "f.jsonl", examples)
    first = read_given(given, name="x", family="text")[0]
    assert [(one.level, one.score, one.reason) for one in first.references] == [
        ("low", 2.0, "bad"),
        ("high", 9.0, "very good"),
    ]


@pytest.mark.parametrize(
    ("num", "levels"),
    [
        (1, ["middle"]),
        (3, ["low", "middle", "high"]),
        (4, ["low", "low", "middle", "high"]),
        (12, ["low"] * 4 + ["middle"] * 4 + ["high"] * 4),
    ],
)
def test_read_given_references_without_a_level_are_their_thirds(
    tmp_path: Path, num: int, levels: list[str]
) -> None:
    examples = [{"rating": score / 2, "why": "x"} for score in range(num)]
    given = foreign(tmp_path / "f.jsonl", examples)
    first = read_given(given, name="x", family="text")[0]
    assert [one.level for one in first.references] == levels


@pytest.mark.parametrize(
    ("examples", "changes", "message"),
    [
        ([{"why": "x"}], {}, r"f\.jsonl:1: examples: score=None: expected a number from 0 to 10"),
        ([{"rating": 1}], {}, r"f\.jsonl:1: references\[0\]: field 'reason' is missing"),
        ([], {"dim_name": "[A1] x"}, r"f\.jsonl:1: name='\[A1\] x' holds a slot marker"),
        ([], {"dim": "first"}, r"f\.jsonl:1: dim='first': expected a slot's number"),
    ],
)
def test_read_given_of_a_foreign_file_says_where_it_does_not_fit(
    tmp_path: Path, examples: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    given = foreign(tmp_path / "f.jsonl", examples, **changes)
    with pytest.raises(ValueError, match=message):
        read_given(given, name="x", family="text")


def test_read_given_of_a_field_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    given = foreign(tmp_path / "f.jsonl")
    wrong = GivenAnchors(path=given.path, fields={"name": "dim_nam"})
    with pytest.raises(ValueError, match=r"no field 'dim_nam'\. Did you mean 'dim_name'"):
        read_given(wrong, name="x", family="text")
