"""Taking over what was trained on a cluster: an export as transformers writes it stands for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from distill_settings import done, with_distill
from tiny_base import write_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from mira_megatron.config import Recipe
from mira_megatron.distill.chatml import END, render
from mira_megatron.distill.scorer_card import read_card
from mira_megatron.distill.scorer_tokenizer import train_tokenizer
from mira_megatron.training.bridge_group import GroupFolders

pytest_plugins = ("labelled_recipes", "sft_samples")

Make = Callable[..., Recipe]

SCORER = "scorers/mira/text-notes"


@pytest.fixture
def on_a_cluster(labelled: Make, base_folder: Path) -> Recipe:
    """A recipe whose samples are there, and whose scorer is trained elsewhere."""
    recipe = with_distill(
        labelled(),
        trainer="bridge",
        base=str(base_folder),
        train_vocab_size=None,
        model=None,
        training=None,
        num_epochs=None,
    )
    done(recipe, "sft-data")
    return recipe


def folders(recipe: Recipe) -> GroupFolders:
    return GroupFolders(run_folder=recipe.run_folder, rubric="mira", group="text-notes")


def exported(recipe: Recipe, base: Path) -> Path:
    """Returns the export, which holds what the base holds."""
    return shutil.copytree(base, folders(recipe).export)


def test_bridge_scorer_that_is_not_exported_says_how_to_train_it(on_a_cluster: Recipe) -> None:
    export = folders(on_a_cluster).export
    with pytest.raises(
        FileNotFoundError,
        match=rf"{export}: .*not been trained .*recipes/scorer_sft\.py import, train and export.*"
        r"--rubric mira --group text-notes",
    ):
        done(on_a_cluster, "distill")
    assert not (on_a_cluster.run_folder / SCORER).exists()


def test_bridge_scorer_is_linked_and_asked_as_it_was_trained(
    on_a_cluster: Recipe, base_folder: Path
) -> None:
    export = exported(on_a_cluster, base_folder)
    done(on_a_cluster, "distill")
    scorer = on_a_cluster.run_folder / SCORER
    tokenizer = AutoTokenizer.from_pretrained(scorer / "hf")
    messages = [{"role": "user", "content": "The note says: 7/10"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    model = AutoModelForCausalLM.from_pretrained(scorer / "hf")

    assert (prompt, tokenizer.eos_token) == (render(messages), END)
    assert model.generation_config.eos_token_id == [tokenizer.convert_tokens_to_ids(END)]
    assert (scorer / "hf/model.safetensors").samefile(export / "model.safetensors")
    assert (scorer / "hf/config.json").read_bytes() == (export / "config.json").read_bytes()
    assert not (scorer / "hf/chat_template.jinja").exists()  # the base's, which would win
    card = read_card(scorer)
    assert (card.max_model_len, card.served_model_name) == (1024, "mira-mira-text-notes")


def test_bridge_scorer_exported_again_is_taken_over_again(
    on_a_cluster: Recipe, base_folder: Path
) -> None:
    export = exported(on_a_cluster, base_folder)
    first = done(on_a_cluster, "distill")
    weights = (export / "model.safetensors").read_bytes()
    (export / "model.safetensors").unlink()
    (export / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    assert done(on_a_cluster, "distill").output_digest != first.output_digest
    (kept,) = (on_a_cluster.run_folder / "scorers/mira").glob("text-notes.superseded-*")
    assert (kept / "hf/model.safetensors").read_bytes() == weights


def test_bridge_scorer_with_another_tokenizer_is_refused(
    on_a_cluster: Recipe, tmp_path: Path
) -> None:
    train_tokenizer(["other words than those"] * 9, 520, tmp_path / "tokenizer.json")
    other = write_base(tmp_path / "other", tmp_path / "tokenizer.json")
    export = exported(on_a_cluster, other)
    with pytest.raises(
        ValueError, match=rf"{export}/tokenizer\.json: not the tokenizer .*distill\.b"
    ):
        done(on_a_cluster, "distill")
    (export / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=rf"{export}/tokenizer\.json: not the tokenizer"):
        done(on_a_cluster, "distill")


def test_bridge_scorer_of_earlier_samples_is_not_taken(
    on_a_cluster: Recipe, base_folder: Path
) -> None:
    before = exported(on_a_cluster, base_folder)
    shutil.rmtree(on_a_cluster.run_folder / "sft")
    longer = {**on_a_cluster.values["distill"], "validation_fraction": 0.3}
    recipe = replace(on_a_cluster, values={**on_a_cluster.values, "distill": longer})
    done(recipe, "sft-data")
    assert folders(recipe).export != before
    with pytest.raises(FileNotFoundError, match=f"{folders(recipe).export}: .*train"):
        done(recipe, "distill")


def test_bridge_scorer_whose_export_was_interrupted_is_refused(
    on_a_cluster: Recipe, base_folder: Path
) -> None:
    export = exported(on_a_cluster, base_folder)
    weights = export / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"{weights}: cut short .* Delete the folder and run"):
        done(on_a_cluster, "distill")
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    weights.rename(export / first)
    index = {"weight_map": {"a": first, "b": second}}
    (export / "model.safetensors.index.json").write_text(json.dumps(index))
    (export / first).write_bytes(whole)
    with pytest.raises(FileNotFoundError, match=rf"{export / second}: no such file: the export"):
        done(on_a_cluster, "distill")
    (export / second).write_bytes(whole)
    assert done(on_a_cluster, "distill").counts.num_in == 3


def test_bridge_scorer_of_a_wrapped_model_is_refused(
    on_a_cluster: Recipe, base_folder: Path
) -> None:
    config = exported(on_a_cluster, base_folder) / "config.json"
    values = json.loads(config.read_text())
    text_config = {"max_position_embeddings": values.pop("max_position_embeddings")}
    config.write_text(json.dumps({**values, "text_config": text_config}))
    with pytest.raises(ValueError, match=rf"{config}: max_position_embeddings=None .*text model"):
        done(on_a_cluster, "distill")
