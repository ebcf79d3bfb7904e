"""A blend in the real NeMo 2.7.3: set up by Lightning's call and iterated by NeMo's own loaders.

NeMo runs in an environment of its own (`make nemo`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from blend_folders import (
    EOD,
    LEFT_OUT,
    LENGTHS,
    documents_of,
    left_out_of,
    samples,
    write_blend,
)
from bridge_tokenizers import write_tokenizer_folder
from environments import environment_python, run_probe

from mira_megatron.tokenization.megatron_datasets import build_datasets, read_blend
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.integration

WEIGHTS = [0.75, 0.1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nemo_blend")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Any]:
    """What NeMo makes of one selection, with an instruct model's tokenizer."""
    python = environment_python("nemo")
    tokenizer = write_tokenizer_folder(folder / "base", eos_token="<|im_end|>")
    assert tokenizer.token_to_id("<|endoftext|>") == EOD  # what it pads with
    blends = [
        write_blend(folder / "view", "index_view"),
        write_blend(folder / "masked", "keep_mask_dataset"),
        write_blend(folder / "weighted", "index_view", train_weights=WEIGHTS),
    ]
    words = ["base", *map(str, blends)]
    result: dict[str, Any] = run_probe(python, ["nemo_blend_probe.py"], words, folder)
    return result


@pytest.fixture(scope="module")
def ours(folder: Path, made: dict[str, Any]) -> dict[str, list[list[int]]]:
    blend = read_blend(folder / "view" / "index_view")
    with megatron_process_group():
        datasets = build_datasets(blend, seed=3, cache_folder=folder / "ours")
    return {"train": samples(datasets.train), "valid": samples(datasets.valid)}


@pytest.mark.parametrize(
    ("handover", "dataset_class"), [("view", "GPTDataset"), ("masked", "KeepMaskGPTDataset")]
)
def test_nemo_iterates_the_samples_of_the_blend(
    made: dict[str, Any], ours: dict[str, list[list[int]]], handover: str, dataset_class: str
) -> None:
    built = made[handover]
    assert built["classes"] == [dataset_class]
    assert built["train"] == ours["train"]
    assert len(built["valid"]) >= (7 // 2 + 1) * 3 * 2  # evaluations x batches x samples
    assert documents_of(built["valid"]) == documents_of(ours["valid"])
    assert built["batches"] == [[sample[:-1]] for sample in ours["train"]]
    assert built["num_validation_batches"] == len(built["valid"])
    by_source = dict(zip(LENGTHS, built["by_prefix"], strict=True))
    assert left_out_of(by_source) == {"a": set(), "b": set()}


def test_ends_of_documents_are_learned_whatever_the_model_pads_with(made: dict[str, Any]) -> None:
    assert made["view"]["losses"] == made["masked"]["losses"] == [1.0]
    assert made["stock_view"]["losses"] == [0.0, 1.0]  # NeMo's own module masks them


def test_fraction_of_the_validation_data_is_of_one_pass_over_it(
    made: dict[str, Any], ours: dict[str, list[list[int]]]
) -> None:
    assert made["whole_passes"] == ours["valid"]


def test_own_data_module_of_nemo_reads_a_view_the_same(
    made: dict[str, Any], ours: dict[str, list[list[int]]]
) -> None:
    assert made["stock_view"]["classes"] == ["GPTDataset"]
    assert made["stock_view"]["train"] == ours["train"]


def test_own_data_module_of_nemo_would_train_on_what_a_mask_leaves_out(
    made: dict[str, Any],
) -> None:
    by_source = dict(zip(LENGTHS, made["stock_masked"]["by_prefix"], strict=True))
    assert left_out_of(by_source) == LEFT_OUT
    # With our dataset class and NeMo's config it does not start.
    assert "keep_masks" in made["stock_with_our_class"][1]


def test_training_longer_than_the_blend_is_refused(made: dict[str, Any]) -> None:
    kind, message = made["too_long"]
    assert kind == "ValueError"
    assert "are 16, but the blend of arm 'group' has 14. Train for at most 7 steps" in message


def test_weights_of_the_blend_reach_nemo(made: dict[str, Any], folder: Path) -> None:
    train = [str(folder / "weighted" / "index_view" / name) for name in LENGTHS]
    assert made["weighted"][0] == [train, WEIGHTS]
    assert made["weighted"][1][1] == [2.0, 2.0]  # samples of each held-out prefix
