"""Files from elsewhere whose JSON is nested beyond what Python reads: refused, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livecodebench_files import lcb_row, write_lcb

from mira_megatron.eval import mbpp, multipl_e
from mira_megatron.eval.data_rows import read_rows
from mira_megatron.eval.languages import LANGUAGES
from mira_megatron.eval.livecodebench_data import Edition
from mira_megatron.eval.livecodebench_data import load_tasks as load_livecodebench
from mira_megatron.eval.predictions import read_predictions
from mira_megatron.eval.sql.prediction_files import bird_predictions
from mira_megatron.eval.sql.tasks import load_spider

DEEP = "[" * 100_000

READERS: dict[str, Callable[[Path], Any]] = {
    "predictions": lambda path: read_predictions(path, ["a"]),
    "mbpp": mbpp.load_tasks,
    "multipl_e": lambda path: multipl_e.load_tasks(path, LANGUAGES["js"]),
    "rows": lambda path: list(read_rows(path, ["task_id"])),
    "spider": load_spider,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_nested_without_end_is_refused_by_name(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(DEEP)
    with pytest.raises(ValueError, match=r"file\.jsonl.*: not JSON"):
        READERS[reader](path)


def test_predictions_nested_without_end_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(DEEP)
    with pytest.raises(ValueError, match=r"file\.json: not JSON"):
        read_predictions(path, ["a"])
    with pytest.raises(ValueError, match=r"file\.json: not JSON"):
        bird_predictions(path, {})


def test_livecodebench_metadata_nested_without_end_is_refused_by_place(tmp_path: Path) -> None:
    write_lcb(tmp_path, {**lcb_row(), "metadata": DEEP})
    with pytest.raises(ValueError, match=r"test6\.jsonl:1"):
        load_livecodebench(tmp_path, Edition(release="v6"))
