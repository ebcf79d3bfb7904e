"""recipes/midtrain.py in the real Megatron-Bridge 0.3.1: what it says and does without a GPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import (
    folders_of,
    write_checkpoint,
    write_cluster_run,
)
from environments import environment_python, run_probe

from mira_megatron.config import Recipe
from mira_megatron.training.training_commands import NOT_FINISHED, training_commands

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
LEARNING_RATE = 2e-5


@pytest.fixture(scope="module")
def bridge_python() -> Path:
    return environment_python("bridge")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_cluster_run(tmp_path, learning_rate=LEARNING_RATE)


def ended(python: Path, words: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a training script of ours as a job does, with stand-ins for what needs CUDA."""
    return subprocess.run(
        [str(python), str(HERE / "bridge_stand_ins.py"), *words],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_export_before_the_last_step_asks_to_be_run_again_and_training_after_it_is_done(
    bridge_python: Path, recipe: Recipe, tmp_path: Path
) -> None:
    commands = training_commands(recipe, "midtrain", "early")[0]
    folders = folders_of(recipe, "early")
    write_checkpoint(folders, 1)
    (folders.checkpoints / "iter_0000002").mkdir()  # of a save that was interrupted
    stopped = ended(bridge_python, commands.finish[0][1:], tmp_path)
    assert stopped.returncode == NOT_FINISHED, stopped.stderr[-2000:]
    assert not folders.export.exists()

    write_checkpoint(folders_of(recipe, "late"), 2)
    (late,) = training_commands(recipe, "midtrain", "late")
    trained = ended(bridge_python, late.train, tmp_path)
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert [path.name for path in folders_of(recipe, "late").work.iterdir()] == [
        folders_of(recipe, "late").checkpoints.name
    ]


def test_base_of_other_sizes_is_not_imported(
    bridge_python: Path, recipe: Recipe, tmp_path: Path
) -> None:
    commands = training_commands(recipe, "midtrain", "early")[0]
    refused = ended(bridge_python, commands.prepare[0][1:], tmp_path)
    assert refused.returncode == 1
    assert "architectures=None, but qwen25_coder_14b is ['Qwen2ForCausalLM']" in refused.stderr


def test_arm_s_config_has_the_blend_s_steps_and_the_arm_s_folders(
    bridge_python: Path, recipe: Recipe, tmp_path: Path
) -> None:
    folders = folders_of(recipe, "early")
    folders.base.mkdir(parents=True)
    words = [str(recipe.run_folder), str(recipe.path.parent / "base"), str(LEARNING_RATE)]
    probe = ["bridge_stand_ins.py", "bridge_probe.py"]
    built: dict[str, Any] = run_probe(bridge_python, probe, ["arm", *words], tmp_path)
    assert built["steps"] == [2, 2, 0]  # 300 samples are two batches of 128
    assert built["learning_rate"] == pytest.approx([LEARNING_RATE, LEARNING_RATE / 10])
    assert built["epsilon"] == 1e-6  # the base's own; the recipe's is 1e-5
    assert built["blend"] == str(recipe.run_folder / "blends/early")
    assert built["checkpoint"] == [
        str(folders.checkpoints),
        str(folders.checkpoints),
        str(folders.base),
    ]
    assert built["seeds"] == [7, 7]
