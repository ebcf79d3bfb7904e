from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from anchor_material import anchors
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.manifest import MANIFEST
from mira_megatron.records import NUM_SLOTS, PARTS_OF_THINK
from mira_megatron.rubric.anchor_files import (
    freeze,
    read_anchors,
    read_draft,
    version_of,
    with_version,
    write_anchors,
)
from mira_megatron.rubric.dimension_names import name_fault


def edited(path: Path, line: int, **changes: Any) -> Path:
    """Writes good anchors with one line's fields changed; "…" removes a field."""
    rows = [asdict(anchor) for anchor in anchors()]
    rows[line - 1] = {
        key: value for key, value in {**rows[line - 1], **changes}.items() if value is not ...
    }
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def test_read_anchors_returns_what_was_written(tmp_path: Path) -> None:
    write_anchors(tmp_path / "a.jsonl", anchors())
    assert read_anchors(tmp_path / "a.jsonl") == anchors()


@given(names=st.lists(st.text(min_size=1), min_size=NUM_SLOTS, max_size=NUM_SLOTS))
def test_read_anchors_returns_any_names_that_are_fit(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    fit = [name if name_fault(name) is None else "Fit" for name in names]
    path = tmp_path_factory.mktemp("names") / "a.jsonl"
    write_anchors(path, anchors(fit))
    assert [anchor.name for anchor in read_anchors(path)] == fit


def test_version_is_the_name_and_eight_digits_of_the_content() -> None:
    before = anchors()
    assert {anchor.rubric_version for anchor in before} == {before[0].rubric_version}
    assert before[0].rubric_version.startswith("mine-")
    assert len(before[0].rubric_version) == len("mine-") + 8


@pytest.mark.parametrize("change", [{"name": "Other"}, {"description": "d"}, {"cluster_size": 8}])
def test_version_of_changes_with_any_anchor_and_not_with_the_version(
    change: dict[str, Any],
) -> None:
    before = anchors()
    after = [*before[:-1], replace(before[-1], **change)]
    assert version_of("mine", after) != version_of("mine", before)
    renamed = [replace(anchor, rubric_version="another") for anchor in before]
    assert version_of("mine", renamed) == version_of("mine", before)


def test_with_version_numbers_the_slots_in_order() -> None:
    slots = with_version("mine", list(reversed(anchors())))
    assert [slot.anchor_id for slot in slots] == [f"A{number}" for number in range(1, 16)]
    assert slots[0].name == "Name 15"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Edited"}, r"does not fit its content.*mira rubric freeze"),
        ({"rubric_version": ...}, r"rubric_version \(mine-\w+, null\) does not fit"),
        ({"anchor_id": "A2"}, r"its slots are A1, A2, A2, .* expected A1\.\.A15"),
        ({"name": ...}, r":3: field 'name' is missing"),
        ({"nmae": "x"}, r":3: unknown field 'nmae'\. Did you mean 'name'"),
        ({"name": "[A1] x"}, r":3: name='\[A1\] x' holds a slot marker"),
        ({"name": 5}, r":3: name: expected text, got 5"),
        ({"description": "a\nb"}, r":3: description='a\\nb' holds a line break"),
        ({"part": "mind"}, r":3: part='mind' must be one of null, think, combined, qa"),
        ({"part": "qa"}, r"parts are None, None, qa.*expected null for all, or 5"),
        ({"cluster_size": -1}, r":3: cluster_size=-1: expected a whole number"),
        ({"aliases": {"x": 1}}, r":3: aliases: expected a list"),
        ({"aliases": [["x"]]}, r":3: aliases\[0\]: expected \[name, count\]"),
        ({"medoid": {"score": 3}}, r":3: medoid: field 'record_id' is missing"),
        ({"rubric_version": "\x1b-12345678"}, r":3: rubric_version=.* cannot be printed"),
    ],
)
def test_read_anchors_of_a_bad_line_says_where_and_what(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = edited(tmp_path / "a.jsonl", 3, **changes)
    with pytest.raises(ValueError, match=f"^{path}.*{message}"):
        read_anchors(path)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"level": "best", "score": 1, "reason": "x"}, r"level='best' must be one of low"),
        ({"level": "low", "score": 11, "reason": "x"}, r"score=11: expected a number from 0 to 10"),
        ({"level": "low", "score": True, "reason": "x"}, "score=True: expected a number"),
        ({"level": "low", "score": 1, "reason": "<score>"}, "reason='<score>' holds a blank"),
        ({"level": "low", "reason": "x"}, "field 'score' is missing"),
        ("x", "expected an object, got 'x'"),
    ],
)
def test_read_anchors_of_a_bad_reference_says_where_and_what(
    tmp_path: Path, reference: object, message: str
) -> None:
    path = edited(tmp_path / "a.jsonl", 1, references=[reference])
    with pytest.raises(ValueError, match=rf":1: references\[0\].*{message}"):
        read_anchors(path)


def test_read_anchors_references_must_rise(tmp_path: Path) -> None:
    references = [
        {"level": level, "score": score, "reason": "x"}
        for level, score in (("low", 5), ("high", 4))
    ]
    with pytest.raises(ValueError, match="low 5, high 4; expected low to high"):
        read_anchors(edited(tmp_path / "a.jsonl", 1, references=references))


@pytest.mark.parametrize("num_lines", [0, 14])
def test_read_anchors_must_be_fifteen(tmp_path: Path, num_lines: int) -> None:
    write_anchors(tmp_path / "a.jsonl", anchors()[:num_lines])
    with pytest.raises(ValueError, match=f"{num_lines} anchors; expected 15, one per line"):
        read_anchors(tmp_path / "a.jsonl")


def test_read_anchors_of_other_text_says_which_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n" * 4 + "half\n" + "{}\n" * 10)
    with pytest.raises(ValueError, match=r"a\.jsonl:1: field 'name' is missing"):
        read_anchors(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("half\n" * 15)
    with pytest.raises(ValueError, match=r"a\.jsonl:1: not JSON"):
        read_anchors(tmp_path / "a.jsonl")


def test_read_anchors_keeps_the_parts_of_thoughts(tmp_path: Path) -> None:
    parts = [part for part in PARTS_OF_THINK for _ in range(5)]
    slots = with_version(
        "mine", [replace(one, part=part) for one, part in zip(anchors(), parts, strict=True)]
    )
    write_anchors(tmp_path / "a.jsonl", slots)
    assert [slot.part for slot in read_anchors(tmp_path / "a.jsonl")] == parts


def test_freeze_gives_an_edited_file_a_version_of_its_own(tmp_path: Path) -> None:
    path = edited(tmp_path / "a.jsonl", 2, name="Edited", description="Mine.")
    frozen = freeze(path)
    assert frozen.previous_version == anchors()[0].rubric_version
    assert frozen.rubric_version.startswith("mine-")
    assert frozen.rubric_version != frozen.previous_version
    slots = read_anchors(path)
    assert {slot.rubric_version for slot in slots} == {frozen.rubric_version}
    assert (slots[1].name, slots[1].description) == ("Edited", "Mine.")


def test_freeze_takes_the_order_of_the_lines(tmp_path: Path) -> None:
    write_anchors(tmp_path / "a.jsonl", list(reversed(anchors())))
    freeze(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [slot.name for slot in read_anchors(tmp_path / "b.jsonl")][:2] == ["Name 15", "Name 14"]
    assert read_draft(tmp_path / "a.jsonl")[0].anchor_id == "A15"


def test_freeze_takes_slots_of_which_there_is_only_a_name(tmp_path: Path) -> None:
    path = tmp_path / "by-hand.jsonl"
    path.write_text("".join(f'{{"name": "Name {slot}"}}\n' for slot in range(15)))
    frozen = freeze(path)
    assert frozen.previous_version is None
    assert frozen.rubric_version.startswith("by-hand-")
    first = read_anchors(path)[0]
    assert (first.anchor_id, first.cluster_size, first.medoid) == ("A1", None, None)


def test_freeze_of_an_unedited_file_is_refused(tmp_path: Path) -> None:
    write_anchors(tmp_path / "a.jsonl", anchors())
    with pytest.raises(ValueError, match="nothing was edited, it is mine-"):
        freeze(tmp_path / "a.jsonl", tmp_path / "b.jsonl")


def test_freeze_overwrites_no_other_file(tmp_path: Path) -> None:
    path = edited(tmp_path / "a.jsonl", 2, name="Edited")
    (tmp_path / "b.jsonl").write_text("mine")
    with pytest.raises(ValueError, match=r"b\.jsonl: exists already"):
        freeze(path, tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_text() == "mine"


def test_freeze_leaves_the_files_of_a_finished_unit_alone(tmp_path: Path) -> None:
    path = edited(tmp_path / "anchors.jsonl", 2, name="Edited")
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match=r"lists this file as it was made.*anchors_path"):
        freeze(path)
    freeze(path, tmp_path / "elsewhere" / "mine.jsonl")
    assert read_anchors(tmp_path / "elsewhere" / "mine.jsonl")[1].name == "Edited"


def test_freeze_of_a_name_that_could_forge_an_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a score such as 8/10"):
        freeze(edited(tmp_path / "a.jsonl", 2, name="Depth: 10/10"))
