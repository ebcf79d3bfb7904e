"""Real rows from other hands, from raw file to blend: nothing is lost on the way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from jsonl_corpora import write_recipe
from smoke_runs import ARM, assert_done, before, mira

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"
MAX_RECORDS = 200
NUM_ROWS = {"gsm8k": 7_473, "model_solutions": 1_319, "taubench": 200}  # its README says so
SOURCES = {
    "gsm8k": {
        "format": "jsonl",
        "family": "qa",
        "paths": [str(CORPUS / "gsm8k")],
        "fields": {"question": "question", "answer": "answer"},
        "max_records": MAX_RECORDS,
    },
    "model_solutions": {
        "format": "jsonl",
        "family": "qa",
        "paths": [str(CORPUS / "gsm8k_model_solutions")],
        "fields": {"question": "question", "answer": "175b_verification.solution"},
        "meta_fields": ["175b_verification.is_correct"],
        "max_records": MAX_RECORDS,
    },
    "taubench": {
        "format": "json",
        "family": "agent",
        "paths": [str(CORPUS / "taubench")],
        "fields": {"messages": "traj"},
        "meta_fields": ["reward", "task_id"],
        "max_chars": 20_000,
        "max_records": 60,
    },
}


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the real sources up to the blend."""
    if not CORPUS.is_dir():
        pytest.skip(f"{CORPUS}: real data is not on this machine")
    folder = tmp_path_factory.mktemp("real")
    recipe = write_recipe(folder / "run.yaml", SOURCES, list(SOURCES))
    for stage in before("midtrain"):
        assert_done(mira(stage, recipe))
    return folder / "run"


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content


def column(folder: Path, name: str) -> list[Any]:
    """Returns a column of all parts of a unit."""
    parts = sorted(folder.glob("part-*.parquet"))
    return [value for part in parts for value in pq.read_table(part)[name].to_pylist()]


@pytest.mark.parametrize("source", list(SOURCES))
def test_real_rows_are_all_accounted_for(real_run: Path, source: str) -> None:
    counts = manifest(real_run / "records" / source)["counts"]
    assert counts["num_in"] == NUM_ROWS[source]
    assert counts["num_in"] == counts["num_out"] + sum(counts["dropped"].values())
    assert set(counts["dropped"]) <= {"not_sampled", "over_max_chars"}
    assert counts["num_out"] == SOURCES[source]["max_records"]
    assert len(set(column(real_run / "records" / source, "record_id"))) == counts["num_out"]


@pytest.mark.parametrize("source", list(SOURCES))
def test_real_records_are_all_rated_scored_and_tokenised(real_run: Path, source: str) -> None:
    ids = column(real_run / "records" / source, "record_id")
    ratings = real_run / "ratings/rule_judge" / source
    assert column(ratings, "record_id") == ids
    statuses = Counter(column(ratings, "status"))
    assert statuses == {"ok": len(ids)} == manifest(ratings)["counts"]["totals"]
    scores = real_run / "record_scores/rule_judge" / source
    assert column(scores, "record_id") == ids
    assert all(0 <= score <= 10 for score in column(scores, "score"))
    (path,) = (real_run / "tokens" / source).glob("*.records.parquet")
    documents = pq.read_table(path)
    assert documents["record_id"].to_pylist() == ids
    tokens = manifest(real_run / "tokens" / source)["counts"]["totals"]["tokens"]
    assert sum(documents["num_tokens"].to_pylist()) == tokens


def test_real_records_are_kept_or_dropped_for_a_reason(real_run: Path) -> None:
    counts = manifest(real_run / f"keep/{ARM}")["counts"]
    num_records = sum(len(column(real_run / "records" / source, "text")) for source in SOURCES)
    assert counts["num_in"] == num_records
    assert counts["num_in"] == counts["num_out"] + sum(counts["dropped"].values())
    assert set(counts["dropped"]) == {"held_out", "not_selected"}
    assert 0 < counts["totals"]["tokens_kept"] <= counts["totals"]["budget_tokens"]


def test_real_blend_holds_the_kept_tokens(real_run: Path) -> None:
    certificate = json.loads((real_run / f"keep/{ARM}/selection.json").read_text())
    blend = json.loads((real_run / f"blends/{ARM}/blend.json").read_text())
    listed = blend["entries"] + blend["left_out"]
    train = {entry["source"]: entry["num_tokens"] for entry in listed if entry["split"] == "train"}
    kept = {source: entry["tokens_kept"] for source, entry in certificate["sources"].items()}
    assert train == kept
    assert sum(kept.values()) == certificate["tokens_kept"]
