"""`mira swe run` and `mira swe grade`, with the official grader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from swe_files import (
    BROKEN,
    REFUSED,
    RIGHT,
    SLOW,
    WRONG,
    calls,
    install_engine,
    row,
    write_patches,
    write_rows,
)

from mira_megatron.cli import main
from mira_megatron.eval.comparison.outputs import read_evaluation
from mira_megatron.eval.grading import read_verdicts
from mira_megatron.eval.verdicts import Status
from mira_megatron.file_lock import IN_USE, held_lock

pytest.importorskip("swebench", reason="pip install mira-megatron[swe]")


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install_engine(tmp_path / "bin", "docker", monkeypatch)


def run(folder: Path, *words: str) -> int:
    given = words or ("--predictions", str(folder / "preds.json"))
    place = ["--logs", str(folder / "logs"), "--engine", "docker", "--workers", "2"]
    return main(["swe", "run", str(folder / "rows.jsonl"), *place, *given])


def grade(folder: Path, *words: str) -> int:
    command = ["swe", "grade", str(folder / "rows.jsonl")]
    command += ["--predictions", str(folder / "preds.json"), "--logs", str(folder / "logs")]
    return main([*command, "--output", str(folder / "out"), *words])


def statuses(folder: Path) -> dict[str, tuple[Status, str]]:
    verdicts = read_verdicts(folder / "out/verdicts.jsonl")
    return {verdict.task_id: (verdict.status, verdict.detail) for verdict in verdicts}


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "out/results.json").read_bytes())
    return content


def test_patches_are_run_and_graded_by_the_official_package(
    tmp_path: Path, called: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patches = {"a-1": RIGHT, "a-2": WRONG, "a-3": REFUSED, "a-4": SLOW, "a-5": None}
    write_rows(tmp_path / "rows.jsonl", *(row(f"a-{number}") for number in range(1, 7)))
    write_patches(tmp_path / "preds.json", patches)
    words = ["--predictions", str(tmp_path / "preds.json"), "--seconds", "1"]
    assert run(tmp_path, *words) == 0
    assert "4 patches: 0 had been run, 4 were run" in capsys.readouterr().out
    assert grade(tmp_path, "--subset") == 0
    found = statuses(tmp_path)
    assert found["a-1"] == (Status.PASS, "FAIL_TO_PASS 1/1, PASS_TO_PASS 1/1")
    assert found["a-2"] == (Status.FAIL, "FAIL_TO_PASS 0/1, PASS_TO_PASS 1/1")
    assert found["a-3"] == (Status.ERROR, "the patch does not apply")
    assert found["a-4"][0] is Status.TIMEOUT
    assert found["a-5"] == (Status.NO_CODE, "empty patch")
    assert found["a-6"] == (Status.NO_CODE, "no prediction")
    content = results(tmp_path)
    assert content["scores"]["swe_multilingual"]["pass@1"] == pytest.approx(100 / 6)
    compared = read_evaluation(tmp_path / "out").outcomes["swe_multilingual"]
    assert compared.clusters["a-1"] == "mine/adder"
    assert len(compared.statuses) == 6
    assert content["grader"].startswith("swebench/5.")
    assert content["controls"] is None


def test_fewer_than_300_instances_are_refused_unless_told(tmp_path: Path, called: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", row("a-1"))
    write_patches(tmp_path / "preds.json", {"a-1": RIGHT})
    assert run(tmp_path) == 0
    assert grade(tmp_path) == 2
    assert not (tmp_path / "out").exists()


def test_run_that_is_missing_says_nothing_about_the_patch(tmp_path: Path, called: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", row("a-1"), row("a-2"))
    write_patches(tmp_path / "preds.json", {"a-1": RIGHT, "a-2": BROKEN})
    assert run(tmp_path) == 1
    assert grade(tmp_path, "--subset") == 1
    assert statuses(tmp_path)["a-2"] == (Status.INFRA, "not run: mira swe run")
    write_patches(tmp_path / "preds.json", {"a-1": RIGHT, "a-2": RIGHT})
    assert run(tmp_path) == 0
    assert grade(tmp_path, "--subset") == 0
    assert results(tmp_path)["scores"]["swe_multilingual"]["pass@1"] == 100.0


def test_dataset_whose_own_patch_fails_here_is_told(tmp_path: Path, called: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", row("a-1"), row("a-2", patch=WRONG))
    write_patches(tmp_path / "preds.json", {"a-1": f"{RIGHT} mine", "a-2": f"{WRONG} mine"})
    assert run(tmp_path, "--gold") == 0
    assert run(tmp_path) == 0
    assert len(calls(called)) == 4
    assert grade(tmp_path, "--subset") == 0
    score = results(tmp_path)["scores"]["swe_multilingual"]
    assert score["pass@1"] == 50.0
    assert score["controlled"] == {"pass@1": 100.0, "num_tasks": 1, "failing": ["a-2"]}


def test_patch_that_prints_its_own_passes_is_not_resolved(tmp_path: Path, called: Path) -> None:
    # The tests' exit code says what the log does not; the official grader compares them.
    engine = tmp_path / "bin/docker"
    engine.write_text(engine.read_text().replace("result=FAIL code=1", "result=PASS code=1"))
    write_rows(tmp_path / "rows.jsonl", row("a-1"))
    write_patches(tmp_path / "preds.json", {"a-1": WRONG})
    assert run(tmp_path) == 0
    assert grade(tmp_path, "--subset") == 0
    assert statuses(tmp_path)["a-1"] == (Status.ERROR, "no results of tests")


def test_evaluation_records_the_exit_code_of_the_tests(tmp_path: Path, called: Path) -> None:
    engine = tmp_path / "bin/docker"
    engine.write_text(engine.read_text().replace('echo "applied"', 'cat "$folder/eval.sh"'))
    write_rows(tmp_path / "rows.jsonl", row("a-1"))
    write_patches(tmp_path / "preds.json", {"a-1": RIGHT})
    assert run(tmp_path) == 0
    (end,) = (tmp_path / "logs/a-1").glob("*.json")
    assert "SWEBENCH_TEST_EXIT_CODE=$?" in json.loads(end.read_bytes())["said"]


def test_shards_run_every_instance_once(tmp_path: Path, called: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", *(row(f"a-{number}") for number in range(3)))
    for shard in ("0/2", "1/2"):
        assert run(tmp_path, "--gold", "--shard", shard) == 0
    assert len(list(tmp_path.glob("logs/*/*.json"))) == len(calls(called)) == 3


def test_another_version_of_the_grader_shows_what_flips(
    tmp_path: Path, called: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", row("a-1"))
    write_patches(tmp_path / "preds.json", {"a-1": WRONG})
    assert run(tmp_path) == 0
    assert grade(tmp_path, "--subset") == 0
    path = tmp_path / "out/verdicts.jsonl"
    text = path.read_text().replace("swebench/5", "swebench/4").replace('"fail"', '"pass"')
    path.write_text(text)
    assert grade(tmp_path, "--subset") == 0
    assert "swe_multilingual a-1 #0: pass -> fail (was swebench/4" in capsys.readouterr().out
    assert path.read_text().startswith(text)
    assert grade(tmp_path, "--subset") == 0
    assert len(path.read_text().splitlines()) == 2


def test_runs_with_and_without_a_network_are_graded_apart(
    tmp_path: Path, called: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", row("a-1"))
    write_patches(tmp_path / "preds.json", {"a-1": RIGHT})
    words = ("--predictions", str(tmp_path / "preds.json"))
    assert run(tmp_path, *words, "--no-network") == 0
    assert grade(tmp_path, "--subset") == 0
    assert results(tmp_path)["options"] == {"setting": "docker-no-network"}
    assert run(tmp_path, *words) == 0
    assert len(calls(called)) == 2
    assert grade(tmp_path, "--subset") == 2
    assert "run in docker and in docker-no-network" in capsys.readouterr().err
    assert grade(tmp_path, "--subset", "--setting", "docker") == 0
    assert results(tmp_path)["options"] == {"setting": "docker"}
    assert len((tmp_path / "out/verdicts.jsonl").read_text().splitlines()) == 2
    assert grade(tmp_path, "--subset", "--setting", "podman") == 1


def test_verdicts_that_another_process_writes_are_left_to_it(
    tmp_path: Path, called: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", row("a-1"))
    write_patches(tmp_path / "preds.json", {"a-1": RIGHT})
    assert run(tmp_path) == 0
    with held_lock(tmp_path / "out/.verdicts.lock", "of the test"):
        assert grade(tmp_path, "--subset") == IN_USE
    assert "another process grades into it" in capsys.readouterr().err
    assert not (tmp_path / "out/verdicts.jsonl").exists()
    assert grade(tmp_path, "--subset") == 0


def test_instance_that_needs_pictures_is_refused(tmp_path: Path, called: Path) -> None:
    assets = {"test_patch": [{"path": "a.png", "url": "http://x"}]}
    write_rows(tmp_path / "rows.jsonl", row("a-1", image_assets=assets))
    assert run(tmp_path, "--gold") == 2


def test_end_that_cannot_be_read_is_named(
    tmp_path: Path, called: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", row("a-1"))
    write_patches(tmp_path / "preds.json", {"a-1": RIGHT})
    assert run(tmp_path) == 0
    (end,) = (tmp_path / "logs/a-1").glob("*.json")
    end.write_text("{")
    assert grade(tmp_path, "--subset") == 2
    assert "remove it, and `mira swe run` again" in capsys.readouterr().err
