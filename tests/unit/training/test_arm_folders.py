"""Folders that are named after what decides the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_runs import folders_of, write_base, write_blend, write_checkpoint, write_cluster_run

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.training.base_weights import weights_digest
from mira_megatron.training.dense_models import QWEN25_CODER_14B, of_base
from mira_megatron.training.trained_files import (
    LATEST,
    is_trained,
    iteration_folder,
    reached_step,
)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_cluster_run(tmp_path)


def changed_section(recipe: Recipe, **section: object) -> Recipe:
    content = json.loads(recipe.path.read_text())
    content["midtrain"].update(section)
    recipe.path.write_text(json.dumps(content))
    return load_recipe(recipe.path)


def another_base(recipe: Recipe) -> Recipe:
    write_base(recipe.path.parent / "other", value=3.0)
    return changed_section(recipe, base="other")


def another_selection(recipe: Recipe) -> Recipe:
    write_blend(recipe, "early", num_train_samples=999)
    return recipe


@pytest.mark.parametrize(
    "change",
    [
        another_base,
        another_selection,
        lambda recipe: changed_section(recipe, learning_rate=1e-5),
        lambda recipe: load_recipe(recipe.path, ["seed=8"]),
        lambda recipe: changed_section(
            recipe, config="qwen25_coder_14b_midtrain_128k_8gpu_h200_bf16_config"
        ),
    ],
)
def test_what_decides_the_weights_decides_the_folders(
    recipe: Recipe, change: Callable[[Recipe], Recipe]
) -> None:
    before = folders_of(recipe, "early")
    after = folders_of(change(recipe), "early")
    assert after.checkpoints != before.checkpoints
    assert after.export != before.export
    assert after.work == before.work == recipe.run_folder / "bridge/midtrain.early"


def test_more_gpus_and_a_copy_of_the_base_go_on_in_the_same_folders(recipe: Recipe) -> None:
    before = folders_of(recipe, "early")
    shutil.copytree(recipe.path.parent / "base", recipe.path.parent / "copied")
    elsewhere = changed_section(
        recipe, base="copied", config="qwen25_coder_14b_midtrain_8gpu_h100_bf16_config"
    )
    after = folders_of(elsewhere, "early")
    assert (after.checkpoints, after.base) == (before.checkpoints, before.base)


def test_arms_share_the_imported_base_and_nothing_else(recipe: Recipe) -> None:
    early, late = folders_of(recipe, "early"), folders_of(recipe, "late")
    assert early.base == late.base
    assert early.checkpoints.parent != late.checkpoints.parent


def test_unfinished_blend_is_named(recipe: Recipe) -> None:
    (recipe.run_folder / "blends/early/manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished blend of arm early is here"):
        folders_of(recipe, "early")


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_weights_digest_sees_each_sampled_part_of_a_file(tmp_path: Path, at: float) -> None:
    folder = write_base(tmp_path / "base")
    before = weights_digest(folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] ^= 1
    path.write_bytes(content)
    assert weights_digest(folder) != before


def test_weights_digest_is_of_weights(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors files"):
        weights_digest(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="not a Hugging Face model"):
        weights_digest(folder)


def test_base_s_own_epsilon_and_yarn_are_those_trained_with(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base")
    of_folder = of_base(QWEN25_CODER_14B, folder).hf_config
    assert (of_folder["rms_norm_eps"], of_folder.get("rope_scaling")) == (1e-6, None)
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = {
        "rope_parameters": {"rope_theta": 5e6},
        "rope_scaling": scaling,
        "max_position_embeddings": 131072,
    }
    (folder / "config.json").write_text(json.dumps(config))
    of_folder = of_base(QWEN25_CODER_14B, folder).hf_config
    assert of_folder["rope_scaling"] == {
        **scaling,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": True,
    }
    assert (of_folder["rope_theta"], of_folder["max_position_embeddings"]) == (5e6, 131072)


def test_training_is_done_at_its_last_step_only(recipe: Recipe) -> None:
    folders = folders_of(recipe, "early")
    assert (reached_step(folders.checkpoints), is_trained(folders.checkpoints, 2)) == (0, False)
    write_checkpoint(folders, 1)
    (folders.checkpoints / "iter_0000002").mkdir()  # of a save that was interrupted
    assert not is_trained(folders.checkpoints, 2)
    (folders.checkpoints / LATEST).write_text("2")
    assert is_trained(folders.checkpoints, 2)
    assert iteration_folder(folders.checkpoints, 2).name == "iter_0000002"
    with pytest.raises(ValueError, match="a checkpoint of step 2, but the training has 1 steps"):
        is_trained(folders.checkpoints, 1)
    with pytest.raises(FileNotFoundError, match="iter_0000003: no such checkpoint"):
        iteration_folder(folders.checkpoints, 3)
    (folders.checkpoints / LATEST).write_text("release")
    with pytest.raises(ValueError, match="'release' is no number of steps"):
        reached_step(folders.checkpoints)
