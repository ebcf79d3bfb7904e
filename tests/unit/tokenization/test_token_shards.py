"""Shards of tokens, laid one after another, beside what Megatron's own builder writes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from mira_megatron.tokenization import token_shards
from mira_megatron.tokenization.index_file import bin_path, idx_path
from mira_megatron.tokenization.shard_joining import ShardJoiner
from mira_megatron.tokenization.token_shards import (
    EncodedShard,
    read_documents,
    read_num_tokens,
    writing_shard,
)
from mira_megatron.tokenization.tokenizer import EncodedTexts

LENGTHS = [[3, 1, 7], [], [2], [5, 5, 1, 40_000]]
NUM_DOCUMENTS = 8
DTYPE = np.dtype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Report:
    num_documents: int


def encoded(
    folder: Path, number: int, lengths: Sequence[int] | None = None
) -> EncodedShard[Report]:
    """A shard of LENGTHS, whose tokens count on through all of them."""
    first = sum(map(sum, LENGTHS[:number]))
    with writing_shard(folder / f"shard-{number}") as writer:
        for document, length in enumerate(LENGTHS[number] if lengths is None else lengths):
            ids_T = np.arange(first, first + length, dtype=DTYPE)
            texts = EncodedTexts(ids_T, np.array([length]), 1)
            hashes = pa.array([bytes([document]) * 16], pa.binary(16))
            writer.add(texts, pa.array([f"shard-{number}:{document}"]), hashes)
            first += length
        assert writer.num_documents == writer.num_control_texts
        return writer.encoded(Report(num_documents=writer.num_documents))


def joined(folder: Path, workers: int = 2) -> list[int]:
    """The numbers of the shards that had to be encoded to write `folder`/tokens.{bin,idx}."""
    shards = [folder / f"shard-{number}" for number in range(len(LENGTHS))]
    with ShardJoiner(folder / "joined.bin", shards, Report, workers=workers) as joiner:
        numbers = list(range(len(joiner.reports), len(LENGTHS)))
        for number in numbers:
            joiner.add(encoded(folder, number))
        assert sum(report.num_documents for report in joiner.reports) == NUM_DOCUMENTS
        joiner.finish(folder / "tokens", read_num_tokens(shards, NUM_DOCUMENTS), DTYPE)
    return numbers


def megatron_writes(path_prefix: Path) -> None:
    builder = IndexedDatasetBuilder(str(bin_path(path_prefix)), dtype=np.int32)
    first = 0
    for length in [length for lengths in LENGTHS for length in lengths]:
        builder.add_document(torch.arange(first, first + length), [length])
        first += length
    builder.finalize(str(idx_path(path_prefix)))


def assert_whole(folder: Path) -> None:
    megatron_writes(folder / "expected")
    for path in (bin_path, idx_path):
        assert path(folder / "tokens").read_bytes() == path(folder / "expected").read_bytes()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("memory_bytes", [0, 20, 1 << 20])
def test_joined_shards_are_what_megatron_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, memory_bytes: int
) -> None:
    monkeypatch.setattr(token_shards, "MEMORY_BYTES", memory_bytes)
    assert joined(tmp_path, workers) == [0, 1, 2, 3]
    assert_whole(tmp_path)
    assert not list(tmp_path.glob("shard-*.bin"))
    documents = read_documents([tmp_path / f"shard-{number}" for number in range(len(LENGTHS))])
    expected = [
        (f"shard-{n}:{d}", length)
        for n, some in enumerate(LENGTHS)
        for d, length in enumerate(some)
    ]
    columns = documents.to_pydict()
    assert list(zip(columns["record_id"], columns["num_tokens"], strict=True)) == expected


def test_a_second_run_encodes_nothing_and_has_the_same_bytes(tmp_path: Path) -> None:
    joined(tmp_path)
    assert joined(tmp_path) == []
    assert_whole(tmp_path)


def damage(path: Path, at: int, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "lost":
        path.unlink()
        return
    if kind == "cut":
        del content[at:]
    else:
        content[at] ^= 1
    path.write_bytes(content)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    number=st.sampled_from([0, 2, 3]),
    what=st.sampled_from(["ids", "documents.arrow", "json"]),
    kind=st.sampled_from(["changed", "cut", "lost"]),
    where=st.floats(0, 1, exclude_max=True),
)
def test_what_was_damaged_is_encoded_again_with_all_after_it(
    tmp_path: Path, number: int, what: str, kind: str, where: float
) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    joined(folder)
    if what == "ids":
        first, size = 4 * sum(map(sum, LENGTHS[:number])), 4 * sum(LENGTHS[number])
        damage(folder / "joined.bin", first + int(where * size), kind)
        first_encoded = 0 if kind == "lost" else number
    else:
        path = folder / f"shard-{number}.{what}"
        # A report without the end of its only line says all that it said.
        size = path.stat().st_size - (what == "json")
        damage(path, int(where * size), kind)
        first_encoded = number
    again = joined(folder)
    assert again == list(range(first_encoded, len(LENGTHS)))
    assert_whole(folder)


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_single_shard_is_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    monkeypatch.setattr(token_shards, "MEMORY_BYTES", memory_bytes)
    for expected in ([], [Report(num_documents=4)]):
        shards = [tmp_path / "shard-3"]
        with ShardJoiner(tmp_path / "joined.bin", shards, Report, workers=2) as joiner:
            assert joiner.reports == expected
            if not expected:
                joiner.add(encoded(tmp_path, 3))
            joiner.finish(tmp_path / "tokens", read_num_tokens(shards, 4), DTYPE)
        first = sum(map(sum, LENGTHS[:3]))
        found = np.fromfile(bin_path(tmp_path / "tokens"), DTYPE)
        assert found.tolist() == list(range(first, first + sum(LENGTHS[3])))


@pytest.mark.parametrize("is_moved", [True, False])
def test_a_pair_that_got_its_name_is_never_written_to(tmp_path: Path, is_moved: bool) -> None:
    joined(tmp_path)
    pair = tmp_path / "tokens.bin"
    if is_moved:
        pair = pair.rename(tmp_path / "moved.bin")
    before = pair.read_bytes()
    for path in tmp_path.glob("shard-*"):
        path.unlink()
    # Another input, whose first shard is the last one here.
    with ShardJoiner(tmp_path / "joined.bin", [tmp_path / "x"] * 2, Report, workers=1) as joiner:
        joiner.add(encoded(tmp_path, 3))
    assert pair.read_bytes() == before
    assert (tmp_path / "joined.bin").stat().st_nlink == 1


def test_what_could_not_be_flushed_is_laid_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match=r"joined\.bin: no space left while writing shards"):
            joined(tmp_path)
    assert joined(tmp_path) == [0, 1, 2, 3]
    assert_whole(tmp_path)


def test_shards_whose_place_changed_are_encoded_again(tmp_path: Path) -> None:
    joined(tmp_path)
    shards = [tmp_path / f"shard-{number}" for number in (2, 3)]
    with ShardJoiner(tmp_path / "joined.bin", shards, Report, workers=1) as joiner:
        assert joiner.reports == []


def test_a_shorter_file_has_nothing_of_a_longer_one(tmp_path: Path) -> None:
    joined(tmp_path)
    with ShardJoiner(tmp_path / "joined.bin", [tmp_path / "shard-0"], Report, workers=1) as joiner:
        assert joiner.reports == [Report(num_documents=3)]
        joiner.finish(tmp_path / "short", np.array(LENGTHS[0]), DTYPE)
    assert bin_path(tmp_path / "short").stat().st_size == 4 * sum(LENGTHS[0])


def test_a_document_longer_than_an_index_can_say_is_refused_by_name(tmp_path: Path) -> None:
    too_long = EncodedTexts(np.zeros(1, DTYPE), np.array([2**31]), 0)
    with (
        pytest.raises(ValueError, match=r"record long: 2,147,483,648 tokens"),
        writing_shard(tmp_path / "shard") as writer,
    ):
        writer.add(too_long, pa.array(["long"]), pa.array([bytes(16)], pa.binary(16)))
    assert list(tmp_path.iterdir()) == []
