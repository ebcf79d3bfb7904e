"""Megatron-LM's dataset provider, on Megatron's own builder, for every hand-over of a selection."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blend_folders import (
    HELD_OUT,
    LENGTHS,
    ONE_PASS,
    VOCAB_SIZE,
    left_out_of,
    samples,
    write_blend,
)
from token_datasets import one_process

from mira_megatron.tokenization.keep_mask_dataset import KeepMaskGPTDataset
from mira_megatron.tokenization.megatron_datasets import (
    build_datasets,
    prefix_datasets,
    read_blend,
)
from mira_megatron.tokenization.megatron_lm_provider import datasets_provider
from mira_megatron.tokenization.trainer_datasets import require_class
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.megatron


def megatron_arguments(folder: Path, **changes: Any) -> SimpleNamespace:
    """Returns what Megatron-LM 0.16.1 parses of a short command line."""
    defaults: dict[str, Any] = {
        "seed": 3,
        "seq_length": 8,
        "data_cache_path": str(folder / "cache"),
        "padded_vocab_size": VOCAB_SIZE + 64,
        "num_dataset_builder_threads": 1,
        "mmap_bin_files": True,
        "reset_position_ids": False,
        "reset_attention_mask": False,
        "eod_mask_loss": False,
        "create_attention_mask_in_dataloader": False,
        "mid_level_dataset_surplus": 0.005,
        "dataloader_fast_cache_load": False,
        "dataloader_defer_npy_index_mmap": False,
        "per_dataset_sequences_path": None,
        "data_path": None,
        "split": None,
        "mock_data": False,
    }
    return SimpleNamespace(**{**defaults, **changes})


def provided(blend_folder: Path, sizes: list[int | None], **changes: Any) -> tuple[Any, Any, Any]:
    arguments = megatron_arguments(blend_folder.parent, **changes)
    with one_process():
        return datasets_provider(blend_folder, arguments=arguments)(sizes)


@pytest.mark.parametrize("handover", ["index_view", "physical_copy", "keep_mask_dataset"])
def test_provider_trains_on_the_datasets_that_were_verified(tmp_path: Path, handover: str) -> None:
    folder = write_blend(tmp_path, handover)
    train, valid, test = provided(folder, [ONE_PASS, 4, 4])
    cached = sorted((tmp_path / "cache").iterdir())
    with one_process():
        ours = build_datasets(read_blend(folder), seed=3, cache_folder=tmp_path / "cache")
    assert samples(train) == samples(ours.train)
    assert samples(valid) == samples(test) == samples(ours.valid)
    assert sorted((tmp_path / "cache").iterdir()) == cached  # ours found theirs


def test_provider_reads_keep_masks_with_the_class_that_knows_them(tmp_path: Path) -> None:
    train, _, _ = provided(write_blend(tmp_path, "keep_mask_dataset"), [ONE_PASS, 4, 4])
    assert {type(dataset) for dataset in prefix_datasets(train)} == {KeepMaskGPTDataset}
    by_source = zip(LENGTHS, map(samples, prefix_datasets(train)), strict=True)
    assert left_out_of(dict(by_source)) == {"a": set(), "b": set()}


def test_prefix_that_another_class_reads_is_refused_by_name(tmp_path: Path) -> None:
    train, _, _ = provided(write_blend(tmp_path, "index_view"), [ONE_PASS, 4, 4])
    with pytest.raises(TypeError, match=r"a: is read by GPTDataset, not by KeepMaskGPTDataset"):
        require_class(train, KeepMaskGPTDataset)


def test_provider_builds_where_megatron_has_its_parallel_groups(tmp_path: Path) -> None:
    provider = datasets_provider(
        write_blend(tmp_path, "index_view"), arguments=megatron_arguments(tmp_path)
    )
    with megatron_process_group():
        train, valid, test = provider([ONE_PASS, 4, 4], vp_stage=None)
    assert (len(train), len(valid), len(test)) == (ONE_PASS, 4, 4)


def test_provider_has_the_form_that_pretrain_asks_for(tmp_path: Path) -> None:
    provider: Any = datasets_provider(tmp_path)
    assert provider.is_distributed is True
    assert list(inspect.signature(provider).parameters) == [
        "train_val_test_num_samples",
        "vp_stage",
    ]


def test_provider_refuses_a_second_pass(tmp_path: Path) -> None:
    folder = write_blend(tmp_path, "index_view")
    with pytest.raises(ValueError, match=r"15 training samples are asked .* holds 14 of 8 tokens"):
        provided(folder, [ONE_PASS + 1, 4, 4])


def test_provider_gives_the_first_of_the_same_samples_to_a_shorter_training(
    tmp_path: Path,
) -> None:
    folder = write_blend(tmp_path, "index_view")
    whole, _, _ = provided(folder, [ONE_PASS, 4, 4])
    shorter, _, _ = provided(folder, [5, 4, 4])
    assert samples(shorter)[:5] == samples(whole)[:5]


def test_evaluation_starts_again_where_the_held_out_documents_end(tmp_path: Path) -> None:
    _, valid, test = provided(write_blend(tmp_path, "index_view"), [ONE_PASS, 9, 0])
    assert len(valid) == 9
    once = samples(valid)[:4]
    assert samples(valid) == [*once, *once, *once[:1]]
    assert samples(test) == once
    with pytest.raises(IndexError, match="sample 9 of 9"):
        valid[9]


@pytest.mark.parametrize("handover", ["index_view", "keep_mask_dataset"])
def test_another_sequence_length_reads_the_same_documents_and_is_counted_anew(
    tmp_path: Path, handover: str
) -> None:
    folder = write_blend(tmp_path, handover)
    train, _, _ = provided(folder, [49 // 16 + 70 // 16, 1, 1], seq_length=16)
    assert len(train) == 49 // 16 + 70 // 16
    assert len(samples(train)[0]) == 16 + 1
    with pytest.raises(ValueError, match="holds 7 of 16 tokens"):
        provided(folder, [ONE_PASS, 1, 1], seq_length=16)


@pytest.mark.parametrize("handover", ["index_view", "keep_mask_dataset"])
def test_prefix_without_a_sample_of_another_length_is_refused_by_name(
    tmp_path: Path, handover: str
) -> None:
    folder = write_blend(tmp_path, handover)
    message = r"a: its 50 tokens fill no sample of 50\. Blend again"
    with pytest.raises(ValueError, match=message):
        provided(folder, [1, 1, 1], seq_length=50)


def test_weights_of_the_blend_are_drawn_by(tmp_path: Path) -> None:
    changes = {"train_weights": [0.75, 0.25], "num_train_samples": 40}
    folder = write_blend(tmp_path, "index_view", **changes)
    train, _, _ = provided(folder, [40, 4, 4])
    with one_process():
        ours = build_datasets(read_blend(folder), seed=3, cache_folder=tmp_path / "ours")
    assert samples(train) == samples(ours.train)
    from_a = sum(int(train[at]["dataset_id"]) == 0 for at in range(40))
    assert from_a == pytest.approx(30, abs=1)
    with pytest.raises(ValueError, match=r"41 training samples are asked for, .* holds 40"):
        provided(folder, [41, 4, 4])


@pytest.mark.parametrize("wanted", [7, None])
def test_weighted_blend_at_another_length_is_one_pass_of_that_length(
    tmp_path: Path, wanted: int | None
) -> None:
    folder = write_blend(tmp_path, "index_view", train_weights=[0.75, 0.25], num_train_samples=14)
    train, _, _ = provided(folder, [wanted, 1, 1], seq_length=16)
    assert len(train) - (49 // 16 + 70 // 16) in (0, 1)  # each prefix is rounded up
    with pytest.raises(ValueError, match=r"8 training samples are asked for, .* holds 7 of 16"):
        provided(folder, [8, 1, 1], seq_length=16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_path": ["/x"]}, "--data-path chooses data, and so does the blend"),
        ({"split": "969, 30, 1"}, "--split chooses data"),
        ({"mock_data": True}, "--mock-data chooses data"),
        ({"data_cache_path": None}, "--data-cache-path is not given"),
        ({"padded_vocab_size": 50_304}, r"1,000,000 tokens, .* embeddings have 50,304"),
    ],
)
def test_arguments_that_contradict_the_blend_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_blend(tmp_path, "index_view")
    with pytest.raises(ValueError, match=message):
        provided(folder, [ONE_PASS, 4, 4], **changes)


def test_provider_passes_on_how_megatron_is_told_to_load(tmp_path: Path) -> None:
    folder = write_blend(tmp_path, "keep_mask_dataset")
    first = provided(folder, [ONE_PASS, 4, 4])
    counts = {
        str(tmp_path / name): [len(lengths), len(lengths) + 1]
        for name, lengths in {**LENGTHS, **HELD_OUT}.items()
    }
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    fast = provided(
        folder,
        [ONE_PASS, 4, 4],
        dataloader_fast_cache_load=True,
        per_dataset_sequences_path=str(tmp_path / "counts.json"),
        reset_position_ids=True,
    )
    assert [samples(dataset) for dataset in fast] == [samples(dataset) for dataset in first]
    config = prefix_datasets(fast[0])[0].config
    assert config.reset_position_ids
    assert config.sequences_per_dataset == counts
