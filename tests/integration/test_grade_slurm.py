"""launchers/slurm/grade_array.sh on a real SLURM: shards that one command puts together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doubling_tasks import write_doubling
from slurm_cluster import SlurmCluster

from mira_megatron.eval.sandbox.best import best_sandbox

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launchers/slurm/grade_array.sh"
# `mira`, as an activated environment has it on PATH.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
NUM_TASKS = 10


def test_array_grades_what_one_process_does(slurm: SlurmCluster, tmp_path: Path) -> None:
    try:
        best_sandbox()
    except ValueError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    write_doubling(tmp_path, NUM_TASKS)
    output = tmp_path / "graded"
    words = [str(ROOT / "eval/suites/mira9.yaml"), "--benchmark", "mbpp"]
    words += ["--predictions", str(tmp_path / "samples.jsonl"), "--data-folder", str(tmp_path)]
    words += ["--output", str(output)]
    log = f"--output={slurm.folder}/%A_%a.log"
    job = slurm.submit("--array=0-2", log, "--chdir=/", SCRIPT, *words, PATH=PATH)
    states = slurm.wait(job)
    said = [path.read_text() for path in sorted(slurm.folder.glob(f"{job}_*.log"))]
    assert states == {f"{job}_{number}": "COMPLETED" for number in range(3)}, said
    shards = [output / f"verdicts.{number}-of-3.jsonl" for number in range(3)]
    assert [len(path.read_bytes().splitlines()) for path in shards] == [8, 6, 6]
    command = [sys.executable, "-m", "mira_megatron.cli", "grade", *words]
    subprocess.run(command, check=True)
    results = json.loads((output / "results.json").read_bytes())
    assert (results["num_resumed"], results["num_run"]) == (NUM_TASKS, 0)
    assert results["scores"]["mbpp_plus"]["pass@1"] == 50.0
