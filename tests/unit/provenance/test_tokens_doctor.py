"""What would stop a training at its data is found before it starts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from token_datasets import EOD, VOCAB_SIZE, blend, write_mask, write_with_megatron

from mira_megatron.doctor.finding import ERROR, INFO, WARNING, Finding
from mira_megatron.provenance.replay import DataRequest, PrefixBlend, build_splits
from mira_megatron.provenance.tokens_doctor import (
    MAX_PREFIXES,
    check_limits,
    examine,
    index_cost,
    print_findings,
    unwritable,
)
from mira_megatron.tokenization.handovers import write_index_view
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    one_sequence_per_document,
    read_index,
    write_index,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer, build_datasets

pytestmark = pytest.mark.megatron

LENGTHS = [5, 9, 3, 12, 1, 7, 6, 4, 11, 8]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A dataset that is as it ought to be."""
    write_with_megatron(tmp_path / "a", LENGTHS)
    return tmp_path / "a"


def found(prefix: Path, **changes: Any) -> list[Finding]:
    """Returns the findings of a blend of one prefix, without what is only for information."""
    settings = {key: changes.pop(key) for key in ("cache_folder", "data_folders") if key in changes}
    settings.setdefault("cache_folder", prefix.parent / "cache")
    listed = blend([prefix], prefix, **changes)
    return [finding for finding in examine(listed, **settings) if finding.level != INFO]


def test_sound_data_has_no_findings_but_what_indices_cost(prefix: Path) -> None:
    (finding,) = examine(blend([prefix], prefix), cache_folder=prefix.parent / "cache")
    assert finding.level == INFO
    assert "10 listed sequences" in finding.what


def test_file_behind_a_link_that_is_gone_is_named_with_what_it_linked_to(prefix: Path) -> None:
    mask = write_mask(prefix.parent / "a.keep.npy", prefix, [True] * 10)
    write_index_view(prefix, mask, prefix.parent / "view")
    bin_path(prefix).unlink()
    (finding,) = found(prefix.parent / "view")
    assert (finding.level, finding.where) == (ERROR, str(prefix.parent / "view.bin"))
    assert finding.what == "no such file: it links to a.bin"


def test_object_storage_is_refused_with_what_works_there(prefix: Path) -> None:
    listed = {**blend([prefix], prefix), "train": ["s3://bucket/a"]}
    (finding,) = (each for each in examine(listed, cache_folder=prefix) if each.level == ERROR)
    assert "physical copy" in finding.what


def test_path_with_a_space_is_pointed_out(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "two words" / "a", LENGTHS)
    (finding,) = found(tmp_path / "two words" / "a")
    assert finding.level == WARNING
    assert "--per-split-data-args-path" in finding.way_out


@pytest.mark.parametrize(
    ("vocab_size", "dtype", "is_found"),
    [(65_499, np.uint16, False), (65_500, np.int32, True), (65_536, np.int32, True)],
)
def test_vocabulary_on_which_writers_and_readers_disagree_is_pointed_out(
    tmp_path: Path, vocab_size: int, dtype: type[np.number], is_found: bool
) -> None:
    index = one_sequence_per_document(np.array([20], dtype=np.int32), np.dtype(dtype))
    bin_path(tmp_path / "a").write_bytes(bytes(20 * index.dtype.itemsize))
    write_index(idx_path(tmp_path / "a"), index)
    whats = [finding.what for finding in found(tmp_path / "a", vocab_size=vocab_size)]
    assert ["takes them for uint16" in what for what in whats] == [True] * is_found


def test_documents_without_their_end_are_counted(prefix: Path) -> None:
    content = np.fromfile(bin_path(prefix), dtype=np.int32)
    content[[4, 13]] = 7
    content.tofile(bin_path(prefix))
    (finding,) = found(prefix)
    assert finding.level == WARNING
    assert finding.what == f"2 of 10 documents looked at do not end with EOD {EOD}"


def test_token_outside_of_the_vocabulary_is_an_error(prefix: Path) -> None:
    content = np.fromfile(bin_path(prefix), dtype=np.int32)
    content[0] = VOCAB_SIZE
    content.tofile(bin_path(prefix))
    (finding,) = found(prefix)
    assert finding.level == ERROR
    assert "a token id 1,000,000 in documents" in finding.what


def test_prefix_that_fills_no_sample_is_an_error(prefix: Path) -> None:
    assert [each.level for each in found(prefix, sequence_length=sum(LENGTHS))] == [ERROR]
    assert found(prefix, sequence_length=sum(LENGTHS) - 1) == []


def test_prefix_listed_twice_is_pointed_out(prefix: Path) -> None:
    listed = blend([prefix, prefix], prefix)
    whats = [finding.what for finding in examine(listed, cache_folder=prefix.parent)]
    assert any("listed 2 times in train" in what for what in whats)


def test_too_many_prefixes_for_one_blend_are_an_error(tmp_path: Path) -> None:
    listed = blend([tmp_path / f"{number}" for number in range(MAX_PREFIXES)], tmp_path / "0")
    findings = examine(listed, cache_folder=tmp_path)
    assert findings[0].level == ERROR
    assert any("Megatron takes 32,766" in finding.what for finding in findings)
    assert any("files open" in finding.what for finding in findings)


def test_cut_bin_is_an_error(prefix: Path) -> None:
    bin_path(prefix).write_bytes(bin_path(prefix).read_bytes()[:-4])
    (finding,) = found(prefix)
    assert finding.level == ERROR
    assert "cut short" in finding.what


def test_stale_cache_is_found_where_it_lies(prefix: Path) -> None:
    build_datasets(blend([prefix], prefix), seed=1, cache_folder=prefix.parent / "cache")
    index = read_index(prefix)
    shorter = index.lengths_S - np.array([*[0] * 9, 1], dtype=np.int32)
    write_index(idx_path(prefix), replace(index, lengths_S=shorter))
    levels = {each.where.split("/")[-2]: each.level for each in found(prefix)}
    assert levels["cache"] == ERROR


def test_cache_is_looked_for_beside_the_prefix_when_no_folder_is_named(prefix: Path) -> None:
    folder = prefix / "cache" / "GPTDataset_indices"
    build_datasets(blend([prefix], prefix), seed=1, cache_folder=folder)
    assert found(prefix, cache_folder=None) == []
    next(folder.glob("*-train-document_index.npy")).write_bytes(b"")
    assert [each.level for each in found(prefix, cache_folder=None)] == [ERROR]


def test_cache_of_a_keep_mask_dataset_is_looked_for_under_its_own_name(prefix: Path) -> None:
    mask = write_mask(prefix.parent / "a.keep.npy", prefix, [True] * 10)
    masked = {"handover": "keep_mask_dataset", "keep_masks": {str(prefix): str(mask.path)}}
    folder = prefix / "cache" / "KeepMaskGPTDataset_indices"
    build_datasets(blend([prefix], prefix, **masked), seed=1, cache_folder=folder)
    assert found(prefix, cache_folder=None, **masked) == []
    next(folder.glob("*-train-document_index.npy")).write_bytes(b"")
    assert [each.level for each in found(prefix, cache_folder=None, **masked)] == [ERROR]


@pytest.mark.parametrize(
    ("num_prefixes", "weights", "asked", "levels"),
    [
        (2, None, 16, []),
        (2, None, 17, [ERROR]),
        (2, [1.0, 1.0], 17, []),
        (1, None, 17, [WARNING]),
        (1, None, 0, [ERROR]),
    ],
)
def test_more_samples_than_one_pass_has_are_pointed_out(
    prefix: Path, num_prefixes: int, weights: list[float] | None, asked: int, levels: list[str]
) -> None:
    write_with_megatron(prefix.parent / "b", LENGTHS)
    train = [prefix, prefix.parent / "b"][:num_prefixes]
    listed = blend(train, prefix, train_weights=weights, num_train_samples=16)
    findings = examine(listed, cache_folder=prefix.parent / "cache", num_samples=asked)
    asked_for = [each for each in findings if each.level != INFO]
    assert [each.level for each in asked_for] == levels
    assert all(f"{asked} samples are asked for" in each.what for each in asked_for)


def test_folder_that_cannot_be_made_is_an_error(prefix: Path) -> None:
    (prefix.parent / "file").write_bytes(b"")
    (finding,) = found(prefix, cache_folder=prefix.parent / "file" / "cache")
    assert (finding.level, finding.where) == (ERROR, str(prefix.parent / "file"))
    assert unwritable(prefix.parent / "new" / "cache") is None


def test_folder_without_permission_is_an_error(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = prefix.parent / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed)  # root may write anywhere
    (finding,) = found(prefix, cache_folder=closed / "cache")
    assert (finding.level, finding.where) == (ERROR, str(closed))


def test_stale_packed_file_is_found(prefix: Path) -> None:
    folder = prefix.parent / "sft"
    packed = folder / "packed" / "base_pad_seq_to_mult1" / "training_512.npy"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"")
    (folder / "training.jsonl").write_text("{}\n")
    os.utime(packed, (1000, 1000))
    assert [each.where for each in found(prefix, data_folders=[folder])] == [str(packed)]


@pytest.mark.parametrize("num_samples", [None, 8, 9, 33, 40])
def test_cost_of_indices_is_what_megatron_builds(prefix: Path, num_samples: int | None) -> None:
    one = PrefixBlend(prefixes=(str(prefix),))
    request = DataRequest(
        blends=(one, None, None),
        sequence_length=8,
        seed=1,
        tokenizer=BlendTokenizer(vocab_size=VOCAB_SIZE, eod=EOD),
        num_samples=(num_samples, None, None),
    )
    dataset: Any = build_splits(request, prefix.parent / "cache")["train"].dataset
    cost = index_cost(len(LENGTHS), sum(LENGTHS), 8, num_samples)
    arrays = (dataset.document_index, dataset.sample_index, dataset.shuffle_index)
    assert cost.num_listed == len(dataset.document_index)
    assert cost.held_bytes == sum(array.nbytes for array in arrays)


def test_cost_of_a_weighted_blend_counts_the_epochs_of_each_prefix(prefix: Path) -> None:
    write_with_megatron(prefix.parent / "b", LENGTHS)
    both = [prefix, prefix.parent / "b"]
    listed = blend(both, prefix, train_weights=[3.0, 1.0], num_train_samples=40)
    cache = prefix.parent / "cache"
    (finding,) = (each for each in examine(listed, cache_folder=cache) if "memory" in each.what)
    # Built: 31 and 11 samples of 8; a pass is 66 tokens, so four epochs and two of 10 documents.
    assert "60 listed sequences" in finding.what


@pytest.mark.parametrize(("num_sequences", "num_found"), [(2**30 - 1, 0), (2**30, 1)])
def test_more_sequences_than_megatron_numbers_are_an_error(
    num_sequences: int, num_found: int
) -> None:
    two_epochs = index_cost(num_sequences, 100 * num_sequences, 4096, num_sequences // 30)
    assert two_epochs.num_listed == 2 * num_sequences
    assert len(list(check_limits("a", two_epochs))) == num_found


def test_printed_findings_keep_brackets_and_count_levels(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(level=ERROR, what="[red]", where="/data/[a]", way_out="none")
    print_findings(Console(width=120), [finding], "Arm [half]")
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "Arm [half]"
    assert "/data/[a]" in printed
    assert "error: 1, warning: 0, info: 0" in printed
