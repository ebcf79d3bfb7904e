from __future__ import annotations

from pathlib import Path

from small_run import HELD_OUT, TABLE, SmallRecord, report_workspace, write_run

from mira_megatron.report.left_behind import read_ingest_drops, read_ratings_overview


def test_ingest_drops_show_only_the_first_malformed_rows(tmp_path: Path) -> None:
    bad_rows = [
        {"origin": f"a.jsonl:{line}", "reason": "not_json", "detail": "x"} for line in range(1, 6)
    ]
    workspace = report_workspace(write_run(tmp_path, {"wiki": [HELD_OUT]}, bad_rows=bad_rows))
    (drops,) = read_ingest_drops(workspace, ["wiki"])
    assert (drops.num_rows, drops.num_records, drops.dropped) == (6, 1, (("not_json", 5),))
    assert [row.origin for row in drops.first_malformed] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]


def test_ratings_overview_counts_what_is_not_ok_over_all_parts(tmp_path: Path) -> None:
    ok = [HELD_OUT] * 3
    failed = [
        SmallRecord(text=why, score=None, reason="failed", status_reason=why)
        for why in ("status 500", "timed out", "timed out", "timed out")
    ]
    refused = [SmallRecord(text="r", score=None, reason="refused", model="org/judge")]
    recipe = write_run(tmp_path, {"wiki": [*failed, *ok, *refused]})
    overview = read_ratings_overview(report_workspace(recipe), TABLE, ["wiki"])
    assert overview.num_ratings == 8
    assert overview.models == ("org/judge", "rule-judge-1")
    counted = [(row.status, row.num_records, row.commonest_reason) for row in overview.unanswered]
    assert counted == [("failed", 4, "timed out"), ("refused", 1, "timed out")]
