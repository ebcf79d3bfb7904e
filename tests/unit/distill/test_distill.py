"""Scorers trained for a few steps by the real trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_settings import TRAINING, done, from_base, with_distill
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mira_megatron.config import Recipe
from mira_megatron.distill import distill
from mira_megatron.distill.chatml import CHAT_TEMPLATE, END, render
from mira_megatron.distill.scorer_card import ScorerCard, read_card
from mira_megatron.rubric.anchor_files import read_anchors
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.training.checkpoint import load_checkpoint
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.hf_config import read_hf_shape
from mira_megatron.training.hf_export import export_hf
from mira_megatron.training.process_group import megatron_process_group

pytest_plugins = ("labelled_recipes", "sft_samples")
pytestmark = pytest.mark.megatron

Make = Callable[..., Recipe]

SCORER = "scorers/mira/text-notes"
NO_STEP = {"learning_rate": 1e-30, "min_learning_rate": 0.0, "weight_decay": 0.0}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict())


def exported_again(scorer: Path, tokenizer_file: Path, folder: Path) -> bytes:
    """Returns the export's weights as made of the Megatron checkpoint beside it."""
    found = read_hf_shape(scorer / "hf")
    with megatron_process_group():
        model = build_model(found.shape, found.vocab_size)
        load_checkpoint(model, scorer / "weights")
        export_hf(
            model,
            found.shape,
            vocab_size=found.vocab_size,
            tokenizer_file=tokenizer_file,
            chat_template=CHAT_TEMPLATE,
            eos_tokens=[END],
            dtype=torch.float32,
            folder=folder,
        )
    return (folder / "model.safetensors").read_bytes()


def test_distill_from_random_weights_leaves_a_scorer_in_both_formats(
    labelled: Make, tmp_path: Path
) -> None:
    recipe = labelled()
    manifest = done(recipe, "sft-data", "distill")
    scorer, sft = recipe.run_folder / SCORER, recipe.run_folder / "sft/mira/text-notes"
    tokenizer = AutoTokenizer.from_pretrained(scorer / "hf")
    messages = [{"role": "user", "content": "The note [A1] says: 10/10"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    assert {path.name for path in scorer.iterdir()} == {
        *("hf", "weights", "scorer.json", "trainer_state.json", "manifest.json")
    }
    assert (prompt, tokenizer.eos_token) == (render(messages), END)
    assert (scorer / "hf/tokenizer.json").read_bytes() == (sft / "tokenizer.json").read_bytes()
    again = exported_again(scorer, sft / "tokenizer.json", tmp_path / "again")
    assert again == (scorer / "hf/model.safetensors").read_bytes()
    assert len(weights_of(scorer / "hf")["model.embed_tokens.weight"]) == len(tokenizer)
    state = json.loads((scorer / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry] == [0, 3]
    assert (manifest.counts.num_out, manifest.counts.totals["steps"]) == (3, 3)
    assert manifest.counts.num_in == 3 + manifest.counts.dropped.get("beyond_last_step", 0)
    assert list((recipe.run_folder / "tensorboard/mira.text-notes").iterdir())
    assert done(recipe, "distill") == manifest


def test_distill_card_says_how_the_scorer_was_trained(labelled: Make) -> None:
    recipe = labelled(max_record_tokens=80)
    done(recipe, "sft-data", "distill")
    anchors = read_anchors(recipe.run_folder / "anchors/mira/text-notes/anchors.jsonl")
    form = PromptForm(prompt="bare", references=False, answers="compact")

    assert read_card(recipe.run_folder / SCORER) == ScorerCard(
        rubric="mira",
        group="text-notes",
        family="text",
        rubric_version=anchors[0].rubric_version,
        prompt_key=score_prompt_key("text", form),
        form=form,
        max_record_tokens=80,
        max_model_len=1024,
        served_model_name="mira-mira-text-notes",
    )


def test_distill_from_a_base_begins_with_its_weights(labelled: Make, base_folder: Path) -> None:
    recipe = from_base(labelled(), base_folder, **NO_STEP)
    done(recipe, "sft-data", "distill")
    base, trained = weights_of(base_folder), weights_of(recipe.run_folder / SCORER / "hf")

    assert base.keys() == trained.keys()
    assert all(torch.equal(base[name], trained[name]) for name in base)
    assert read_card(recipe.run_folder / SCORER).max_model_len == 1024


def test_distill_in_bfloat16_trains_and_exports_bfloat16(labelled: Make, base_folder: Path) -> None:
    recipe = from_base(labelled(), base_folder, precision="bfloat16")
    done(recipe, "sft-data", "distill")
    export = recipe.run_folder / SCORER / "hf"
    trained, base = load_file(export / "model.safetensors"), weights_of(base_folder)

    assert {weight.dtype for weight in trained.values()} == {torch.bfloat16}
    name = "model.embed_tokens.weight"
    assert not torch.equal(trained[name], base[name].bfloat16())
    assert weights_of(export)[name].dtype == torch.bfloat16


def test_distill_another_base_with_the_same_tokenizer_is_another_scorer(
    labelled: Make, base_folder: Path, tmp_path: Path
) -> None:
    recipe = labelled()
    (unit,) = distill.units(from_base(recipe, base_folder))
    assert unit.raw_files is not None
    one = unit.raw_files()
    other = tmp_path / "other"
    other.mkdir()
    for path in base_folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    with (other / "model.safetensors").open("rb+") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\0")
    (unit,) = distill.units(from_base(recipe, other))
    assert unit.raw_files is not None
    assert unit.raw_files() != one


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"base": "b", "train_vocab_size": None}, r"distill: give base .* or model, not both"),
        ({"model": None}, r"distill: give base .* or model, not both"),
        ({"training": None}, r"distill\.training: expected a mapping of settings, got None"),
        ({"model": 3}, r"distill\.model: expected a mapping of settings, got 3"),
        (
            {"training": {**TRAINING, "seed": 1, "sequence_length": 64}},
            r"distill\.training: seed, sequence_length: .* Leave them out here",
        ),
        (
            {"trainer": "bridge", "base": "b", "train_vocab_size": None},
            r"distill: model, training, num_epochs: with trainer=bridge .* Leave them out",
        ),
        ({"trainer": "nemo"}, "trainer='nemo' must be one of megatron_core, bridge"),
        ({"trainer": "bridge"}, "trainer=bridge needs base"),
        ({"num_epochs": 0}, "num_epochs=0 must be at least 1"),
    ],
)
def test_distill_setting_that_cannot_be_is_refused(
    judged_recipe: Make, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        distill.units(with_distill(judged_recipe(stages=()), **section))
