"""Documents that a pass shows several times: the same samples however Megatron gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from megatron.core.datasets.utils import Split
from token_datasets import DOCUMENT_STRIDE, VOCAB_SIZE, blend

from mira_megatron.retention.keep_masks import KeepMask, read_keep_mask, write_keep_mask
from mira_megatron.tokenization.handovers import (
    selected_sequences,
    write_index_view,
    write_physical_copy,
)
from mira_megatron.tokenization.index_file import bin_path, idx_path, index_fingerprint, read_index
from mira_megatron.tokenization.keep_mask_dataset import (
    KeepMaskGPTDataset,
    KeepMaskGPTDatasetConfig,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer, build_datasets

pytestmark = pytest.mark.megatron

# Sequences of each document, and how often it is read.
DOCUMENTS = st.lists(
    st.tuples(st.lists(st.integers(1, 7), max_size=3), st.integers(0, 4)), min_size=1, max_size=25
).filter(lambda documents: sum(sum(lengths) * times for lengths, times in documents) > 8)


def write_documents(path_prefix: Path, sequences: list[list[int]]) -> None:
    """Writes documents of any number of sequences; no token id stands there twice."""
    path_prefix.parent.mkdir(parents=True, exist_ok=True)
    builder = IndexedDatasetBuilder(str(bin_path(path_prefix)), dtype=np.int32)
    for number, lengths in enumerate(sequences):
        ids = number * DOCUMENT_STRIDE + 1 + torch.arange(sum(lengths), dtype=torch.int32)
        builder.add_document(ids, lengths)
    builder.finalize(str(idx_path(path_prefix)))


def mask_with_repeats(path: Path, path_prefix: Path, times: list[int]) -> KeepMask:
    repeats_D: npt.NDArray[np.uint8] = np.array(times, dtype=np.uint8)
    write_keep_mask(
        path,
        repeats_D > 0,
        read_index(path_prefix).document_tokens(),
        idx_fingerprint=index_fingerprint(path_prefix),
        scores_fingerprint="",
        repeats_D=repeats_D,
    )
    return read_keep_mask(path)


def three_samples(folder: Path, path_prefix: Path, mask: KeepMask) -> dict[str, list[list[int]]]:
    write_index_view(path_prefix, mask, folder / "view" / "a")
    write_physical_copy(path_prefix, mask, folder / "copy" / "a")
    masked = {"keep_masks": {str(path_prefix): str(mask.path)}, "handover": "keep_mask_dataset"}
    blends = {
        "view": blend([folder / "view" / "a"], path_prefix),
        "copy": blend([folder / "copy" / "a"], path_prefix),
        "mask": blend([path_prefix], path_prefix, **masked),
    }
    samples = {}
    for name, blended in blends.items():
        dataset: Any = build_datasets(blended, seed=3, cache_folder=folder / name / "cache").train
        samples[name] = [[*part["tokens"].tolist(), int(part["labels"][-1])] for part in dataset]
    return samples


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(documents=DOCUMENTS)
def test_repeated_documents_give_identical_samples_by_all_handovers(
    tmp_path_factory: pytest.TempPathFactory, documents: list[tuple[list[int], int]]
) -> None:
    folder = tmp_path_factory.mktemp("repeats")
    write_documents(folder / "a", [lengths for lengths, _ in documents])
    times = [times for _, times in documents]
    mask = mask_with_repeats(folder / "a.keep.npy", folder / "a", times)
    samples = three_samples(folder, folder / "a", mask)
    assert samples["view"] == samples["copy"] == samples["mask"]
    # The last id of a sample is its last label, which another one has as its first input.
    inputs = [token for sample in samples["view"] for token in sample[:-1]]
    seen = np.bincount(inputs, minlength=len(documents) * DOCUMENT_STRIDE + 1)
    assert (seen <= np.repeat([0, *times], [1, *[DOCUMENT_STRIDE] * len(times)])).all()
    # What no sample holds is the tail, shorter than one sequence.
    assert 0 <= mask.info.tokens_kept - len(inputs) - 1 < 8


def test_repeated_document_of_two_sequences_is_repeated_as_a_whole(tmp_path: Path) -> None:
    write_documents(tmp_path / "a", [[1], [2, 3], [], [4]])
    mask = mask_with_repeats(tmp_path / "a.keep.npy", tmp_path / "a", [0, 2, 3, 1])
    index = read_index(tmp_path / "a")
    numbers = selected_sequences(index, mask.is_kept, mask.repeats_D)
    assert numbers.tolist() == [1, 2, 1, 2, 3]
    view = write_index_view(tmp_path / "a", mask, tmp_path / "view")
    assert view.document_tokens().tolist() == [5, 5, 0, 0, 0, 4]
    assert mask.info.tokens_kept == view.num_tokens == 14


def test_copy_of_a_repeated_document_holds_its_tokens_as_often(tmp_path: Path) -> None:
    write_documents(tmp_path / "a", [[2], [1], [3]])
    mask = mask_with_repeats(tmp_path / "a.keep.npy", tmp_path / "a", [2, 0, 1])
    (tmp_path / ".copy.bin.tmp").write_bytes(bytes(1000))  # of a copy that was killed
    write_physical_copy(tmp_path / "a", mask, tmp_path / "copy")
    ids = np.fromfile(bin_path(tmp_path / "copy"), np.int32)
    assert ids.tolist() == [1, 2, 1, 2, 2001, 2002, 2003]
    stock = IndexedDataset(str(tmp_path / "copy"))
    assert [stock[number].tolist() for number in range(3)] == [[1, 2], [1, 2], [2001, 2002, 2003]]


def test_changed_repeats_under_one_prefix_never_train_on_the_old_ones(tmp_path: Path) -> None:
    write_documents(tmp_path / "a", [[9], [9], [9]])
    path = tmp_path / "a.keep.npy"
    masked = {"keep_masks": {str(tmp_path / "a"): str(path)}, "handover": "keep_mask_dataset"}
    for times in ([1, 1, 0], [1, 3, 0], [2, 2, 1]):
        mask_with_repeats(path, tmp_path / "a", times)
        blended = blend([tmp_path / "a"], tmp_path / "a", **masked)
        dataset: Any = build_datasets(blended, seed=3, cache_folder=tmp_path / "cache").train
        assert np.bincount(dataset.document_index, minlength=3).tolist() == times


def masked_dataset(folder: Path, times: list[int], first: int, end: int) -> Any:
    """Returns the training part, sequences `first` to `end`, of six documents of nine tokens."""
    write_documents(folder / "a", [[9]] * 6)
    mask = mask_with_repeats(folder / "a.keep.npy", folder / "a", times)
    config = KeepMaskGPTDatasetConfig(
        random_seed=1,
        sequence_length=8,
        split="50,50,0",
        path_to_cache=str(folder / "cache"),
        tokenizer=BlendTokenizer(vocab_size=VOCAB_SIZE, eod=0),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        keep_masks={str(folder / "a"): str(mask.path)},
    )
    indices = np.arange(first, end, dtype=np.int32)
    stock = IndexedDataset(str(folder / "a"))
    return KeepMaskGPTDataset(stock, str(folder / "a"), indices, None, Split.train, config)


def test_masked_dataset_reads_of_its_split_the_selection_alone(tmp_path: Path) -> None:
    dataset = masked_dataset(tmp_path, [2, 2, 0, 1, 3, 0], 1, 4)
    assert sorted(dataset.document_index.tolist()) == [1, 1, 3]


def test_masked_dataset_counts_repeats_where_megatron_has_no_indices(tmp_path: Path) -> None:
    dataset = masked_dataset(tmp_path, [2, 2, 0, 1, 3, 0], 0, 6)
    assert dataset._get_num_tokens_per_epoch() == 8 * 9
    dataset.indices = None  # as under --dataloader-fast-cache-load
    assert dataset._get_num_tokens_per_epoch() == 8 * 9
