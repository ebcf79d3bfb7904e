"""The tokenize stage run as units over records that the ingest stage made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.corpus import ingest
from mira_megatron.manifest import Manifest
from mira_megatron.records import DOCUMENT_SCHEMA, Record, records_from_table
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.tokenization import tokenize
from mira_megatron.tokenization.index_file import bin_path, index_fingerprint, read_index
from mira_megatron.tokenization.raw_rows import CHUNK_BYTES
from mira_megatron.tokenization.tokenizer import RecordEncoder, train_byte_level_bpe

EOD = "<|endoftext|>"
TEXTS = [
    "one two three",
    EOD,
    "x",
    "<think>no</think>",
    "one two three",
    "long " * 99,
    "日本 ÄÖ 🙂",
]
PAIRS = [("2 + 2?", "4"), (f"end{EOD}", "<|im_start|>user\nno")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenised:
    """The token dataset of one source, and the records it was made from."""

    records: list[Record]
    documents: list[list[int]]  # token ids, cut by the .idx
    table: pa.Table  # <source>.records.parquet
    dataset: dict[str, Any]  # dataset.json
    manifest: Manifest
    encoder: RecordEncoder
    token_dtype: np.dtype[np.number]


def recipe_of(
    folder: Path,
    *,
    run: str = "run",
    texts: Sequence[str] = TEXTS,
    records_per_part: int = 3,
    **settings: Any,
) -> Recipe:
    """A recipe of a text source `wiki` and a QA source `quiz`; `settings` are of tokenize."""
    wiki, quiz = folder / "wiki.jsonl", folder / "quiz.jsonl"
    wiki.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    quiz.write_bytes(b"".join(orjson.dumps({"q": q, "a": a}) + b"\n" for q, a in PAIRS))
    fields = {"question": "q", "answer": "a"}
    values = {
        "run_folder": str(folder / run),
        "sources": {
            "wiki": {
                "format": "jsonl",
                "family": "text",
                "fields": {"text": "text"},
                "paths": ["wiki.jsonl"],
            },
            "quiz": {"format": "jsonl", "family": "qa", "fields": fields, "paths": ["quiz.jsonl"]},
        },
        "ingest": {"records_per_part": records_per_part, "max_bad_fraction": 0},
        "tokenize": {
            "tokenizer": None,
            "train_vocab_size": 300,
            "train_on": ["wiki"],
            "train_chars": 1000,
            "eod_token": EOD,
            "validation_fraction": 0.2,
            "validation_max_tokens": 100,
            **settings,
        },
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return load_recipe(path)


def run_all(recipe: Recipe, *, workers: int = 1) -> dict[str, Manifest]:
    """Runs ingest and tokenize and returns the manifest of every token dataset by source."""
    run = Run(folder=recipe.run_folder)
    for unit in ingest.units(recipe):
        run_unit(unit, run, Resources(workers=workers))
    return {
        unit.name: run_unit(unit, run, Resources(workers=workers))
        for unit in tokenize.units(recipe)
    }


def tokenised(recipe: Recipe, source: str, *, workers: int = 1) -> Tokenised:
    manifest = run_all(recipe, workers=workers)[source]
    run_folder = recipe.run_folder
    record_parts = sorted((run_folder / layout.records(source)).glob("part-*.parquet"))
    path_prefix = path_prefix_of(run_folder, source)
    index = read_index(path_prefix)
    ids = np.fromfile(bin_path(path_prefix), index.dtype)
    ends = np.cumsum(index.lengths_S)
    assert ends[-1] == len(ids)
    dataset = run_folder / layout.tokens(source) / "dataset.json"
    return Tokenised(
        records=[r for path in record_parts for r in records_from_table(pq.read_table(path))],
        documents=[document.tolist() for document in np.split(ids, ends[:-1])],
        table=pq.read_table(path_prefix.with_name(f"{path_prefix.name}.records.parquet")),
        dataset=orjson.loads(dataset.read_bytes()),
        manifest=manifest,
        encoder=RecordEncoder(run_folder / layout.TOKENIZER / "tokenizer.json", EOD),
        token_dtype=index.dtype,
    )


def path_prefix_of(run_folder: Path, source: str) -> Path:
    """The one prefix of a source, whose name ends in the unit's fingerprint."""
    (path,) = (run_folder / layout.tokens(source)).glob(f"{source}-*.idx")
    return path.with_suffix("")


def encoded_alone(encoder: RecordEncoder, record: Record) -> list[int]:
    texts = pa.array([record.text], pa.large_string())
    spans = pa.array([record.control_spans], pa.list_(pa.int64()))
    ids: list[int] = encoder.encode(texts, spans).ids_T.tolist()
    return ids


@pytest.mark.parametrize("source", ["wiki", "quiz"])
def test_tokenize_writes_one_document_per_record_in_order(tmp_path: Path, source: str) -> None:
    made = tokenised(recipe_of(tmp_path), source)
    assert len(made.records) == {"wiki": len(TEXTS), "quiz": len(PAIRS)}[source]
    assert made.documents == [encoded_alone(made.encoder, record) for record in made.records]


@pytest.mark.parametrize("source", ["wiki", "quiz"])
def test_tokenize_puts_the_eod_last_and_only_there(tmp_path: Path, source: str) -> None:
    made = tokenised(recipe_of(tmp_path), source)
    eod = made.encoder.eod_id
    assert all(document.index(eod) == len(document) - 1 for document in made.documents)


def test_tokenize_describes_every_document_in_its_row(tmp_path: Path) -> None:
    made = tokenised(recipe_of(tmp_path), "wiki")
    assert made.table.schema == DOCUMENT_SCHEMA
    columns = made.table.to_pydict()
    assert columns["record_id"] == [record.record_id for record in made.records]
    assert columns["num_tokens"] == [len(document) for document in made.documents]
    hashes = [xxhash.xxh3_128_digest(record.text.encode()) for record in made.records]
    assert columns["text_hash"] == hashes
    assert 1 <= sum(columns["is_validation"]) < len(made.records)


def test_tokenize_counts_what_it_wrote_in_dataset_json(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    made = tokenised(recipe, "wiki")
    held_out = [
        len(document)
        for document, held in zip(made.documents, made.table["is_validation"], strict=True)
        if held.as_py()
    ]
    totals = {
        "tokens": sum(map(len, made.documents)),
        "validation_documents": len(held_out),
        "validation_tokens": sum(held_out),
        "control_texts_encoded_as_text": 3,  # one of them is a whole record, two are in another
    }
    (prefix,) = made.dataset.pop("prefixes")
    assert made.dataset == {
        "schema_version": 2,
        "eod_id": made.encoder.eod_id,
        "vocab_size": made.encoder.vocab_size,
        **totals,
    }
    path_prefix = path_prefix_of(recipe.run_folder, "wiki")
    assert prefix["idx_fingerprint"] == index_fingerprint(path_prefix)
    assert prefix["num_bytes"] == bin_path(path_prefix).stat().st_size
    assert made.manifest.counts.totals == totals
    assert made.manifest.counts.num_in == made.manifest.counts.num_out == len(TEXTS)


def test_tokenize_counts_only_the_control_text_no_renderer_wrote(tmp_path: Path) -> None:
    made = tokenised(recipe_of(tmp_path), "quiz")
    assert made.dataset["control_texts_encoded_as_text"] == 2


def test_tokenize_of_a_record_that_is_only_control_text_gives_ordinary_tokens(
    tmp_path: Path,
) -> None:
    made = tokenised(recipe_of(tmp_path), "wiki")
    (number,) = [n for n, record in enumerate(made.records) if record.text == EOD]
    assert len(made.documents[number]) > 2


def test_tokenize_writes_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    one, two = (
        run_all(recipe_of(tmp_path, run=f"run{workers}"), workers=workers) for workers in (1, 2)
    )
    assert {name: made.parts for name, made in one.items()} == {
        name: made.parts for name, made in two.items()
    }


def test_tokenize_of_records_in_other_parts_gives_the_same_documents(tmp_path: Path) -> None:
    whole = tokenised(recipe_of(tmp_path, run="whole", records_per_part=100), "wiki")
    assert whole.documents == tokenised(recipe_of(tmp_path), "wiki").documents


def test_tokenize_holds_out_the_same_texts_when_records_change_places(tmp_path: Path) -> None:
    held_out = []
    for name, texts in {"forth": TEXTS, "back": TEXTS[::-1]}.items():
        (tmp_path / name).mkdir()
        made = tokenised(
            # The tokenizer learns from another source, so that it stays the same.
            recipe_of(tmp_path / name, texts=texts, train_on=["quiz"]),
            "wiki",
        )
        flags = made.table["is_validation"].to_pylist()
        pairs = zip(made.records, flags, strict=True)
        held_out.append({record.text for record, held in pairs if held})
    assert held_out[0] == held_out[1]


@pytest.mark.parametrize(
    "changed", [{"eod_token": "<|im_end|>"}, {"validation_fraction": 0.3}, {"train_chars": 50}]
)
def test_tokenize_of_other_settings_is_refused_naming_the_one_that_differs(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    run_all(recipe_of(tmp_path))
    (name,) = changed
    with pytest.raises(ValueError, match=rf"another configuration: tokenize\.{name} was"):
        run_all(recipe_of(tmp_path, **changed))


def test_tokenize_stores_ids_above_65535_as_int32(tmp_path: Path) -> None:
    content = json.loads(train_byte_level_bpe(["word word"], 300).to_str())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary |= {f"unused{n}": n for n in range(vocabulary[last], 70_000)} | {last: 70_000}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    texts = ["a", "b", last.replace("Ġ", " ")]
    made = tokenised(recipe_of(tmp_path, tokenizer="tokenizer.json", texts=texts), "wiki")
    assert made.token_dtype == np.int32
    assert made.documents[2] == [70_000, made.encoder.eod_id]


def test_tokenize_by_either_backend_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (
        run_all(recipe_of(tmp_path, run=backend, backend=backend))
        for backend in ("huggingface", "gigatoken")
    )
    assert {name: made.parts for name, made in one.items()} == {
        name: made.parts for name, made in two.items()
    }


def test_tokenize_by_another_backend_finds_everything_done(tmp_path: Path) -> None:
    first = run_all(recipe_of(tmp_path, backend="huggingface"))
    again = run_all(recipe_of(tmp_path, backend="auto"))
    assert {name: made.fingerprint for name, made in first.items()} == {
        name: made.fingerprint for name, made in again.items()
    }


def test_tokenize_of_a_long_record_among_short_ones_keeps_their_order(tmp_path: Path) -> None:
    # Longer than a chunk of text, so that it is one by itself.
    texts = ["short", "long text " * (CHUNK_BYTES // 9), "日本", "last"]
    made = tokenised(recipe_of(tmp_path, texts=texts, train_on=["quiz"]), "wiki")
    assert made.documents == [encoded_alone(made.encoder, record) for record in made.records]


def test_tokenize_of_a_part_that_was_changed_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    for unit in ingest.units(recipe):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())
    part = next((recipe.run_folder / layout.records("quiz")).glob("part-*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"part-00000\.parquet: this part's bytes changed"):
        run_all(recipe)


def test_tokenize_trains_on_an_equal_share_of_each_source_named(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, train_on=["quiz", "wiki"], train_chars=40)
    run_all(recipe)
    texts = [record.text for record in tokenised(recipe, "quiz").records]
    # 20 characters each: the first question alone is longer, and so are the first two texts.
    expected = train_byte_level_bpe([texts[0], *TEXTS[:2]], 300, cuts_like_qwen=True).to_str()
    trained = recipe.run_folder / layout.TOKENIZER / "tokenizer.json"
    assert trained.read_text(encoding="utf-8") == expected


def test_tokenize_with_an_unknown_source_to_train_on_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train_on names wikis, which is no source.*quiz, wiki"):
        tokenize.units(recipe_of(tmp_path, train_on=["wikis"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_vocab_size": None}, "needs train_vocab_size"),
        ({"backend": "fast"}, "backend='fast' must be one of auto, gigatoken, huggingface"),
        ({"train_on": []}, "needs train_vocab_size, train_on"),
        ({"validation_fraction": 0}, r"validation_fraction=0\.0 must be in \(0, 1\)"),
        ({"validation_fraction": 1}, r"validation_fraction=1\.0 must be in \(0, 1\)"),
        ({"validation_max_tokens": 0}, "validation_max_tokens=0 must be positive"),
    ],
)
def test_tokenize_with_a_wrong_setting_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tokenize.units(recipe_of(tmp_path, **settings))
