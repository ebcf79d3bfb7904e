"""The SLURM template for grading, with an srun that says what it was told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mira_megatron.cli_parser import command_parser
from mira_megatron.eval.grade_shards import shard_of_words

SCRIPT = Path(__file__).parents[3] / "launchers" / "slurm" / "grade_array.sh"
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "7",
    "SLURM_ARRAY_TASK_COUNT": "8",
}


def ended(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    srun = folder / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    srun.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", SCRIPT, *words],
        capture_output=True,
        env={"PATH": path, **environment},
        cwd=folder,
        check=False,
    )


def told(folder: Path, *words: str, **environment: str) -> list[str]:
    result = ended(folder, *words, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().split("\0")[:-1]


def test_every_element_grades_its_shard_with_all_its_cpus(tmp_path: Path) -> None:
    words = ["suite.yaml", "--benchmark", "mbpp", "--predictions", "p", "--output", "o"]
    said = told(tmp_path, *words, **ARRAY, SLURM_CPUS_PER_TASK="16")
    assert said == ["mira", "grade", *words, "--shard", "3/8", "--workers", "16"]
    arguments = command_parser().parse_args(said[1:])
    assert shard_of_words(arguments.shard).file_name == "verdicts.3-of-8.jsonl"


def test_words_reach_mira_as_they_were_given(tmp_path: Path) -> None:
    words = ["my suites/a b.yaml", "--output", "x=$(touch gone); *", "y='\"`touch gone`"]
    assert told(tmp_path, *words, **ARRAY)[2:-4] == words
    assert not (tmp_path / "gone").exists()


def test_some_elements_again_are_told_how_many_there_were(tmp_path: Path) -> None:
    some = {**ARRAY, "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "2"}
    assert ended(tmp_path, "suite.yaml", **some).returncode == 2
    said = told(tmp_path, "suite.yaml", **some, MIRA_NUM_SHARDS="8")
    assert said[said.index("--shard") + 1] == "3/8"


@pytest.mark.parametrize(
    "array",
    [
        {},
        {**ARRAY, "SLURM_ARRAY_TASK_MIN": "1"},
        {**ARRAY, "SLURM_ARRAY_TASK_COUNT": "4"},
    ],
)
def test_array_that_leaves_tasks_out_is_refused(tmp_path: Path, array: dict[str, str]) -> None:
    result = ended(tmp_path, "suite.yaml", **array)
    assert result.returncode == 2
    assert b"expected --array=0-LAST" in result.stderr


def test_containers_are_shared_out_in_the_same_way(tmp_path: Path) -> None:
    words = ["rows.jsonl", "--gold", "--logs", "l", "--engine", "apptainer"]
    said = told(tmp_path, *words, **ARRAY, MIRA_WORDS="swe run")
    assert said[:3] == ["mira", "swe", "run"]
    assert command_parser().parse_args(said[1:]).shard == "3/8"


def test_suite_left_out_is_told(tmp_path: Path) -> None:
    result = ended(tmp_path)
    assert result.returncode == 2
    assert b"usage: sbatch" in result.stderr


@pytest.mark.parametrize("option", ["--nodes=1", "--ntasks=1", "--requeue"])
def test_options_of_slurm_come_before_the_first_command(option: str) -> None:
    head, _, _ = SCRIPT.read_text().partition("\nset -")
    assert f"\n#SBATCH {option}" in head
