"""The SLURM template, with an srun that says what it was told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

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
        "--kill-on-bad-exit=1",
        *("mira", "score", "recipes/mine.yaml", "seed=7", "--share"),
    ]
    assert told(tmp_path, "mine.yaml", MIRA_STAGE="label")[1:3] == ["mira", "label"]


def test_words_reach_mira_as_they_were_given(tmp_path: Path) -> None:
    words = ["my recipes/a b.yaml", "x=$(touch gone); *", "y='\"`touch gone`"]
    assert told(tmp_path, *words)[3:-1] == words
    assert not (tmp_path / "gone").exists()


def test_recipe_left_out_is_told(tmp_path: Path) -> None:
    result = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert "usage: sbatch" in result.stderr


@pytest.mark.parametrize("option", ["--nodes=1", "--ntasks=1", "--requeue"])
def test_options_of_slurm_come_before_the_first_command(option: str) -> None:
    head, _, _ = SCRIPT.read_text().partition("\nset -")
    assert f"\n#SBATCH {option}" in head
