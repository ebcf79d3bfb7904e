"""`mira grade` as a process: killed and started again, and its verdicts beside published ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubling_tasks import write_doubling

from mira_megatron.eval.grading import read_verdicts
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.file_lock import IN_USE

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data/eval"
SUITE = ROOT / "eval/suites/mira9.yaml"
NUM_TASKS = 30


@pytest.fixture(autouse=True)
def _a_sandbox() -> None:
    try:
        best_sandbox()
    except ValueError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_a_killed_grade_goes_on_and_gives_the_same_verdicts(tmp_path: Path) -> None:
    write_doubling(tmp_path, NUM_TASKS)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(_grade(tmp_path, killed))
    verdicts = killed / "verdicts.jsonl"
    _wait_for_verdicts(process, verdicts)
    process.kill()
    process.wait()
    before = read_verdicts(verdicts)
    assert 0 < len(before) < 2 * NUM_TASKS
    subprocess.run(_grade(tmp_path, killed), check=True)
    subprocess.run(_grade(tmp_path, whole), check=True)
    assert sorted(read_verdicts(verdicts), key=str) == sorted(
        read_verdicts(whole / "verdicts.jsonl"), key=str
    )
    results = json.loads((killed / "results.json").read_bytes())
    assert results["num_resumed"] >= len(before) // 2
    assert results["scores"]["mbpp"]["pass@1"] == 50.0


def test_killed_and_doubled_shards_come_to_the_same_verdicts(tmp_path: Path) -> None:
    write_doubling(tmp_path, NUM_TASKS)
    shared, whole = tmp_path / "shared", tmp_path / "whole"
    killed = subprocess.Popen([*_grade(tmp_path, shared), "--shard", "1/2"])
    _wait_for_verdicts(killed, shared / "verdicts.1-of-2.jsonl")
    killed.send_signal(signal.SIGSTOP)
    doubled = subprocess.run([*_grade(tmp_path, shared), "--shard", "1/2"], check=False)
    assert doubled.returncode == IN_USE
    killed.kill()
    killed.wait()
    both = [subprocess.Popen([*_grade(tmp_path, shared), "--shard", "0/2"]) for _ in range(2)]
    assert sorted(process.wait() for process in both) in ([0, 0], [0, IN_USE])
    before = read_verdicts(shared / "verdicts.1-of-2.jsonl")
    assert 0 < len(before) < NUM_TASKS
    subprocess.run(_grade(tmp_path, shared), check=True)
    subprocess.run(_grade(tmp_path, whole), check=True)
    verdicts = read_verdicts(shared / "verdicts.jsonl")
    assert sorted(verdicts, key=str) == sorted(read_verdicts(whole / "verdicts.jsonl"), key=str)
    results = json.loads((shared / "results.json").read_bytes())
    assert results["num_resumed"] >= (len(before) + NUM_TASKS) // 2
    assert results["scores"]["mbpp"]["pass@1"] == 50.0


@pytest.mark.parametrize("name", ["mbpp", "multipl_e_js", "multipl_e_php"])
def test_verdicts_agree_with_published_ones(tmp_path: Path, name: str) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there: no published verdicts")
    command = [sys.executable, str(ROOT / "benchmarks/eval_parity.py"), "--only", name]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)],
        env={**os.environ, "MIRA_EVAL_DATA": str(DATA)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _wait_for_verdicts(process: subprocess.Popen[bytes], verdicts: Path) -> None:
    while not (verdicts.exists() and verdicts.stat().st_size):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)


def _grade(folder: Path, output: Path) -> list[str]:
    command = [sys.executable, "-m", "mira_megatron.cli", "grade", str(SUITE)]
    command += ["--benchmark", "mbpp", "--predictions", str(folder / "samples.jsonl")]
    return [*command, "--data-folder", str(folder), "--output", str(output), "--workers", "2"]
