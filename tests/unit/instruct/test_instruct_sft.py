"""Arms tuned on the same conversations, each from its own weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from instruct_runs import ARMS, PAIRS, SHAPE, make_data, recipe_of, write_checkpoint
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.distill.chatml import END, START
from mira_megatron.instruct import instruct_sft
from mira_megatron.manifest import Manifest
from mira_megatron.pipeline import stage_units
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.training.checkpoint import load_checkpoint
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.megatron


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, Manifest]]:
    """A run whose two arms are tuned, and their manifests."""
    recipe = recipe_of(tmp_path_factory.mktemp("tuned"))
    make_data(recipe)
    for arm in ARMS:
        write_checkpoint(recipe, arm)
    run = Run(folder=recipe.run_folder)
    units = instruct_sft.units(recipe)
    return recipe, {unit.name: run_unit(unit, run, Resources()) for unit in units}


def log_of(recipe: Recipe, arm: str) -> list[dict[str, Any]]:
    state = json.loads(
        (recipe.run_folder / layout.instruct(arm) / "trainer_state.json").read_text()
    )
    log: list[dict[str, Any]] = state["log_history"]
    return log


def test_arms_have_the_same_data_and_settings_and_other_weights(
    tuned: tuple[Recipe, dict[str, Manifest]],
) -> None:
    _, manifests = tuned
    first, second = (manifests[arm] for arm in ARMS)
    assert first.inputs[layout.INSTRUCT_DATA] == second.inputs[layout.INSTRUCT_DATA]
    assert first.config == second.config
    assert first.inputs[layout.checkpoints("first")] != second.inputs[layout.checkpoints("second")]
    assert first.counts.totals["tokens"] == second.counts.totals["tokens"]
    assert first.output_digest != second.output_digest


def test_tuning_starts_from_the_arms_weights(tuned: tuple[Recipe, dict[str, Manifest]]) -> None:
    recipe, _ = tuned
    losses = {arm: log_of(recipe, arm)[0]["eval_loss"] for arm in ARMS}
    assert log_of(recipe, "first")[0]["step"] == 0
    # Small random weights know nothing: log(300) is 5.70. These large ones are wrong, each its way.
    assert abs(losses["first"] - losses["second"]) > 0.01
    assert all(loss > 6.5 for loss in losses.values())
    assert log_of(recipe, "first")[-1]["eval_loss"] < losses["first"]


def test_export_gives_the_logits_of_the_megatron_model_and_its_chat(
    tuned: tuple[Recipe, dict[str, Manifest]],
) -> None:
    recipe, _ = tuned
    folder = recipe.run_folder / layout.instruct("first")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / layout.HF_EXPORT)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder / layout.HF_EXPORT)
    theirs.eval()
    question = PAIRS[0][0]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    assert text == f"{START}user\n{question}{END}\n{START}assistant\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    plain = Tokenizer.from_file(str(recipe.run_folder / layout.TOKENIZER / "tokenizer.json"))
    assert ids == plain.encode(text, add_special_tokens=False).ids
    assert theirs.generation_config.eos_token_id == [plain.token_to_id(END)]
    tokens_BS = torch.tensor([ids])
    with megatron_process_group(), torch.no_grad():
        ours = build_model(SHAPE, theirs.config.vocab_size)
        ours.train(False)
        load_checkpoint(ours, folder / layout.WEIGHTS)
        every_row = ours(tokens_BS, torch.arange(len(ids))[None], None)
    found = theirs(tokens_BS).logits
    assert found.std() > 0.1
    expected = every_row[..., : plain.get_vocab_size()]  # the rest is padding
    torch.testing.assert_close(found.detach(), expected, atol=1e-4, rtol=0)


def test_samples_longer_than_the_model_are_refused_with_the_way_out(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, arms=["only"], sequence_length=128)
    make_data(recipe)
    write_checkpoint(recipe, "only")
    (unit,) = instruct_sft.units(recipe)
    with pytest.raises(
        ValueError, match=r"sequence_length=128 exceeds the 64 tokens that midtrain"
    ):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def test_weights_that_changed_are_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, arms=["only"])
    make_data(recipe)
    write_checkpoint(recipe, "only")
    part = recipe.run_folder / layout.checkpoints("only") / layout.WEIGHTS / "__0_0.distcp"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    (unit,) = instruct_sft.units(recipe)
    with pytest.raises(ValueError, match=r"__0_0\.distcp: this part's bytes changed"):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def test_stages_are_left_out_without_the_section(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    values = {name: value for name, value in recipe.values.items() if name != "instruct_sft"}
    without = replace(recipe, values=values)
    assert stage_units(without, "instruct-data") == stage_units(without, "instruct-sft") == []
    assert [unit.name for unit in stage_units(recipe, "instruct-sft")] == list(ARMS)
