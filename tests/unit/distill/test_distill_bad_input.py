"""What cannot be distilled ends in a message whose way out is then taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distill_settings import TRAINING, done, from_base, with_distill
from safetensors.torch import load_file, save_file
from tiny_base import write_base

from mira_megatron.config import Recipe
from mira_megatron.distill.scorer_card import read_card
from mira_megatron.distill.scorer_tokenizer import train_tokenizer
from mira_megatron.pipeline import STAGES, run_stages
from mira_megatron.rubric.anchor_files import read_anchors, with_version, write_anchors
from mira_megatron.stage import Resources

pytest_plugins = ("labelled_recipes", "sft_samples")
pytestmark = pytest.mark.megatron

Make = Callable[..., Recipe]

SCORER = "scorers/mira/text-notes"
# Weights of 1e30 are finite, and what the next step makes of them is not.
TOO_FAST = {**TRAINING, "learning_rate": 1e30, "warmup_iters": 0}


def own_scorer(recipe: Recipe) -> Recipe:
    """Returns the recipe, its records scored by what it distils."""
    score = {"engine": "transformers", "answer_mode": "expected", "max_tokens": 24}
    score |= {"max_failed_fraction": 1.0}  # it has learned nothing
    return replace(recipe, values={**recipe.values, "score": score})


def write_other_anchors(path: Path) -> str:
    """Replaces given anchors by others; returns their version."""
    anchors = read_anchors(path)
    other = with_version("other", [replace(anchors[0], description="else"), *anchors[1:]])
    write_anchors(path, other)
    return other[0].rubric_version


def test_distill_after_the_anchors_changed_points_to_run_which_makes_all_anew(
    labelled: Make, given_anchors_path: Path
) -> None:
    recipe = own_scorer(labelled())
    done(recipe, "sft-data", "distill")
    before = (recipe.run_folder / SCORER / "hf/model.safetensors").read_bytes()
    version = write_other_anchors(given_anchors_path)
    run_stages(recipe, ["anchor"], Resources())
    for stage in ("sft-data", "distill", "reliability", "score"):
        with pytest.raises(
            ValueError, match=r"run/teacher_ratings/mira/notes: .* changed since.*`mira run`"
        ):
            run_stages(recipe, [stage], Resources())

    run_stages(recipe, list(STAGES), Resources())
    assert read_card(recipe.run_folder / SCORER).rubric_version == version
    (kept,) = (recipe.run_folder / "scorers/mira").glob("text-notes.superseded-*")
    assert (kept / "hf/model.safetensors").read_bytes() == before


def test_score_by_a_scorer_of_other_anchors_names_its_card(
    labelled: Make, given_anchors_path: Path
) -> None:
    recipe = own_scorer(labelled())
    done(recipe, "sft-data", "distill")
    version = write_other_anchors(given_anchors_path)
    done(recipe, "anchor")
    with pytest.raises(ValueError, match=r"scorer\.json: .*`mira run`") as refusal:
        done(recipe, "score")
    assert f"{recipe.run_folder}/anchors/mira/text-notes/anchors.jsonl is version {version}" in str(
        refusal.value
    )


def test_distill_samples_of_another_tokenizer_are_refused_and_can_be_made_again(
    labelled: Make, base_folder: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(base_folder, tmp_path / "base")
    recipe = from_base(labelled(), base)
    done(recipe, "sft-data")
    train_tokenizer(["other words than those"] * 9, 520, base / "tokenizer.json")
    sft = recipe.run_folder / "sft/mira/text-notes"
    with pytest.raises(ValueError, match=rf"{sft}: made with another .*tokenizer.*delete the fold"):
        run_stages(recipe, ["distill"], Resources())
    with pytest.raises(ValueError, match=rf"{sft}/tokenizer\.json: .*another tokenizer .*{base}"):
        done(recipe, "distill")

    shutil.rmtree(sft)
    done(recipe, "sft-data", "distill")
    export = recipe.run_folder / SCORER / "hf"
    assert (export / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_distill_tokenizer_with_more_ids_than_the_base_has_rows_is_refused(
    labelled: Make, chat_tokenizer_path: Path, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "small", chat_tokenizer_path, vocab_size=200)
    recipe = from_base(labelled(), base)
    message = rf"{base}/tokenizer\.json: its token ids go up to \d+, .* 200 rows .* own tokenizer"
    with pytest.raises(ValueError, match=message):
        done(recipe, "sft-data", "distill")


def test_distill_base_of_weights_that_are_no_numbers_is_named_and_can_be_replaced(
    labelled: Make, base_folder: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(base_folder, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.inf
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    recipe = from_base(labelled(), base)
    with pytest.raises(
        ValueError, match=rf"{base}: .* infinities or NaN \(decoder\..*distill\.base"
    ):
        done(recipe, "sft-data", "distill")

    shutil.copyfile(base_folder / "model.safetensors", base / "model.safetensors")
    assert done(recipe, "distill").counts.totals["steps"] == 3


def test_distill_loss_that_is_no_number_keeps_the_last_good_checkpoint(labelled: Make) -> None:
    recipe = labelled(training=TOO_FAST)
    done(recipe, "sft-data")
    scorer = recipe.run_folder / SCORER
    last_good = scorer / ".scratch/training/step-1"
    message = (
        rf"step 2: .* is (nan|inf)\. Lower learning_rate .* last good checkpoint is {last_good}"
    )
    for _ in range(2):  # the same settings go on from there, and end as before
        with pytest.raises(ValueError, match=message):
            done(recipe, "distill")
        assert json.loads((last_good / "trainer_state.json").read_text())["global_step"] == 1
    assert not (scorer / "manifest.json").exists()

    done(with_distill(recipe), "distill")  # a lower rate
    assert json.loads((scorer / "trainer_state.json").read_text())["global_step"] == 3
    (kept,) = scorer.parent.glob("text-notes.superseded-*")
    assert (kept / ".scratch/training/step-1/weights").is_dir()
