from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_run import ANCHORS, ARM, HELD_OUT, TABLE, SmallRecord, report_workspace, write_run

from mira_megatron.report import sampled_records
from mira_megatron.report.outcomes import read_arm
from mira_megatron.report.sampled_records import records_data
from mira_megatron.retention.documents import read_documents

RECORDS = [
    HELD_OUT,
    *(SmallRecord(text=f"kept {number}", score=9.0) for number in range(20)),
    *(SmallRecord(text=f"dropped {number}", score=1.0) for number in range(20)),
    *(SmallRecord(text=f"failed {number}", score=None, reason="failed") for number in range(20)),
]


def records(folder: Path, own: list[SmallRecord], budget: int = 200) -> dict[str, Any]:
    recipe = write_run(folder, {"wiki": own}, budget_tokens=budget)
    workspace = report_workspace(recipe)
    arm = read_arm(workspace, ARM, read_documents(workspace, ["wiki"]))
    names = {"wiki": ANCHORS}
    return records_data(workspace, rubric=TABLE, seed=7, anchor_names=names, arms=[arm])


def test_sample_is_half_kept_half_dropped_and_a_fifth_unscored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_records, "MAX_RECORDS", 10)
    found = records(tmp_path, RECORDS)["records"]
    kinds = [each["judged"][0]["decision"] for each in found]
    assert (len(found), kinds.count("kept"), kinds.count("no score")) == (10, 4, 2)
    assert len({each["id"] for each in found}) == 10


@pytest.mark.parametrize(("budget", "num_kept"), [(10, 1), (200, 9)])
def test_sample_takes_more_of_one_kind_where_the_other_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int, num_kept: int
) -> None:
    monkeypatch.setattr(sampled_records, "MAX_RECORDS", 10)
    found = records(tmp_path, RECORDS[:21], budget=budget)["records"]
    kinds = [each["judged"][0]["decision"] for each in found]
    assert (len(found), kinds.count("kept")) == (10, num_kept)


def test_record_carries_text_ratings_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_records, "TEXT_CHARS", 4)
    own = [HELD_OUT, SmallRecord(text="long text", score=9.0, meta='{"a": 1}')]
    found = records(tmp_path, own)
    record = next(each for each in found["records"] if each["judged"][0]["decision"] == "kept")
    assert (record["text"], record["isCut"], record["chars"]) == ("long", True, 9)
    assert record["meta"] == '{"a"'
    assert record["scores"] == [9.0] * 15
    assert record["rationales"] == ["12 of 12 functions documented"] * 15
    assert record["judged"][0]["reason"] == "kept: not below the cutoff 9.000 of group text-wiki"
    assert found["anchors"] == {"wiki": list(ANCHORS)}
