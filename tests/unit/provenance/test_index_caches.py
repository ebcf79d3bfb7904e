"""Megatron's caches: the trap of a stale one reproduced and found, and caches made beforehand."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from megatron.core.tokenizers.text.utils.build_tokenizer import build_tokenizer
from token_datasets import (
    EOD,
    VOCAB_SIZE,
    one_process,
    write_mask,
    write_with_megatron,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from mira_megatron.doctor.finding import ERROR, WARNING
from mira_megatron.provenance.index_caches import (
    blend_counts,
    check_caches,
    check_packed_files,
    default_cache_folder,
    find_caches,
    is_permutation,
)
from mira_megatron.provenance.prebuild import (
    bridge_identity,
    megatron_lm_identity,
    nemo_identity,
    prebuild,
)
from mira_megatron.provenance.replay import DataRequest, PrefixBlend, build_splits
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer

pytestmark = pytest.mark.megatron

LENGTHS = [5, 9, 3, 12, 1, 7, 6, 4, 11, 8]
SHORTER = [3, 9, 4, 2, 7]


def request_of(*prefixes: Path, **changes: Any) -> DataRequest:
    settings: dict[str, Any] = {
        "blends": (PrefixBlend(prefixes=tuple(map(str, prefixes))), None, None),
        "sequence_length": 8,
        "seed": 1,
        "tokenizer": BlendTokenizer(vocab_size=VOCAB_SIZE, eod=EOD),
    }
    return DataRequest(**{**settings, **changes})


def build(request: DataRequest, cache: Path) -> Any:
    with one_process():
        return build_splits(request, cache)["train"].dataset


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with a dataset and its cache."""
    write_with_megatron(tmp_path / "a", LENGTHS)
    build(request_of(tmp_path / "a"), tmp_path / "cache")
    assert check_caches(tmp_path / "cache") == []
    return tmp_path


def levels(folder: Path) -> list[str]:
    return [finding.level for finding in check_caches(folder / "cache")]


def whats(folder: Path) -> str:
    return "\n".join(finding.what for finding in check_caches(folder / "cache"))


def test_dataset_made_anew_under_its_prefix_trains_on_garbage_and_is_found(built: Path) -> None:
    before = len(build(request_of(built / "a"), built / "cache"))
    write_with_megatron(built / "a", SHORTER)
    stale = build(request_of(built / "a"), built / "cache")
    # Megatron itself says nothing: as many samples as before, of documents that are not there.
    assert len(stale) == before == 8
    with pytest.raises(IndexError):
        [stale[number] for number in range(len(stale))]  # iterating would only stop early
    (finding,) = check_caches(built / "cache")
    assert finding.level == ERROR
    assert "it names sequence 9, but" in finding.what
    assert finding.way_out.startswith("rm ")


@pytest.mark.parametrize(
    ("lengths", "found"),
    [
        ([*LENGTHS, 8], "does not list each of sequences 0 to 11 equally often"),
        ([*LENGTHS[:-1], 18], "8 samples of 8 tokens, but 76 tokens make 9 samples"),
        ([5, 9, 3, 12, 1, 7, 6, 4, 12, 7], "begins elsewhere than in the .idx"),
    ],
)
def test_cache_of_other_lengths_is_found_however_alike_they_are(
    built: Path, lengths: list[int], found: str
) -> None:
    write_with_megatron(built / "a", lengths)
    assert levels(built) == [ERROR]
    assert found in whats(built)


def test_dataset_with_other_tokens_of_the_same_lengths_is_only_pointed_out(built: Path) -> None:
    write_with_megatron(built / "a", LENGTHS)
    os.utime(built / "a.bin", (2e9, 2e9))
    assert levels(built) == [WARNING]
    assert "older than" in whats(built)


def test_cache_of_a_dataset_that_is_gone_is_pointed_out(built: Path) -> None:
    (built / "a.bin").unlink()
    assert levels(built) == [WARNING]
    assert "gone" in whats(built)


def _array(folder: Path, name: str) -> Path:
    (path,) = (folder / "cache").glob(f"*-{name}")
    return path


def _cut(name: str, num_bytes: int) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        path = _array(folder, name)
        path.write_bytes(path.read_bytes()[:num_bytes])

    return cut


def _lose(name: str) -> Callable[[Path], None]:
    return lambda folder: _array(folder, name).unlink()


def _retype(name: str, dtype: str) -> Callable[[Path], None]:
    def retype(folder: Path) -> None:
        path = _array(folder, name)
        np.save(path, np.load(path).astype(dtype))

    return retype


@pytest.mark.parametrize(
    ("damage", "level", "found"),
    [
        (_cut("shuffle_index.npy", -4), ERROR, "shuffle_index.npy is cut short"),
        (_cut("sample_index.npy", 40), ERROR, "sample_index.npy is cut short"),
        (_cut("document_index.npy", 0), ERROR, "document_index.npy is cut short"),
        (_cut("description.txt", 30), ERROR, "not the one it is named after"),
        (_retype("document_index.npy", "int64"), ERROR, "holds int64 on 1 axes, expected int32"),
        (_retype("shuffle_index.npy", "float32"), ERROR, "holds float32"),
        (_lose("shuffle_index.npy"), WARNING, "shuffle_index missing"),
        (_lose("description.txt"), WARNING, "description is missing"),
    ],
)
def test_damaged_cache_is_named_with_what_is_wrong(
    built: Path, damage: Callable[[Path], None], level: str, found: str
) -> None:
    damage(built)
    assert levels(built) == [level]
    assert found in whats(built)


def test_caches_of_splits_epochs_keep_masks_and_blends_are_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_with_megatron(tmp_path / name, LENGTHS)
    mask = write_mask(tmp_path / "a.keep.npy", tmp_path / "a", [True, False] * 5)
    cache, both = tmp_path / "cache", (tmp_path / "a", tmp_path / "b")
    build(request_of(tmp_path / "a", split="60,40,0"), cache)
    build(request_of(tmp_path / "a", num_samples=(30, None, None)), cache)
    build(request_of(*both, num_samples=(5, None, None)), cache)
    masks = {str(tmp_path / "a"): str(mask.path)}
    build(request_of(tmp_path / "a", keep_masks=masks), cache)
    assert len(find_caches(cache)) == 7
    assert check_caches(cache) == []


@pytest.mark.parametrize("num_held", [5, 9])
def test_blend_that_draws_more_or_less_than_a_prefix_cache_holds_is_found(
    tmp_path: Path, num_held: int
) -> None:
    for name in ("a", "b"):
        write_with_megatron(tmp_path / name, LENGTHS)
    build(request_of(tmp_path / "a", tmp_path / "b"), tmp_path / "cache")
    for path in (tmp_path / "cache").glob("*-shuffle_index.npy"):
        np.save(path, np.arange(num_held, dtype=np.uint32))
    assert f"it draws 8 samples of {tmp_path}/a, whose own cache holds {num_held}" in whats(
        tmp_path
    )


@pytest.mark.parametrize(("place", "value"), [(1, 0), (0, 10**6)])
def test_shuffle_that_does_not_draw_each_sample_once_is_found(
    built: Path, place: int, value: int
) -> None:
    path = _array(built, "shuffle_index.npy")
    shuffle = np.load(path)
    shuffle[place] = shuffle[value] if value < len(shuffle) else value
    np.save(path, shuffle)
    assert levels(built) == [ERROR]
    assert "does not draw each of its 8 samples once" in whats(built)


@pytest.mark.parametrize("damage", [lambda places: places * 0, lambda places: places[::-1]])
def test_blend_that_does_not_draw_its_prefixes_in_order_is_found(
    tmp_path: Path, damage: Callable[[Any], Any]
) -> None:
    for name in ("a", "b"):
        write_with_megatron(tmp_path / name, LENGTHS)
    build(request_of(tmp_path / "a", tmp_path / "b"), tmp_path / "cache")
    path = _array(tmp_path, "dataset_sample_index.npy")
    np.save(path, damage(np.load(path)))
    assert levels(tmp_path) == [ERROR]
    assert "of prefix" in whats(tmp_path)


def test_order_of_a_blend_is_counted_alike_in_pieces_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = np.array([2, 0, 0, 2, 1, 2, 0], dtype=np.int16)
    places = np.array([0, 0, 1, 1, 0, 2, 2])
    for size in (1, 2, 3, 100):
        monkeypatch.setattr("mira_megatron.provenance.index_caches._CHUNK", size)
        assert blend_counts(chosen, places, 4).tolist() == [3, 1, 3, 0]
        with pytest.raises(ValueError, match="sample 5 is sample 3 of prefix 2, expected 2"):
            blend_counts(chosen, np.array([0, 0, 1, 1, 0, 3, 2]), 4)
        with pytest.raises(ValueError, match="prefix 2 of 2"):
            blend_counts(chosen, places, 2)
        assert is_permutation(np.array([3, 1, 0, 2], dtype=np.uint32), 4)
        assert not is_permutation(np.array([3, 1, 0, 3], dtype=np.uint32), 4)
        assert not is_permutation(np.array([3, 1, 0, 4], dtype=np.uint32), 4)


def test_cache_beside_the_prefix_lies_where_megatron_puts_it(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", LENGTHS)
    request = request_of(tmp_path / "a")
    from_megatron = build(request, default_cache_folder(str(tmp_path / "a")))
    assert from_megatron.dataset.path_prefix == str(tmp_path / "a")
    assert len(find_caches(tmp_path / "a/cache/GPTDataset_indices")) == 1


def state(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("num_samples", [None, 9])
@pytest.mark.parametrize("names", ["a", "ab"])
def test_prebuilt_cache_is_loaded_by_a_fresh_builder_without_building(
    tmp_path: Path, names: str, num_samples: int | None
) -> None:
    for name in names:
        write_with_megatron(tmp_path / name, LENGTHS)
    request = request_of(
        *(tmp_path / name for name in names), num_samples=(num_samples, None, None)
    )
    identity = megatron_lm_identity("/models/base", use_fast=True)
    prebuilt = prebuild(request, tmp_path / "cache", identity=identity)
    before = state(tmp_path / "cache")
    assert prebuilt.num_files_written == len(before) == (4 if names == "a" else 11)
    trainers = SimpleNamespace(vocab_size=VOCAB_SIZE, eod=EOD, unique_identifiers=identity)
    dataset = build(replace(request, tokenizer=trainers), tmp_path / "cache")
    assert state(tmp_path / "cache") == before
    assert prebuilt.num_samples == {"train": len(dataset) if num_samples is None else 9}
    assert prebuild(request, tmp_path / "cache", identity=identity).num_files_written == 0


def test_prebuilding_for_another_tokenizer_adds_another_cache(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", LENGTHS)
    for identity in (None, nemo_identity(), bridge_identity("m"), megatron_lm_identity("m")):
        prebuild(request_of(tmp_path / "a"), tmp_path / "cache", identity=identity)
    assert len(find_caches(tmp_path / "cache")) == 4


def test_prebuilding_completes_what_is_half_written_and_refuses_what_is_stale(built: Path) -> None:
    _array(built, "sample_index.npy").unlink()
    assert prebuild(request_of(built / "a"), built / "cache").num_files_written == 4
    assert check_caches(built / "cache") == []
    write_with_megatron(built / "a", SHORTER)
    with pytest.raises(ValueError, match="it names sequence 9"):
        prebuild(request_of(built / "a"), built / "cache")


def test_identity_for_megatron_lm_is_what_its_tokenizer_says_of_itself(tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"<unk>": 0, "<end>": 1, "a": 2}, unk_token="<unk>"))
    fast: Any = PreTrainedTokenizerFast  # transformers leaves its constructor untyped
    fast = fast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")
    fast.save_pretrained(str(tmp_path))
    arguments = SimpleNamespace(
        tokenizer_type="HuggingFaceTokenizer",
        tokenizer_model=str(tmp_path),
        tokenizer_metadata=None,
        vocab_file=None,
        merge_file=None,
        tokenizer_special_tokens=None,
        tokenizer_hf_use_fast=True,
        trust_remote_code=False,
        tokenizer_hf_include_special_tokens=False,
    )
    said = build_tokenizer(arguments).unique_identifiers
    named = megatron_lm_identity(str(tmp_path), use_fast=True)
    assert list(said.items()) == list(named.items())


@pytest.mark.parametrize("name", ["training_512.npy", "training_512.idx.parquet"])
@pytest.mark.parametrize(("mtime", "num_found"), [(999, 1), (1001, 0)])
def test_packed_file_older_than_its_text_is_stale(
    tmp_path: Path, name: str, mtime: int, num_found: int
) -> None:
    (tmp_path / "training.jsonl").write_text("{}\n")
    os.utime(tmp_path / "training.jsonl", (1000, 1000))
    packed = tmp_path / "packed" / "base_pad_seq_to_mult1" / name
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"")
    os.utime(packed, (mtime, mtime))
    findings = check_packed_files(tmp_path)
    assert [finding.where for finding in findings] == [str(packed)] * num_found
