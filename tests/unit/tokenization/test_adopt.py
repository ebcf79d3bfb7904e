"""Adopted token datasets: what is known of their documents, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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

from mira_megatron import layout


def scores_of(folder: Path, source: str) -> list[tuple[str, float | None, str | None]]:
    parts = sorted((folder / "run" / layout.record_scores("team", source)).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.fixture
def wiki(tmp_path: Path) -> Path:
    """A folder with two pairs, wiki_2 and wiki_10, of 30 and 20 documents."""
    eod_id = write_tokenizer(tmp_path / "tokenizer.json")
    write_pair(tmp_path / "wiki_2", random_documents(1, 30, eod_id))
    write_pair(tmp_path / "wiki_10", random_documents(2, 20, eod_id))
    return tmp_path


WIKI: dict[str, Any] = {"wiki": {"prefixes": ["wiki_*"]}}


def test_prefixes_are_taken_in_natural_order_where_they_lie(wiki: Path) -> None:
    adopted(write_adopting_recipe(wiki, WIKI))
    first, second = dataset_of(wiki, "wiki").prefixes
    assert (first.name, first.path_prefix) == ("wiki.0", wiki / "wiki_2")
    assert (second.name, second.path_prefix) == ("wiki.1", wiki / "wiki_10")
    assert (first.num_documents, second.num_documents) == (30, 20)


def test_documents_get_ids_lengths_and_a_held_out_share(wiki: Path) -> None:
    manifest = adopted(write_adopting_recipe(wiki, WIKI))["wiki"]
    table = documents_of(wiki, "wiki")
    assert table["record_id"][31].as_py() == "wiki:wiki_10:1"
    assert sum(table["num_tokens"].to_pylist()) == manifest.counts.totals["tokens"]
    held_out = table.filter(table["is_validation"])
    assert 1 <= held_out.num_rows <= 10
    assert sum(held_out["num_tokens"].to_pylist()) <= 200


def test_equal_documents_have_equal_hashes_whatever_the_dtype(tmp_path: Path) -> None:
    eod_id = write_tokenizer(tmp_path / "tokenizer.json")
    documents = random_documents(3, 9, eod_id)
    write_pair(tmp_path / "wide", documents, np.int32)
    write_pair(tmp_path / "narrow", [*documents, documents[0]], np.uint16)
    entries = {name: {"prefixes": [name]} for name in ("wide", "narrow")}
    adopted(write_adopting_recipe(tmp_path, entries))
    wide, narrow = (documents_of(tmp_path, name)["text_hash"].to_pylist() for name in entries)
    assert narrow == [*wide, wide[0]]
    assert len(set(wide)) == 9


def test_empty_documents_keep_their_place_and_are_never_held_out(tmp_path: Path) -> None:
    eod_id = write_tokenizer(tmp_path / "tokenizer.json")
    documents = random_documents(4, 12, eod_id)
    documents[3] = documents[7] = []
    write_pair(tmp_path / "a", documents)
    manifest = adopted(write_adopting_recipe(tmp_path, {"a": {"prefixes": ["a"]}}))["a"]
    table = documents_of(tmp_path, "a")
    assert table["num_tokens"].to_pylist() == [len(document) for document in documents]
    assert not any(table["is_validation"].to_pylist()[at] for at in (3, 7))
    assert manifest.counts.totals["empty_documents"] == 2


def test_documents_without_eod_are_counted(tmp_path: Path) -> None:
    eod_id = write_tokenizer(tmp_path / "tokenizer.json")
    documents = random_documents(5, 6, eod_id)
    write_pair(tmp_path / "a", [*documents, [30, 31]])
    manifest = adopted(write_adopting_recipe(tmp_path, {"a": {"prefixes": ["a"]}}))["a"]
    assert manifest.counts.totals["documents_without_eod"] == 1


def test_scores_are_joined_by_document_number_through_all_prefixes(wiki: Path) -> None:
    write_table(wiki / "s.parquet", {"doc": [31, 0, 49], "quality": [1.5, 2.5, float("nan")]})
    table = {"paths": "s.parquet", "document": "doc", "column": "quality"}
    adopted(write_adopting_recipe(wiki, {"wiki": {**WIKI["wiki"], "scores": {"team": table}}}))
    scores = scores_of(wiki, "wiki")
    assert len(scores) == 50
    assert scores[0] == ("wiki:wiki_2:0", 2.5, None)
    assert scores[31] == ("wiki:wiki_10:1", 1.5, None)
    assert scores[49] == ("wiki:wiki_10:19", None, "not_a_number")
    assert scores[1] == ("wiki:wiki_2:1", None, "not_in_table")


def test_ids_and_scores_are_joined_by_id(wiki: Path) -> None:
    write_table(wiki / "ids.parquet", {"record_id": [f"page-{n}" for n in range(50)]})
    write_table(wiki / "s.parquet", {"page": ["page-7", "page-40"], "score": [3, 4]})
    entry = {
        **WIKI["wiki"],
        "ids": "ids.parquet",
        "scores": {"team": {"paths": "s.parquet", "record_id": "page"}},
    }
    adopted(write_adopting_recipe(wiki, {"wiki": entry}))
    by_id = {name: score for name, score, _ in scores_of(wiki, "wiki") if score is not None}
    assert by_id == {"page-7": 3.0, "page-40": 4.0}
    assert scores_of(wiki, "wiki")[40][0] == "page-40"


def test_adopting_again_reads_nothing_and_a_changed_pair_is_adopted_anew(wiki: Path) -> None:
    path = write_adopting_recipe(wiki, WIKI)
    first = adopted(path)["wiki"]
    assert adopted(path)["wiki"] == first
    eod_id = write_tokenizer(wiki / "tokenizer.json")
    write_pair(wiki / "wiki_2", random_documents(9, 30, eod_id))
    assert adopted(path)["wiki"].fingerprint != first.fingerprint


def test_unchecked_tokens_are_not_read(wiki: Path) -> None:
    pair = wiki / "wiki_2.bin"
    pair.write_bytes(b"\xff" * pair.stat().st_size)
    adopted(write_adopting_recipe(wiki, {"wiki": {**WIKI["wiki"], "check_tokens": False}}))
    assert dataset_of(wiki, "wiki").num_documents == 50


def test_tokens_of_another_tokenizer_are_refused_by_document_and_id(wiki: Path) -> None:
    write_pair(wiki / "wiki_2", [[5, 6, 0], [7, 50_000, 0]])
    said = refused(wiki, WIKI["wiki"])
    assert "wiki_2.bin: document 1 holds the id 50,000" in said
    assert "correct tokenize.tokenizer" in said


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"prefixes": []}, "name at least one"),
        ({"prefixes": ["wikis_*"]}, "wikis_*.idx: no such index"),
        ({"prefixes": ["wiki_2", "wiki_2.idx"]}, "is named twice"),
        ({"prefixes": ["s3://bucket/wiki"]}, "object storage has no links"),
        ({"prefixes": ["wiki_2"], "unscored": "keep"}, "must be one of leave_out, pin"),
        ({"prefixes": ["wiki_2"], "score": {}}, "unknown key 'score'. Did you mean 'scores'"),
        ({"prefixes": ["wiki_2"], "scores": {"team": "no.parquet"}}, "no.parquet: no such file"),
    ],
)
def test_entry_that_cannot_be_adopted_is_refused(
    wiki: Path, entry: dict[str, Any], words: str
) -> None:
    assert words in refused(wiki, entry)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"doc": [0, 50], "score": [1.0, 2.0]}, "document number 50, but the source has"),
        ({"doc": [0, 0], "score": [1.0, 2.0]}, "document 0 is listed more than once"),
        ({"doc": [0.5], "score": [1.0]}, "must be whole numbers"),
        ({"document": [0], "score": [1.0]}, "no column 'doc'"),
        ({"doc": [0], "score": ["high"]}, "expected numbers"),
    ],
)
def test_score_table_that_does_not_fit_is_refused(
    wiki: Path, columns: dict[str, list[Any]], words: str
) -> None:
    write_table(wiki / "s.parquet", columns)
    table = {"paths": "s.parquet", "document": "doc"}
    assert words in refused(wiki, {**WIKI["wiki"], "scores": {"team": table}})


def test_rows_without_a_key_must_be_one_per_document(wiki: Path) -> None:
    write_table(wiki / "s.parquet", {"score": [1.0] * 49})
    said = refused(wiki, {**WIKI["wiki"], "scores": {"team": "s.parquet"}})
    assert "49 rows for 50 documents" in said


def test_pair_whose_files_were_swapped_is_refused(wiki: Path) -> None:
    shutil.copyfile(wiki / "wiki_10.idx", wiki / "wiki_2.idx")
    assert "do not belong together" in refused(wiki, {"prefixes": ["wiki_2"]})


def test_source_under_both_sections_is_refused(wiki: Path) -> None:
    source = {"format": "jsonl", "family": "text", "paths": ["a"], "fields": {"text": "text"}}
    path = write_adopting_recipe(wiki, WIKI, sources={"wiki": source})
    with pytest.raises(ValueError, match="wiki: under `sources` and under `adopt`"):
        adopted(path)


def test_adopting_needs_the_tokenizer(wiki: Path) -> None:
    path = write_adopting_recipe(wiki, WIKI)
    with pytest.raises(ValueError, match="eod_token='</s>' is not one of its added tokens"):
        adopted(path, "tokenize.eod_token=</s>")
