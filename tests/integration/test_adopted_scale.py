"""Twenty million adopted documents, 100 GB of tokens on a sparse disk: adopt, select, view, verify.

With `check_tokens: false`, for reading 100 GB of holes would prove nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from adopted_datasets import write_adopting_recipe, write_table
from megatron.core.datasets.indexed_dataset import IndexedDataset
from smoke_runs import Ended, assert_done, ended

from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    idx_path,
    one_sequence_per_document,
    write_index,
)

pytestmark = [pytest.mark.megatron, pytest.mark.integration]

NUM_DOCUMENTS = 20_000_000
MEAN_TOKENS = 1250  # int32: 100 GB
NUM_READ_BACK = 300
MAX_PEAK_BYTES = 6 << 30  # of any stage; verify holds most, 4.4 GB


def test_20_million_documents_are_adopted_selected_viewed_and_verified(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 2 * MEAN_TOKENS, NUM_DOCUMENTS, dtype=np.int32)
    index = one_sequence_per_document(lengths, np.dtype(np.int32))
    assert index.num_bytes > 99e9
    scores = random.random(NUM_DOCUMENTS, dtype=np.float32)
    chosen = np.unique(random.integers(0, NUM_DOCUMENTS, NUM_READ_BACK))
    scores[chosen] = 2  # the best there are, so that all are kept but those held out
    write_pair(tmp_path / "big", index, chosen)
    write_table(tmp_path / "scores.parquet", {"score": scores})
    entry = {"prefixes": ["big"], "check_tokens": False, "scores": {"team": "scores.parquet"}}
    recipe = write_adopting_recipe(
        tmp_path,
        {"big": entry},
        blend={"handover": "index_view", "sequence_length": 4096},
    )
    words = ["validation_max_tokens=10000000", "validation_fraction=0.001"]
    overrides = [f"tokenize.{word}" for word in words]
    for stage in (["tokenize"], ["adopt"], ["select"], ["blend"], ["tokens", "verify"]):
        assert_done(measured(*stage, recipe, *overrides))
    check_views(tmp_path, index, chosen)


def write_pair(path_prefix: Path, index: SequenceIndex, chosen: npt.NDArray[np.int64]) -> None:
    """Writes the index, and a .bin that is a hole but for the documents chosen."""
    write_index(idx_path(path_prefix), index)
    with bin_path(path_prefix).open("wb") as file:
        os.truncate(file.fileno(), index.num_bytes)
        for number in chosen.tolist():
            file.seek(int(index.pointers_S[number]))
            file.write(document(number, index.lengths_S[number]).tobytes())


def document(number: int, num_tokens: int) -> npt.NDArray[np.int32]:
    return np.random.default_rng(number).integers(1, 250, num_tokens, dtype=np.int32)


def measured(*words: object) -> Ended:
    """Runs `mira` in a process that says its peak memory; fails above MAX_PEAK_BYTES."""
    script = Path(__file__).with_name("mira_and_peak.py")
    return ended([sys.executable, script, MAX_PEAK_BYTES, *words])


def check_views(folder: Path, index: SequenceIndex, chosen: npt.NDArray[np.int64]) -> None:
    """Reads the documents chosen through Megatron, in the train or the valid view."""
    kept = np.load(folder / "run/keep/half/big.keep.npy")
    views = list((folder / "run/blends/half").glob("big-????????.idx"))
    train = IndexedDataset(str(views[0].with_suffix("")))
    assert len(train) == kept.sum() > 0.4 * NUM_DOCUMENTS
    places = np.cumsum(kept) - 1
    read_back = chosen[kept[chosen]]
    assert len(read_back) > 0.9 * NUM_READ_BACK
    assert (index.pointers_S[read_back] // 4 > 2**32).any()
    for number in read_back.tolist():
        expected = document(number, index.lengths_S[number])
        assert np.array_equal(train[int(places[number])], expected)
