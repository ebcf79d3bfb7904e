"""Shards of tokens, joined, beside what Megatron's own builder writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from mira_megatron.tokenization.index_file import bin_path, idx_path
from mira_megatron.tokenization.token_shards import (
    join_shards,
    read_documents,
    read_num_tokens,
    writing_shard,
)
from mira_megatron.tokenization.tokenizer import EncodedTexts

LENGTHS = [[3, 1, 7], [], [2], [5, 5, 1, 40_000]]
DTYPE = np.dtype(np.int32)


def write_shards(folder: Path) -> list[Path]:
    """Shards of documents whose tokens count on through all of them."""
    shards = [folder / f"shard-{number}" for number in range(len(LENGTHS))]
    first = 0
    for shard, lengths in zip(shards, LENGTHS, strict=True):
        with writing_shard(shard) as writer:
            for number, length in enumerate(lengths):
                ids_T = np.arange(first, first + length, dtype=DTYPE)
                encoded = EncodedTexts(ids_T, np.array([length]), 1)
                hashes = pa.array([bytes([number]) * 16], pa.binary(16))
                writer.add(encoded, pa.array([f"{shard.name}:{number}"]), hashes)
                first += length
        assert writer.num_documents == writer.num_control_texts == len(lengths)
    return shards


def write_with_megatron(path_prefix: Path) -> None:
    builder = IndexedDatasetBuilder(str(bin_path(path_prefix)), dtype=np.int32)
    first = 0
    for length in [length for lengths in LENGTHS for length in lengths]:
        builder.add_document(torch.arange(first, first + length), [length])
        first += length
    builder.finalize(str(idx_path(path_prefix)))


@pytest.mark.parametrize("workers", [1, 3])
def test_joined_shards_are_what_megatron_writes(tmp_path: Path, workers: int) -> None:
    shards = write_shards(tmp_path)
    documents = read_documents(shards)
    joined, expected = tmp_path / "joined", tmp_path / "expected"
    tokens = documents["num_tokens"].to_numpy()
    join_shards(shards, joined, num_tokens_D=tokens, dtype=DTYPE, workers=workers)
    write_with_megatron(expected)
    for path in (bin_path, idx_path):
        assert path(joined).read_bytes() == path(expected).read_bytes()
    ids = [f"shard-{n}:{d}" for n, lengths in enumerate(LENGTHS) for d in range(len(lengths))]
    assert documents["record_id"].to_pylist() == ids


@pytest.mark.parametrize("change", [-4, 4, None])
def test_joining_a_shard_of_another_size_is_refused(tmp_path: Path, change: int | None) -> None:
    shards = write_shards(tmp_path)
    path = bin_path(shards[2])
    content = path.read_bytes()
    if change is None:
        path.unlink()
    else:
        path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    if change == -4:  # as many bytes in all: each shard has to be looked at by itself
        other = bin_path(shards[3])
        other.write_bytes(other.read_bytes() + bytes(4))
    tokens = read_num_tokens(shards)
    found = "missing" if change is None else rf"{len(content) + change} bytes"
    message = rf"shard-2\.bin: {found}, but its documents need 8 bytes.* delete \S*shard-2\.json"
    with pytest.raises(ValueError, match=message):
        join_shards(shards, tmp_path / "out", num_tokens_D=tokens, dtype=DTYPE, workers=2)
    assert not bin_path(tmp_path / "out").exists()


def test_tokens_of_shards_are_those_of_their_documents(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    expected = [length for lengths in LENGTHS for length in lengths]
    assert read_num_tokens(shards).tolist() == expected
    assert read_documents(shards)["num_tokens"].to_pylist() == expected


def test_a_document_longer_than_an_index_can_say_is_refused_by_name(tmp_path: Path) -> None:
    too_long = EncodedTexts(np.zeros(1, DTYPE), np.array([2**31]), 0)
    with (
        pytest.raises(ValueError, match=r"record long: 2,147,483,648 tokens"),
        writing_shard(tmp_path / "shard") as writer,
    ):
        writer.add(too_long, pa.array(["long"]), pa.array([bytes(16)], pa.binary(16)))
    assert list(tmp_path.iterdir()) == []
