from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import bits, compared, write_entry, write_nine

from mira_megatron.eval.comparison.comparison import Comparison
from mira_megatron.eval.comparison.machine_files import comparison_json
from mira_megatron.eval.comparison.markdown import comparison_markdown
from mira_megatron.eval.comparison.page import comparison_page
from mira_megatron.eval.comparison.subsets import Subscore
from mira_megatron.eval.contamination.item_records import ItemRecord, ItemStatus, write_items


def write_scan(folder: Path, dirty: dict[str, list[str]]) -> Path:
    """Writes the items of a scan: of every entry one clean item, and the dirty ones."""
    items = [
        ItemRecord(
            benchmark=entry,
            split="test",
            task_id=task,
            status=ItemStatus.DIRTY if task in tasks else ItemStatus.CLEAN,
            measured=("prompt",),
            max_score=1.0,
            num_records=1,
            documents=(),
        )
        for entry, tasks in dirty.items()
        for task in (*tasks, "another")
    ]
    folder.mkdir(exist_ok=True)
    write_items(folder / "items.jsonl", items)
    return folder


def found(comparison: Comparison) -> dict[tuple[str, str], Subscore]:
    return {(each.name, each.subset): each for each in comparison.arms[0].subscores}


def test_clean_and_dirty_tasks_have_scores_of_their_own(tmp_path: Path) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("11100000"), "mbpp_plus": bits("11000000")})
    scan = write_scan(tmp_path / "scan", {"mbpp": ["t0", "t1", "t2", "t9"]})
    subscores = found(compared(tmp_path / "a", contamination=scan))
    assert subscores["mbpp", "dirty"].value == pytest.approx(100.0)
    assert subscores["mbpp", "dirty"].num_tasks == 3
    assert subscores["mbpp", "clean"].value == pytest.approx(0.0)
    assert subscores["mbpp_plus", "dirty"].value == pytest.approx(200 / 3)
    assert subscores["mbpp", "clean"].interval is not None
    assert subscores["code_generation", "clean"].value is None


def test_a_whole_suite_has_a_clean_macro(tmp_path: Path) -> None:
    folder = write_nine(tmp_path / "a")
    entries = [path.name for path in folder.iterdir()]
    dirty: dict[str, list[str]] = {entry: [] for entry in entries}
    dirty["swe_multilingual"] = [f"swe/{number}" for number in range(25)]
    comparison = compared(folder, contamination=write_scan(tmp_path / "scan", dirty))
    subscores, scores = found(comparison), comparison.arms[0].scores
    swe, macro = subscores["swe_multilingual", "clean"], subscores["macro", "clean"]
    assert swe.num_tasks == 25
    assert swe.value is not None
    assert macro.value is not None
    assert scores["macro"].value is not None
    assert scores["swe"].value is not None
    moved = (swe.value - scores["swe"].value) / 4
    assert macro.value == pytest.approx(scores["macro"].value + moved)
    assert subscores["mbpp", "dirty"].reason == "no such task"
    for text in (comparison_page(comparison), comparison_markdown(comparison)):
        assert "Subsets of the tasks" in text
    content = json.loads(json.dumps(comparison_json(comparison), allow_nan=False))
    assert content["arms"][0]["subscores"]


def test_an_entry_that_was_not_looked_for_is_missing_with_the_reason(tmp_path: Path) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("10")})
    write_entry(tmp_path / "a", "spider", {"spider": bits("10")})
    scan = write_scan(tmp_path / "scan", {"mbpp": ["t0"]})
    subscores = found(compared(tmp_path / "a", contamination=scan))
    assert subscores["spider", "clean"].value is None
    assert "spider was not looked for" in str(subscores["spider", "clean"].reason)


def test_a_scan_of_other_benchmarks_is_refused(tmp_path: Path) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("10")})
    scan = write_scan(tmp_path / "scan", {"spider": ["x"]})
    with pytest.raises(ValueError, match="mbpp was not looked for"):
        compared(tmp_path / "a", contamination=scan)


def test_tasks_whose_gold_fails_here_are_left_out_of_the_controlled_score(tmp_path: Path) -> None:
    place = write_nine(tmp_path / "a")
    path = place / "mbpp/results.json"
    results = json.loads(path.read_text())
    results["scores"]["mbpp"]["controlled"] = {"failing": ["mbpp/0", "mbpp/1"]}
    path.write_text(json.dumps(results))
    comparison = compared(place)
    subscores, scores = found(comparison), comparison.arms[0].scores
    controlled = subscores["mbpp", "controlled"]
    assert controlled.num_tasks == 58
    assert controlled.value is not None
    assert scores["mbpp"].value is not None
    assert scores["code_generation"].value is not None
    moved = (controlled.value - scores["mbpp"].value) / 5
    expected = scores["code_generation"].value + moved
    assert subscores["code_generation", "controlled"].value == pytest.approx(expected)
    assert ("mbpp_plus", "controlled") not in subscores
    assert set(subscores) == {
        (name, "controlled") for name in ("mbpp", "code_generation", "macro", "micro9")
    }


def test_controls_that_are_no_task_ids_are_refused(tmp_path: Path) -> None:
    path = write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("10")}) / "results.json"
    results = json.loads(path.read_text())
    results["scores"]["mbpp"]["controlled"] = {"failing": [1]}
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match="expected task ids"):
        compared(tmp_path / "a")
