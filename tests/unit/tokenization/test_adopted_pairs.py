"""Adopted pairs and tables that are unusual: changed, linked, named alike, of other dtypes."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from adopted_datasets import (
    adopted,
    dataset_of,
    documents_of,
    random_documents,
    refused,
    write_adopting_recipe,
    write_pair,
    write_table,
    write_tokenizer,
)
from token_datasets import write_mask

from mira_megatron import layout
from mira_megatron.config import load_recipe
from mira_megatron.tokenization import adopted_tables
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.tokenization.adopted_tables import read_ids
from mira_megatron.tokenization.handovers import marker_path, write_index_view
from mira_megatron.tokenization.index_file import bin_path, idx_path
from mira_megatron.tokenization.token_dataset import check_no_pair_twice, check_unchanged

WIKI: dict[str, Any] = {"prefixes": ["wiki_*"]}


@pytest.fixture
def wiki(tmp_path: Path) -> Path:
    """A folder with two pairs, wiki_2 and wiki_10, of 30 and 20 documents."""
    eod_id = write_tokenizer(tmp_path / "tokenizer.json")
    write_pair(tmp_path / "wiki_2", random_documents(1, 30, eod_id))
    write_pair(tmp_path / "wiki_10", random_documents(2, 20, eod_id))
    return tmp_path


def scores_of(folder: Path, entry: dict[str, Any]) -> list[float | None]:
    adopted(write_adopting_recipe(folder, {"wiki": entry}))
    parts = sorted((folder / "run" / layout.record_scores("team", "wiki")).glob("*.parquet"))
    values: list[float | None] = []
    for part in parts:
        values += pa.parquet.read_table(part)["score"].to_pylist()
    return values


def test_tokens_overwritten_after_they_were_adopted_are_refused(wiki: Path) -> None:
    adopted(write_adopting_recipe(wiki, {"wiki": WIKI}))
    first, second = dataset_of(wiki, "wiki").prefixes
    path = bin_path(first.path_prefix)
    assert first.mtime_ns == path.stat().st_mtime_ns
    check_unchanged(first)
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(0, (first.mtime_ns or 0) + 1))
    with pytest.raises(ValueError, match=r"wiki_2\.bin: .* `mira run` adopts it anew"):
        check_unchanged(first)
    check_unchanged(second)
    check_unchanged(replace(first, mtime_ns=None))  # ours: known by its name


@pytest.mark.parametrize("change", ["longer", "gone"])
def test_tokens_of_another_size_or_none_are_refused(wiki: Path, change: str) -> None:
    adopted(write_adopting_recipe(wiki, {"wiki": WIKI}))
    prefix = dataset_of(wiki, "wiki").prefixes[0]
    path = bin_path(prefix.path_prefix)
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(path.stat().st_size + 4))
        os.utime(path, ns=(0, prefix.mtime_ns or 0))
    with pytest.raises(ValueError, match=r"wiki_2\.bin: "):
        check_unchanged(prefix)


@pytest.mark.parametrize("wrong", [2**32 + 7, -1, 300, 2**31])
def test_wide_ids_outside_the_vocabulary_are_refused(wiki: Path, wrong: int) -> None:
    write_pair(wiki / "wiki_2", [[5, 6, 0], [], [wrong, 7, 0], [8, 0]], np.int64)
    said = refused(wiki, {"prefixes": ["wiki_2"]})
    assert f"wiki_2.bin: document 2 holds the id {wrong:,}, but" in said


def test_documents_of_any_whole_number_have_the_hashes_of_int32(tmp_path: Path) -> None:
    eod_id = write_tokenizer(tmp_path / "tokenizer.json")
    documents = [[ids % 100 for ids in each] for each in random_documents(3, 9, eod_id)]
    dtypes: dict[str, type[np.number]] = {
        "int32": np.int32,
        "int64": np.int64,
        "uint8": np.uint8,
        "int8": np.int8,
    }
    for name, dtype in dtypes.items():
        write_pair(tmp_path / name, documents, dtype)
    adopted(write_adopting_recipe(tmp_path, {name: {"prefixes": [name]} for name in dtypes}))
    hashes = [documents_of(tmp_path, name)["text_hash"].to_pylist() for name in dtypes]
    assert hashes == [hashes[0]] * 4


def test_files_that_are_added_rename_and_move_no_document(wiki: Path) -> None:
    entry = {**WIKI, "check_tokens": False}
    path = write_adopting_recipe(wiki, {"wiki": entry})
    adopted(path, "tokenize.validation_max_tokens=100000")
    before = documents_of(wiki, "wiki").select(["record_id", "text_hash", "is_validation"])
    write_pair(wiki / "wiki_1", random_documents(7, 15, 0))
    adopted(path, "tokenize.validation_max_tokens=100000")
    after = documents_of(wiki, "wiki").select(before.column_names)
    assert after["record_id"][0].as_py() == "wiki:wiki_1:0"
    assert after.slice(15).to_pylist() == before.to_pylist()


def test_two_pairs_of_one_file_name_need_ids(wiki: Path) -> None:
    for folder in ("a", "b"):
        (wiki / folder).mkdir()
        write_pair(wiki / folder / "shard", random_documents(1, 3, 0))
    entry = {"prefixes": ["*/shard"]}
    said = refused(wiki, entry)
    assert "a/shard and " in said
    assert "b/shard have one file name" in said
    assert "adopt.wiki.ids" in said
    write_table(wiki / "ids.parquet", {"record_id": [f"page-{number}" for number in range(6)]})
    adopted(write_adopting_recipe(wiki, {"wiki": {**entry, "ids": "ids.parquet"}}))
    assert documents_of(wiki, "wiki")["record_id"][5].as_py() == "page-5"


def test_ids_come_in_pieces_of_their_own_in_document_order(
    wiki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted_tables, "_ROWS_AT_ONCE", 8)
    numbers = np.random.default_rng(0).permutation(50)
    columns = {"doc": numbers, "record_id": [f"page-{number}-" for number in numbers]}
    write_table(wiki / "ids.parquet", columns)
    ids = {"paths": "ids.parquet", "document": "doc"}
    (source,) = adopted_sources(
        load_recipe(write_adopting_recipe(wiki, {"wiki": {**WIKI, "ids": ids}}))
    ).values()
    first, second = read_ids(source, source.path_prefixes())
    assert [*first.to_pylist(), *second.to_pylist()] == [f"page-{n}-" for n in range(50)]
    assert (first.num_chunks, first.type) == (4, pa.string())
    assert b"page-40-" not in pickle.dumps(first)
    numbered = read_ids(replace(source, ids=None), source.path_prefixes())
    assert numbered[1].to_pylist() == [f"wiki:wiki_10:{number}" for number in range(20)]
    assert numbered[1].num_chunks == 3


def test_whole_number_scores_may_be_large(wiki: Path) -> None:
    write_table(wiki / "s.parquet", {"score": pa.array([2**24 + 1, 2**60 + 1, None] + [0] * 47)})
    scores = scores_of(wiki, {**WIKI, "scores": {"team": "s.parquet"}})
    assert scores[:4] == [2.0**24, 2.0**60, None, 0.0]


def test_score_tables_of_two_number_types_are_joined(wiki: Path) -> None:
    write_table(wiki / "s1.parquet", {"score": [1] * 30})
    write_table(wiki / "s2.parquet", {"score": [0.5] * 20})
    scores = scores_of(wiki, {**WIKI, "scores": {"team": ["s1.parquet", "s2.parquet"]}})
    assert scores == [1.0] * 30 + [0.5] * 20


def test_score_tables_of_types_that_do_not_go_together_are_refused(wiki: Path) -> None:
    write_table(wiki / "s1.parquet", {"score": [1.0] * 30})
    write_table(wiki / "s2.parquet", {"score": ["high"] * 20})
    said = refused(wiki, {**WIKI, "scores": {"team": ["s1.parquet", "s2.parquet"]}})
    assert "s1.parquet: score double" in said
    assert "s2.parquet: score string" in said


def test_document_numbers_may_be_unsigned_and_too_large_ones_are_refused(wiki: Path) -> None:
    entry = {**WIKI, "scores": {"team": {"paths": "s.parquet", "document": "doc"}}}
    write_table(wiki / "s.parquet", {"doc": np.array([3], np.uint64), "score": [2.0]})
    assert scores_of(wiki, entry)[3] == 2.0
    write_table(wiki / "s.parquet", {"doc": np.array([2**64 - 1], np.uint64), "score": [2.0]})
    assert "document number 18,446,744,073,709,551,615" in refused(wiki, entry)


@pytest.mark.parametrize("key", ["document", "record_id"])
def test_column_that_is_values_and_key_is_refused(wiki: Path, key: str) -> None:
    write_table(wiki / "s.parquet", {"score": [1.0]})
    table = {"paths": "s.parquet", "column": "score", key: "score"}
    assert "name two columns" in refused(wiki, {**WIKI, "scores": {"team": table}})


def test_one_prefix_may_be_given_without_a_list(wiki: Path) -> None:
    adopted(write_adopting_recipe(wiki, {"wiki": {"prefixes": "wiki_2"}}))
    assert [prefix.name for prefix in dataset_of(wiki, "wiki").prefixes] == ["wiki"]


def test_brackets_in_folders_and_names_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "corpus [v2]"
    folder.mkdir()
    for name in ("wiki_1", "wiki_2", "code[0]"):
        write_pair(folder / name, random_documents(1, 9, write_tokenizer(folder / "t.json")))
    entries = {"wiki": {"prefixes": ["wiki_*"]}, "code": {"prefixes": ["code[0]"]}}
    for name, entry in entries.items():
        write_adopting_recipe(folder, {name: entry})
        adopted(folder / "recipe.yaml")
    assert len(dataset_of(folder, "wiki").prefixes) == 2
    assert dataset_of(folder, "code").prefixes[0].path_prefix == folder / "code[0]"


def test_pair_under_two_sources_is_refused_before_tokens_are_read(wiki: Path) -> None:
    (wiki / "links").mkdir()
    for path in (bin_path, idx_path):
        path(wiki / "links" / "same").symlink_to(path(wiki / "wiki_2"))
    entries = {"wiki": WIKI, "again": {"prefixes": ["links/same"]}}
    with pytest.raises(ValueError, match=r"links/same belongs to wiki too|wiki_2 belongs to again"):
        adopted(write_adopting_recipe(wiki, entries))
    assert not (wiki / "run" / layout.tokens("again") / "dataset.json").exists()
    assert "named twice" in refused(wiki, {"prefixes": ["wiki_2", "links/same"]})


def view_of(folder: Path, name: str, kept: range) -> None:
    mask = write_mask(folder / f"{name}.npy", folder / "wiki_2", [n in kept for n in range(30)])
    write_index_view(folder / "wiki_2", mask, folder / name)


def test_views_of_one_pair_are_pairs_of_their_own(wiki: Path) -> None:
    view_of(wiki, "first", range(12))
    view_of(wiki, "other", range(15))
    marker_path(wiki / "other").unlink()  # as some tools copy: the link, but no marker
    bin_path(wiki / "first").unlink()  # and others: what the link leads to
    shutil.copyfile(bin_path(wiki / "wiki_2"), bin_path(wiki / "first"))
    entries = {name: {"prefixes": [name]} for name in ("first", "other")}
    adopted(write_adopting_recipe(wiki, entries))
    datasets = [dataset_of(wiki, name) for name in entries]
    assert [dataset.num_documents for dataset in datasets] == [12, 15]
    check_no_pair_twice(datasets)


@pytest.mark.parametrize("how", ["linked", "copied"])
def test_pair_that_two_sources_lead_to_is_refused(wiki: Path, how: str) -> None:
    bin_path(wiki / "again").symlink_to(bin_path(wiki / "wiki_2"))
    if how == "linked":
        idx_path(wiki / "again").symlink_to(idx_path(wiki / "wiki_2"))
    else:
        shutil.copyfile(idx_path(wiki / "wiki_2"), idx_path(wiki / "again"))
    datasets = []
    for name, prefix in (("one", "wiki_2"), ("two", "again")):
        adopted(write_adopting_recipe(wiki, {name: {"prefixes": [prefix]}}))
        datasets.append(dataset_of(wiki, name))
    with pytest.raises(ValueError, match="belongs to one and to two"):
        check_no_pair_twice(datasets)


def test_ids_of_several_chunks_join_scores(wiki: Path) -> None:
    write_table(wiki / "s.parquet", {"page": ["wiki:wiki_10:4", "wiki:wiki_2:9"], "score": [1, 2]})
    table = {"paths": "s.parquet", "record_id": "page"}
    scores = pc.fill_null(pa.array(scores_of(wiki, {**WIKI, "scores": {"team": table}})), 0)
    assert scores[34].as_py() == 1.0
    assert scores[9].as_py() == 2.0
