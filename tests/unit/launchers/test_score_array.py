"""The SLURM template, with an srun that says what it was told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

SCRIPT = Path(__file__).parents[3] / "launchers" / "slurm" / "score_array.sh"


def told(folder: Path, *words: str, **environment: str) -> list[str]:
    srun = folder / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    srun.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", SCRIPT, *words], capture_output=True, env={"PATH": path, **environment}, cwd=folder
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().split("\0")[:-1]


def test_every_element_is_one_worker_that_shares(tmp_path: Path) -> None:
    assert told(tmp_path, "recipes/mine.yaml", "seed=7") == [
        "--kill-on-bad-exit=0",
        *("mira", "score", "recipes/mine.yaml", "seed=7", "--share", "--workers", "1"),
    ]
    assert told(tmp_path, "mine.yaml", MIRA_STAGE="label")[1:3] == ["mira", "label"]


def test_words_reach_mira_as_they_were_given(tmp_path: Path) -> None:
    words = ["my recipes/a b.yaml", "x=$(touch gone); *", "y='\"`touch gone`"]
    assert told(tmp_path, *words)[3:-3] == words
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(("stage", "section"), [("score", "score"), ("label", "teacher")])
def test_endpoints_known_only_when_servers_run_take_the_place_of_the_recipes(
    tmp_path: Path, stage: str, section: str
) -> None:
    (tmp_path / "http:").mkdir()
    urls = "http://node1:8000/v1  http://node2:8000/v1\nhttp:*"
    words = told(tmp_path, "mine.yaml", MIRA_ENDPOINTS=urls, MIRA_STAGE=stage)
    (word,) = [word for word in words if "endpoints" in word]
    assert word == f"{section}.endpoints=[http://node1:8000/v1,http://node2:8000/v1,http:*]"
    read = OmegaConf.from_dotlist([word])
    assert list(read[section].endpoints) == urls.split()


def test_task_has_all_cpus_that_the_element_was_given(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\necho "$SRUN_CPUS_PER_TASK" "${@: -1}"\n')
    srun.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "8"}
    command = ["bash", str(SCRIPT), "mine.yaml"]
    assert subprocess.run(command, capture_output=True, env=environment).stdout == b"8 8\n"


def test_recipe_left_out_is_told(tmp_path: Path) -> None:
    result = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert "usage: sbatch" in result.stderr


@pytest.mark.parametrize("option", ["--nodes=1", "--ntasks=1", "--requeue"])
def test_options_of_slurm_come_before_the_first_command(option: str) -> None:
    head, _, _ = SCRIPT.read_text().partition("\nset -")
    assert f"\n#SBATCH {option}" in head
