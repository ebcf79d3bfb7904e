"""The stage `midtrain` over what a cluster trained: taken over when it is whole, else refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster_runs import CONFIG, folders_of, write_blend, write_cluster_run, write_export

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import Manifest
from mira_megatron.report.summary import training_line
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.training import midtrain
from mira_megatron.training.trained_files import TRAINED

SAMPLES = 2 * 128


def done(recipe: Recipe, arm: str = "early") -> Manifest:
    (unit,) = [unit for unit in midtrain.units(recipe) if unit.name == arm]
    return run_unit(unit, Run(folder=recipe.run_folder), Resources())


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_cluster_run(tmp_path)


def test_arm_that_is_not_trained_says_how_it_is(recipe: Recipe) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=rf"arm early has not been trained on this blend.*import, train and export.*--config "
        rf"{CONFIG} .*--arm early .*--seed 7",
    ):
        done(recipe)


def test_exported_arm_is_linked_with_what_it_was_trained_on(recipe: Recipe) -> None:
    export = write_export(recipe, "early")
    manifest = done(recipe)
    folder = recipe.run_folder / "checkpoints/early"
    assert (folder / "hf/model.safetensors").samefile(export / "model.safetensors")
    assert sorted(path.name for path in (folder / "hf").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    said = json.loads((folder / "training.json").read_text())
    assert (said["num_steps"], said["num_train_tokens"]) == (2, SAMPLES * 32768)
    assert said["identity"]["choices"]["learning_rate"] == 3e-5
    counts = manifest.counts
    assert (counts.num_in, counts.num_out) == (300, SAMPLES)
    assert counts.dropped == {"beyond_last_step": 44}
    assert training_line(recipe.run_folder, "early") == (
        f"Training: 2 steps, 8,388,608 tokens, by {CONFIG}"
    )
    assert training_line(recipe.run_folder, "late") == "Training: not done yet"


def test_another_selection_is_not_what_was_trained_on(recipe: Recipe) -> None:
    write_export(recipe, "early")
    write_blend(recipe, "early", num_train_samples=301)
    with pytest.raises(FileNotFoundError, match="has not been trained on this blend"):
        done(recipe)


def test_export_before_the_last_step_is_refused(recipe: Recipe) -> None:
    write_export(recipe, "early", num_steps=1)
    with pytest.raises(ValueError, match="is of step 1 of another training, but this one takes"):
        done(recipe)


def test_export_of_another_training_is_refused(recipe: Recipe) -> None:
    export = write_export(recipe, "early")
    other = json.loads((export / TRAINED).read_text())
    other["identity"]["data"] = "f" * 32
    (export / TRAINED).write_text(json.dumps(other))
    with pytest.raises(ValueError, match="of another training"):
        done(recipe)


@pytest.mark.parametrize("missing", [TRAINED, "model.safetensors"])
def test_interrupted_export_is_refused(recipe: Recipe, missing: str) -> None:
    export = write_export(recipe, "early")
    (export / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing}: .*interrupted.*midtrain\.py export"):
        done(recipe)


@pytest.mark.parametrize(
    ("blend", "message"),
    [
        ({"sequence_length": 8192}, "samples of 8,192 tokens, but .* trains on 32,768"),
        (
            {"eod_id": 151645},
            r"ends its documents with token 151,645, but <\|endoftext\|> is 151643",
        ),
        ({"vocab_size": 200_000}, "token ids up to 199,999, but qwen25_coder_14b has 152,064"),
        ({"num_train_samples": 127}, "its 127 samples are no global batch of 128"),
    ],
)
def test_blend_that_the_recipe_cannot_be_trained_on_is_refused(
    recipe: Recipe, blend: dict[str, int], message: str
) -> None:
    write_blend(recipe, "early", **blend)
    write_export(recipe, "early")
    with pytest.raises(ValueError, match=message):
        done(recipe)


def test_exported_again_is_taken_over_again(recipe: Recipe) -> None:
    export = write_export(recipe, "early")
    first = done(recipe)
    path = export / "model.safetensors"
    content = bytearray(path.read_bytes())
    path.unlink()  # what was taken over stays as it is
    content[-1] ^= 1
    path.write_bytes(content)
    assert done(recipe).output_digest != first.output_digest
    assert len(list((recipe.run_folder / "checkpoints").glob("early.superseded-*"))) == 1


def test_default_trainer_s_fingerprint_is_what_it_was(recipe: Recipe) -> None:
    demo = load_recipe(Path(__file__).parents[3] / "recipes/demo.yaml")
    (unit,) = midtrain.units(demo)
    named = load_recipe(demo.path, ["midtrain.trainer=megatron_core"])
    (same,) = midtrain.units(named)
    assert sorted(unit.config) == ["model", "training"]
    assert (unit.config, unit.upstream, unit.raw_files) == (same.config, same.upstream, None)
    assert folders_of(recipe, "early").export.parent.name == "midtrain.early"
