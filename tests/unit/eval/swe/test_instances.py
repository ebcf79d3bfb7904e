from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from swe_files import row, write_patches, write_rows

from mira_megatron.eval.swe.instances import (
    check_all_instances,
    gold_patches,
    load_instances,
    load_patches,
)


def test_rows_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [row("mine__adder-1"), row("mine__adder-2", FAIL_TO_PASS=["a", "b"])]
    lines = write_rows(tmp_path / "rows.jsonl", *rows)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    texts = [{**each, "FAIL_TO_PASS": json.dumps(each["FAIL_TO_PASS"])} for each in rows[1:]]
    pq.write_table(pa.Table.from_pylist([rows[0], *texts]), tmp_path / "rows.parquet")
    first = load_instances(lines)
    assert list(first) == ["mine__adder-1", "mine__adder-2"]
    assert first["mine__adder-2"].row["FAIL_TO_PASS"] == ["a", "b"]
    assert first["mine__adder-1"].row["FAIL_TO_PASS"] == ["TestAdd"]
    assert load_instances(tmp_path / "rows.json") == first
    assert load_instances(tmp_path / "rows.parquet") == first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": None}, "row 1: no image; expected the rows of SWE-bench 5.0"),
        ({"PASS_TO_PASS": "not json"}, "no PASS_TO_PASS"),
        ({"instance_id": "../../etc"}, "no name of an instance"),
        ({"instance_id": "-v"}, "no name of an instance"),
        ({"instance_id": "a/b"}, "no name of an instance"),
        ({"image": "--privileged"}, "no name of an image"),
        ({"image": "a b"}, "no name of an image"),
        ({"image": "a\n--privileged"}, "no name of an image"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", {**row("mine__adder-1"), **changes})
    with pytest.raises(ValueError, match=said):
        load_instances(path)


def test_an_instance_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", row("a-1"), row("a-1"))
    with pytest.raises(ValueError, match="row 2: a-1 is there twice"):
        load_instances(path)


def test_predictions_are_read_in_all_three_forms(tmp_path: Path) -> None:
    instances = load_instances(write_rows(tmp_path / "rows.jsonl", row("a-1"), row("a-2")))
    by_id = write_patches(tmp_path / "by_id.json", {"a-1": "diff", "a-2": None})
    entries = list(json.loads(by_id.read_text()).values())
    (tmp_path / "list.json").write_text(json.dumps(entries))
    lines = write_rows(tmp_path / "lines.jsonl", *entries)
    for path in (by_id, tmp_path / "list.json", lines):
        assert load_patches(path, instances) == {"a-1": "diff", "a-2": ""}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"instance_id": "b-9", "model_patch": ""}]', "'b-9' is none of the dataset's 1"),
        ('[{"model_patch": ""}]', "prediction 1: no instance_id"),
        ('[{"instance_id": "a-1"}]', "model_patch is no text"),
        ('[{"instance_id": "a-1", "model_patch": 7}]', "model_patch is no text"),
        ("[]", "no predictions"),
        ("7", "int, expected a list or an object"),
        ("{", "not JSON"),
    ],
)
def test_predictions_that_cannot_be_used_are_named(tmp_path: Path, content: str, said: str) -> None:
    instances = load_instances(write_rows(tmp_path / "rows.jsonl", row("a-1")))
    path = tmp_path / "preds.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        load_patches(path, instances)


def test_two_patches_of_an_instance_are_refused(tmp_path: Path) -> None:
    instances = load_instances(write_rows(tmp_path / "rows.jsonl", row("a-1")))
    entry = {"instance_id": "a-1", "model_patch": "x"}
    path = write_rows(tmp_path / "preds.jsonl", entry, entry)
    with pytest.raises(ValueError, match="a-1 is there twice"):
        load_patches(path, instances)


def test_gold_patches_are_those_of_the_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", row("a-1"), row("a-2", patch=""))
    assert gold_patches(path, load_instances(path)) == {"a-1": "RIGHT a-1"}


def test_fewer_than_all_instances_are_another_benchmark() -> None:
    check_all_instances(Path("rows.jsonl"), ["x"] * 300)
    with pytest.raises(ValueError, match="299 instances, and SWE-bench Multilingual has 300"):
        check_all_instances(Path("rows.jsonl"), ["x"] * 299)
