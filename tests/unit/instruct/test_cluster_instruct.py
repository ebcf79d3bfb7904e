"""An arm that was tuned on a cluster, taken over; nothing here trains or needs Megatron-Bridge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from instruct_runs import write_lines
from safetensors.numpy import save_file

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.instruct import instruct_data, instruct_sft
from mira_megatron.instruct.cluster_instruct import tuned_arms
from mira_megatron.manifest import Manifest
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe
from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.instruct_data import (
    instruct_folders,
    instruct_steps,
    make_instruct_data,
)
from mira_megatron.training.trained_files import Trained, json_of

CONFIG = "qwen25_coder_1p5b_instruct_sft_8gpu_h200_bf16_config"


def write_model(folder: Path, weight: float) -> Path:
    folder.mkdir(parents=True)
    save_file({"w": np.full(4, weight, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    train_byte_level_bpe(["a question, an answer"], 300).save(str(folder / "tokenizer.json"))
    return folder


def recipe_of(folder: Path, **settings: Any) -> Recipe:
    """Returns a recipe of one arm, its base and its instructions, all lying in `folder`."""
    if not (folder / "base").is_dir():
        write_model(folder / "base", 1.0)
    question = "7 " * 1400  # together more than one batch of 2**20 tokens
    rows = [{"input": f"{question}{number}", "output": f"a{number}"} for number in range(400)]
    write_lines(folder / "chats.jsonl", rows)
    values = {
        "run_folder": str(folder / "run"),
        "seed": 5,
        "arms": {"only": {"score": "none", "scope": "group"}},
        "instruct_sft": {
            "trainer": "bridge",
            "config": CONFIG,
            "data": ["chats.jsonl"],
            "base": "base",
            "num_epochs": 3,
            **settings,
        },
    }
    (folder / "recipe.yaml").write_bytes(orjson.dumps(values))
    return load_recipe(folder / "recipe.yaml")


def tune(recipe: Recipe, *, step: int | None = None) -> ArmFolders:
    """Writes what the script leaves after its last step, or after another one."""
    (arm,) = tuned_arms(recipe)
    folders = instruct_folders(
        recipe.run_folder, arm.arm, arm.recipe, arm.base, arm.choices, arm.data, arm.num_epochs
    )
    make_instruct_data(folders, arm.data, arm.base / "tokenizer.json")
    write_model(folders.export, 2.0)
    num_steps = instruct_steps(arm.choices, folders, arm.num_epochs).num_steps
    Trained(
        identity=json_of(folders.identity),
        num_steps=num_steps if step is None else step,
        recipe=CONFIG,
        bridge="0.3.1",
    ).save(folders.export)
    return folders


def taken_over(recipe: Recipe) -> Manifest:
    (unit,) = instruct_sft.units(recipe)
    return run_unit(unit, Run(folder=recipe.run_folder), Resources())


def test_a_finished_export_is_taken_over_by_links(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    folders = tune(recipe)
    manifest = taken_over(recipe)
    folder = recipe.run_folder / layout.instruct("only")
    ours, theirs = folder / "hf" / "model.safetensors", folders.export / "model.safetensors"
    assert ours.stat().st_ino == theirs.stat().st_ino
    assert sorted(path.name for path in (folder / "hf").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    written = json.loads((folder / layout.TRAINING).read_bytes())
    assert written["recipe"] == CONFIG
    assert written["num_steps"] == manifest.counts.totals["steps"] >= 1
    assert manifest.counts.num_in == 3 * (manifest.counts.num_in // 3) > 900
    assert instruct_data.units(recipe) == []


def test_an_arm_that_was_not_tuned_says_how_it_is(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=rf"run recipes/instruct_sft\.py .*{CONFIG}"
    ) as told:
        taken_over(recipe)
    assert f"--data {tmp_path / 'chats.jsonl'}" in str(told.value)
    assert "--num-epochs 3" in str(told.value)


def test_an_export_of_an_earlier_step_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    tune(recipe, step=7)
    with pytest.raises(ValueError, match="is of step 7 of another training"):
        taken_over(recipe)


def test_an_export_that_was_interrupted_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    (tune(recipe).export / "trained.json").unlink()
    with pytest.raises(FileNotFoundError, match="the export was interrupted"):
        taken_over(recipe)


def test_the_words_that_are_printed_name_the_training_that_is_expected(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    with pytest.raises(FileNotFoundError) as told:
        taken_over(recipe)
    assert "--learning-rate" not in str(told.value)
    for rate in (1e-5, 3e-6):
        named = recipe_of(tmp_path, learning_rate=rate)
        with pytest.raises(FileNotFoundError, match=f"--learning-rate {rate!r}"):
            taken_over(named)
    # The default, said in words, is the same training.
    plain, said = (
        tuned_arms(recipe_of(tmp_path, **each))[0] for each in ({}, {"learning_rate": 1e-5})
    )
    assert plain.choices == said.choices


@pytest.mark.parametrize("settings", [{"num_epochs": 4}, {"learning_rate": 1e-6}])
def test_an_export_of_another_training_is_not_found(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    tune(recipe_of(tmp_path))
    with pytest.raises(FileNotFoundError, match="has not been tuned on these instructions"):
        taken_over(recipe_of(tmp_path, **settings))


def test_without_a_base_it_is_what_the_arms_midtrain_left(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    values = {**recipe.values, "midtrain": {"trainer": "bridge"}}
    section = {**recipe.values["instruct_sft"], "base": None}
    (tmp_path / "recipe.yaml").write_bytes(orjson.dumps({**values, "instruct_sft": section}))
    (unit,) = instruct_sft.units(load_recipe(tmp_path / "recipe.yaml"))
    assert unit.upstream == (layout.checkpoints("only"),)
    (same,) = instruct_sft.units(recipe)
    assert same.upstream == ()
