from __future__ import annotations

from pathlib import Path
from typing import Any

from preflight_recipes import DISTILL, about, subject, write_base

from mira_megatron.doctor.disk_checks import Need, check_room, room_findings
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.path_checks import source_files
from mira_megatron.training.bridge_models import QWEN3_30B_A3B

CHECKPOINTS = Need(what="checkpoints", num_bytes=700, is_sure=True)
RECORDS = Need(what="records", num_bytes=200, is_sure=False)


def _findings(folder: Path, **sections: Any) -> list[Finding]:
    looked_at = subject(folder, **sections)
    return check_room(looked_at, source_files(looked_at))


def test_disk_that_is_too_small_is_an_error_where_the_need_is_sure() -> None:
    for free_bytes, level in ((699, ERROR), (899, WARNING), (900, INFO)):
        (finding,) = room_findings([CHECKPOINTS, RECORDS], free_bytes, "runs")
        assert (finding.level, finding.where) == (level, "runs"), free_bytes
    assert room_findings([], 0, "runs") == []


def test_checkpoints_of_every_arm_are_counted(tmp_path: Path) -> None:
    arms = {name: {"score": "random", "scope": "global"} for name in ("half", "other")}
    findings = _findings(tmp_path, arms=arms)
    # 14,770,033,664 parameters; 3 checkpoints of 14 bytes, base and export of 2.
    expected = f"{2 * 14_770_033_664 * 46 / 1e12:,.1f} TB"
    assert [finding for finding in findings if expected in finding.what]


def test_selections_that_are_copied_are_counted(tmp_path: Path) -> None:
    blend = {"handover": "physical_copy", "sequence_length": 32_768}
    select = {"budget_tokens": 25e9}
    findings = _findings(tmp_path, blend=blend, select=select)
    assert [each for each in findings if "1 x copy of a selection 100.0 GB" in each.what]
    findings = _findings(tmp_path, blend=blend, select={"budget_fraction": 0.5})
    assert about(findings, UNKNOWN, "copies of the selections", "not known before select")


def test_records_are_guessed_from_their_sources(tmp_path: Path) -> None:
    (tmp_path / "wiki.jsonl").write_bytes(b"x" * 12_345)
    assert [each for each in _findings(tmp_path) if "12.3 kB" in each.what]


def test_what_tokens_and_scorers_take_is_not_known_yet(tmp_path: Path) -> None:
    write_base(tmp_path / "scorer_base", QWEN3_30B_A3B.hf_config)
    findings = _findings(tmp_path, distill=DISTILL)
    assert about(findings, UNKNOWN, "tokens", "not known before tokenize")
    assert about(findings, UNKNOWN, "scorers", "not known before group")


def test_checkpoints_that_are_saved_are_not_counted_again(tmp_path: Path) -> None:
    arms = {name: {"score": "random", "scope": "global"} for name in ("half", "other")}
    whole = 2 * 14_770_033_664 * 46
    saved = tmp_path / "run/bridge/midtrain.half/checkpoints-0123/iter_0000007/weights"
    saved.parent.mkdir(parents=True)
    with saved.open("wb") as file:
        file.truncate(300 * 10**9)  # a hole: it takes no room
    expected = f"{(whole - 300 * 10**9) / 1e12:,.1f} TB"
    assert expected != f"{whole / 1e12:,.1f} TB"
    assert [each for each in _findings(tmp_path, arms=arms) if expected in each.what]


def test_every_seed_of_an_arm_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    whole = 2 * 14_770_033_664 * 46
    ablation = {"seeds": [1, 2]}
    expected = f"2 x checkpoints of midtrain {whole / 1e12:,.1f} TB"
    assert [each for each in _findings(tmp_path, ablation=ablation) if expected in each.what]
    for digest in ("0123", "4567"):
        saved = tmp_path / f"run/bridge/midtrain.half/checkpoints-{digest}/iter_0000007/weights"
        saved.parent.mkdir(parents=True)
        with saved.open("wb") as file:
            file.truncate(300 * 10**9)
    expected = f"2 x checkpoints of midtrain {(whole - 600 * 10**9) / 1e9:,.1f} GB"
    found = _findings(tmp_path, ablation=ablation)
    assert [each for each in found if expected in each.what], [each.what for each in found]
