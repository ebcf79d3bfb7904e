"""A blend in the real Megatron-Bridge 0.3.1: its own way from config to data loader, our samples.

Bridge runs in an environment of its own (`make bridge`), with stand-ins for what needs CUDA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from blend_folders import (
    LEFT_OUT,
    LENGTHS,
    ONE_PASS,
    SEQUENCE_LENGTH,
    documents_of,
    left_out_of,
    samples,
    write_blend,
)
from environments import environment_python, run_probe

from mira_megatron.tokenization.megatron_datasets import build_datasets, read_blend
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.integration

GLOBAL_BATCH = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bridge_blend")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Any]:
    """What Bridge makes of one selection, as index views and as keep masks."""
    python = environment_python("bridge")
    blends = [
        str(write_blend(folder / handover, handover))
        for handover in ("index_view", "keep_mask_dataset")
    ]
    probe = ["bridge_stand_ins.py", "bridge_blend_probe.py"]
    result: dict[str, Any] = run_probe(python, probe, blends, folder)
    return result


@pytest.fixture(scope="module")
def ours(folder: Path, made: dict[str, Any]) -> dict[str, list[list[int]]]:
    blend = read_blend(folder / "index_view" / "index_view")
    with megatron_process_group():
        datasets = build_datasets(blend, seed=3, cache_folder=folder / "ours")
    return {"train": samples(datasets.train), "valid": samples(datasets.valid)}


@pytest.mark.parametrize(
    ("way", "dataset_class"),
    [("provider_view", "GPTDataset"), ("provider_masked", "KeepMaskGPTDataset")],
)
def test_provider_gives_bridge_the_datasets_of_the_blend(
    made: dict[str, Any], ours: dict[str, list[list[int]]], way: str, dataset_class: str
) -> None:
    built = made[way]
    assert built["classes"] == [dataset_class]
    assert built["train"] == ours["train"]
    assert built["first_batch"] == [sample[:-1] for sample in ours["train"][:2]]
    assert (built["iterations"], built["sequence_length"]) == (
        ONE_PASS // GLOBAL_BATCH,
        SEQUENCE_LENGTH,
    )


def test_evaluation_in_bridge_is_as_long_as_it_asks_and_starts_again(
    made: dict[str, Any], ours: dict[str, list[list[int]]]
) -> None:
    built = made["provider_masked"]
    _, num_valid, num_test = built["asked"]
    assert num_valid > len(ours["valid"])
    assert built["valid"] == ours["valid"] * (num_valid // len(ours["valid"]))
    assert built["num_test"] == num_test


def test_own_dataset_config_of_bridge_reads_a_view_the_same(
    made: dict[str, Any], ours: dict[str, list[list[int]]]
) -> None:
    built = made["gpt_view"]
    assert built["asked"][0] == GLOBAL_BATCH
    assert built["train"] == ours["train"][:GLOBAL_BATCH]
    assert len(built["valid"]) >= built["asked"][1] > len(ours["valid"])
    assert documents_of(built["valid"]) == documents_of(ours["valid"])


def test_config_that_is_a_provider_too_loses_its_masks_where_bridge_goes_by_kind(
    made: dict[str, Any],
) -> None:
    traps = made["traps"]
    by_source = dict(zip(LENGTHS, traps["by_prefix_in_0_6_0"], strict=True))
    assert traps["classes_in_0_6_0"] == ["GPTDataset"]
    assert left_out_of(by_source) == LEFT_OUT  # every one of them is trained on
    masked = dict(zip(LENGTHS, made["provider_masked"]["by_prefix"], strict=True))
    assert left_out_of(masked) == {"a": set(), "b": set()}


def test_configs_that_lose_masks_are_refused_in_time(made: dict[str, Any]) -> None:
    traps = made["traps"]
    assert traps["subclassed"][0] == "KeyError"  # 0.3.1 knows exact types only
    assert traps["asked_by_0_3_1"][0] == "NotImplementedError"  # and asks a provider first
    for refused in (traps["refused_both"], traps["refused_subclassed"]):
        assert refused[0] == "TypeError"
        assert "trains on every document. Use BlendDatasetProvider" in refused[1]
    assert traps["refused_ours"] is None
    assert "GPTDatasetConfig knows no keep masks" in traps["refused_masked"][1]


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ("refused_seed", ("rng.seed=4, but dataset.seed=3", "call use_blend last")),
        ("refused_length", ("model.seq_length=16", "has samples of 8 tokens")),
        ("refused_vocabulary", ("1,000,000 tokens", "the training's has 50,304")),
    ],
)
def test_what_is_changed_after_use_blend_is_refused_with_both_values(
    made: dict[str, Any], change: str, messages: tuple[str, str]
) -> None:
    kind, message = made["traps"][change]
    assert kind == "ValueError"
    assert all(words in message for words in messages)
    assert made["traps"]["unchanged"] is None


def test_container_is_no_part_of_what_bridge_writes_of_the_provider(made: dict[str, Any]) -> None:
    written = made["traps"]["written_of_dataset"]
    assert {"blend_folder", "cache_folder", "seed"} <= set(written)
    assert not [name for name in written if "container" in name]


def test_blend_smaller_than_a_global_batch_is_refused(made: dict[str, Any]) -> None:
    kind, message = made["traps"]["refused_batch"]
    assert kind == "ValueError"
    assert "its 14 samples are no global batch of 15" in message
