"""The reliability half is never learned from: followed from the labels into every file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distill_settings import done, with_distill
from tokenizers import Tokenizer

from mira_megatron.config import Recipe

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]

NUM_RECORDS = 24


def word_of(number: int) -> str:
    """Returns a word of letters that stands in one record's text only."""
    digits = "abcdefghij"
    return f"zq{digits[number // 10]}{digits[number % 10]}xw"


def source(path: Path, numbers: range) -> Mapping[str, Any]:
    """Writes a source of one text per number; returns its descriptor."""
    texts = [f"# Note\n\n{' '.join([word_of(number)] * 12)}" for number in numbers]
    path.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    return {
        "format": "jsonl",
        "family": "text",
        "group": "text-notes",
        "paths": [str(path)],
        "fields": {"text": "text"},
    }


@pytest.fixture
def learned(judged_recipe: Make, tmp_path: Path) -> Recipe:
    """A recipe of two sources that share half of their texts, its samples made."""
    sources = {
        "notes": source(tmp_path / "a.jsonl", range(NUM_RECORDS)),
        "copies": source(tmp_path / "b.jsonl", range(NUM_RECORDS // 2, 3 * NUM_RECORDS // 2)),
    }
    label = {"records_per_source": 100, "reliability_fraction": 0.4}
    recipe = judged_recipe(("ingest", "anchor", "label"), sources=sources, label=label)
    recipe = with_distill(recipe, train_vocab_size=4096, max_record_tokens=200)
    done(recipe, "sft-data")
    return recipe


def halves(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Returns the only word of each labelled record, by half and record id."""
    found: dict[str, dict[str, str]] = {"distill": {}, "reliability": {}}
    for name in ("notes", "copies"):
        tables = [
            pa.concat_tables(map(pq.read_table, (recipe.run_folder / folder).glob("*.parquet")))
            for folder in (f"records/{name}", f"teacher_ratings/mira/{name}")
        ]
        texts = {row["record_id"]: row["text"] for row in tables[0].to_pylist()}
        for row in tables[1].to_pylist():
            found[row["split"]][row["record_id"]] = texts[row["record_id"]].split()[-1]
    return found


def test_held_back_records_are_in_no_file_that_is_learned_from(learned: Recipe) -> None:
    found = halves(learned)
    folder = learned.run_folder / "sft/mira/text-notes"
    text = "".join(path.read_text() for path in folder.iterdir() if path.suffix == ".jsonl")

    assert len(found["reliability"]) > 5
    for record_id, word in found["distill"].items():
        assert record_id in text
        assert word in text
    for record_id, word in found["reliability"].items():
        assert record_id not in text
        assert word not in text


def test_held_back_words_are_not_what_the_tokenizer_was_trained_on(learned: Recipe) -> None:
    found = halves(learned)
    path = learned.run_folder / "sft/mira/text-notes/tokenizer.json"
    tokens = {token.strip("Ġ") for token in Tokenizer.from_file(str(path)).get_vocab()}

    assert set(found["distill"].values()) <= tokens
    assert not set(found["reliability"].values()) & tokens


def test_held_back_content_is_held_back_in_every_source_that_has_it(learned: Recipe) -> None:
    found = halves(learned)
    assert not set(found["distill"].values()) & set(found["reliability"].values())
    assert len(set(found["reliability"].values())) < len(found["reliability"])  # some are shared
