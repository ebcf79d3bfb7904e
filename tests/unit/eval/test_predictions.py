from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eval_files import write_lines

from mira_megatron.eval.predictions import check_complete, read_predictions
from mira_megatron.eval.verdicts import Form


def read(path: Path) -> list[tuple[str, int, str, bool]]:
    samples = read_predictions(path, ["a", "b"])
    return [(each.task_id, each.number, each.text, each.form is Form.PROGRAM) for each in samples]


def test_evalplus_samples(tmp_path: Path) -> None:
    entries = [
        {"task_id": "a", "completion": "x"},
        {"task_id": "b", "solution": "y"},
        {"task_id": "a", "completion": "z"},
    ]
    path = write_lines(tmp_path / "samples.jsonl", entries)
    assert read(path) == [("a", 0, "x", False), ("b", 0, "y", True), ("a", 1, "z", False)]


def test_multipl_e_lines(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [
        {"task_id": "a", "generation": "x", "prompt": "p", "wholecode": "w"},
        {"name": "b", "completions": ["y", "z"]},
    ]
    path = write_lines(tmp_path / "pred.jsonl", entries)
    assert read(path) == [("a", 0, "x", True), ("b", 0, "y", False), ("b", 1, "z", False)]


def test_multipl_e_details(tmp_path: Path) -> None:
    path = tmp_path / "details.json"
    path.write_text(json.dumps({"b": [[0, {"code": "x", "passed": True}], [1, {"code": "y"}]]}))
    assert read(path) == [("b", 0, "x", True), ("b", 1, "y", True)]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"task_id": "a"}, "no text; expected one of solution"),
        ({"task_id": "a", "completions": [1]}, "no text"),
        ({"completion": "x"}, "no task_id"),
        ({"task_id": "c", "completion": "x"}, "task 'c' is none of this benchmark's 2"),
        ([], "list, expected an object"),
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path: Path, entry: Any, said: str) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"task_id": "a", "completion": ""}])
    with path.open("a") as file:
        file.write(json.dumps(entry))
    with pytest.raises(ValueError, match=rf"p\.jsonl:2: .*{said}"):
        read(path)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": [[0]]}', '{"a": [[0, {}]]}'])
def test_details_of_another_shape_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "details.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"details\.json: "):
        read(path)


def test_tasks_without_a_prediction_are_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"task_id": "a", "completion": ""}])
    samples = read_predictions(path, ["a", "b"])
    with pytest.raises(ValueError, match=r"1 of 2 tasks have no prediction, the first is 'b'"):
        check_complete(samples, ["a", "b"], path)
    check_complete(samples, ["a"], path)


def test_a_task_with_fewer_samples_than_others_is_incomplete(tmp_path: Path) -> None:
    entries = [{"task_id": task, "completion": "x"} for task in ("a", "b", "a")]
    path = write_lines(tmp_path / "pred.jsonl", entries)
    samples = read_predictions(path, ["a", "b"])

    with pytest.raises(ValueError, match=r"1 of 2 tasks have fewer than the 2 .* 'b' with 1\."):
        check_complete(samples, ["a", "b"], path)
    check_complete(samples[:2], ["a", "b"], path)
