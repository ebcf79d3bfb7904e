from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from preflight_recipes import about, write_cluster, write_recipe
from rich.console import Console

from mira_megatron.cli import main
from mira_megatron.config import load_recipe
from mira_megatron.doctor.checks import check_attention
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.preflight import (
    exit_code,
    findings_json,
    preflight,
    print_findings,
)
from mira_megatron.launchers.cluster import load_cluster

Usage = namedtuple("Usage", "total used free")  # as shutil.disk_usage gives it


@pytest.fixture(autouse=True)
def large_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**15, 0, 10**15))


def _preflight(folder: Path) -> list[Finding]:
    return preflight(load_recipe(folder / "recipe.yaml"), load_cluster(folder / "cluster.yaml"))


def test_recipe_that_is_ready_has_no_error_and_says_what_is_not_known(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_cluster(tmp_path)
    findings = _preflight(tmp_path)
    assert not about(findings, ERROR)
    assert len(about(findings, UNKNOWN)) == 4  # environment, room of tokens, tokens, blend
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=[ERROR, WARNING, UNKNOWN, INFO].index)
    assert exit_code(findings) == 0


def test_everything_that_is_wrong_is_found_at_once(tmp_path: Path) -> None:
    blend = {"handover": "index_view", "sequence_length": 4096}
    write_recipe(tmp_path, blend=blend, tokenize={})
    write_cluster(tmp_path, gpu="h100")
    (tmp_path / "wiki.jsonl").unlink()
    findings = _preflight(tmp_path)
    for words in (
        ("tokenize cannot be planned", "needs tokenizer, eod_token"),
        ("sources.wiki", "matches no file"),
        ("midtrain", "an h100 has 72"),
        ("blend.sequence_length", "4,096"),
    ):
        assert about(findings, ERROR, *words), words
    assert exit_code(findings) == 2


def test_damaged_base_stops_its_own_checks_only(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_cluster(tmp_path, containers={"default": "gone.sqsh"}, container_runtime="pyxis")
    (tmp_path / "base" / "config.json").write_text("{")
    findings = _preflight(tmp_path)
    assert about(findings, ERROR, "trainings cannot be looked at further", "config.json: not JSON")
    assert about(findings, ERROR, "gone.sqsh: no such image")


def test_finding_is_one_line_and_markup_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = Finding(level=ERROR, what="two\nlines [red]", where="a" * 200, way_out="mend it")
    print_findings(Console(width=40), [finding])
    assert capsys.readouterr().out.splitlines() == [
        f"error   {'a' * 200}: two lines [red] -> mend it",
        "error: 1, warning: 0, unknown: 0, info: 0",
    ]


def test_json_holds_every_finding_and_counts(tmp_path: Path) -> None:
    finding = Finding(level=WARNING, what="w", where="x", way_out="y")
    content = json.loads(findings_json([finding]))
    assert content["counts"] == {"error": 0, "warning": 1, "unknown": 0, "info": 0}
    assert content["findings"] == [{"level": "warning", "what": "w", "where": "x", "way_out": "y"}]


def test_command_ends_with_2_where_something_is_to_be_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_recipe(tmp_path))
    cluster = str(write_cluster(tmp_path))
    assert main(["doctor", path, "--cluster", cluster]) == 0
    capsys.readouterr()
    assert main(["doctor", path, "--cluster", cluster, "blend.sequence_length=8", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["counts"]["error"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json"], "--json needs a RECIPE"),
        (["--cluster", "c.yaml"], "--cluster needs a RECIPE"),
        (["r.yaml", "--config", "c"], "--config looks at a single training"),
        (["r.yaml", "--cluster", "c.yaml"], "r.yaml: no such file"),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err


def test_attention_mask_that_would_be_dropped_is_found() -> None:
    model = SimpleNamespace(position_embedding_type="rope", seq_length=32_768)
    dataset = SimpleNamespace(reset_attention_mask=True)
    (finding,) = check_attention(SimpleNamespace(dataset=dataset, model=model))
    assert "reset_attention_mask=True has no effect" in finding.what
    assert finding.way_out.startswith("set reset_attention_mask=False")
    dataset.reset_attention_mask = False
    assert check_attention(SimpleNamespace(dataset=dataset, model=model)) == []


def test_a_missing_file_is_told_once(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_cluster(tmp_path)
    (tmp_path / "base" / "tokenizer.json").unlink()
    findings = _preflight(tmp_path)
    assert about(findings, ERROR, "tokenize cannot be planned", "tokenizer.json: no such file")
    assert not about(findings, ERROR, "tokenize.tokenizer: ")
