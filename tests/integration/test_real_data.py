"""Real rows from other hands, from raw file to blend: nothing is lost on the way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from jsonl_corpora import write_jsonl, write_recipe
from smoke_runs import ARM, assert_done, before, mira

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"
MAX_RECORDS = 200
NUM_ROWS = {  # its README says so
    "gsm8k": 7_473,
    "thinking": 7_473,
    "model_solutions": 1_319,
    "taubench": 200,
}
SOURCES: dict[str, dict[str, Any]] = {
    "gsm8k": {
        "format": "jsonl",
        "family": "qa",
        "paths": [str(CORPUS / "gsm8k")],
        "fields": {"question": "question", "answer": "answer"},
        "max_records": MAX_RECORDS,
    },
    "thinking": {  # its file is made of gsm8k's, see write_thinking
        "format": "jsonl",
        "family": "qa_with_think",
        "paths": ["thinking.jsonl"],
        "fields": {"question": "question", "think": "think", "answer": "answer"},
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


def write_thinking(path: Path) -> None:
    """Writes gsm8k's rows with the steps as thoughts and the number after them as the answer."""
    rows = map(json.loads, (CORPUS / "gsm8k" / "train.jsonl").read_text().splitlines())
    split = ((row["question"], *row["answer"].split("\n#### ")) for row in rows)
    names = ("question", "think", "answer")
    write_jsonl(path, [dict(zip(names, row, strict=True)) for row in split])


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the real sources up to the blend."""
    if not CORPUS.is_dir():
        pytest.skip(f"{CORPUS}: real data is not on this machine")
    folder = tmp_path_factory.mktemp("real")
    write_thinking(folder / "thinking.jsonl")
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


def group_of(run: Path, source: str) -> str:
    """Returns the name of a founder's group."""
    contents = [json.loads(path.read_text()) for path in run.glob("groups/*/*/source_groups.json")]
    founded = {name: group for content in contents for name, group in content["groups"].items()}
    (group,) = [name for name, entry in founded.items() if source in entry["sources"]]
    return str(group)


def anchors_of(run: Path, source: str) -> list[dict[str, Any]]:
    """Returns the anchors of a founder's group."""
    (path,) = run.glob(f"anchors/*/{group_of(run, source)}/anchors.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("source", list(SOURCES))
def test_real_source_has_fifteen_anchors_found_in_its_group(real_run: Path, source: str) -> None:
    family = SOURCES[source]["family"]
    assert group_of(real_run, source).startswith(family.replace("_", "-"))
    anchors = anchors_of(real_run, source)
    assert [anchor["anchor_id"] for anchor in anchors] == [f"A{slot}" for slot in range(1, 16)]
    assert sum(bool(anchor["references"]) for anchor in anchors) == 12
    parts = Counter(anchor["part"] for anchor in anchors)
    if family == "qa_with_think":
        assert parts == {"think": 5, "combined": 5, "qa": 5}
    else:
        assert parts == {None: 15}


@pytest.mark.parametrize("source", list(SOURCES))
def test_real_anchors_rest_on_judgments_of_the_groups_records(real_run: Path, source: str) -> None:
    judgments = real_run / "judgments/smoke" / source
    assert len(set(column(judgments, "dimension"))) >= 15
    ids = set(column(real_run / "records" / source, "record_id"))
    assert set(column(judgments, "record_id")) <= ids
    said = {
        (medoid["source"], medoid["record_id"])
        for anchor in anchors_of(real_run, source)
        for medoid in (anchor["medoid"], *anchor["references"])
    }
    assert {record_id for name, record_id in said if name == source} <= ids
    assert {group_of(real_run, name) for name, _ in said} == {group_of(real_run, source)}


@pytest.mark.parametrize("source", list(SOURCES))
def test_real_records_are_labelled_in_two_halves(real_run: Path, source: str) -> None:
    labels = real_run / "teacher_ratings/smoke" / source
    ids = column(labels, "record_id")
    assert len(ids) == len(set(ids)) == 40
    assert set(ids) <= set(column(real_run / "records" / source, "record_id"))
    assert set(column(labels, "status")) == {"ok"}
    assert set(column(labels, "split")) == {"distill", "reliability"}


@pytest.mark.parametrize("kind", ["teacher_ratings", "ratings"])
@pytest.mark.parametrize("source", list(SOURCES))
def test_real_slots_without_a_score_say_why(real_run: Path, source: str, kind: str) -> None:
    ratings = real_run / kind / "smoke" / source
    scores = [score for row in column(ratings, "scores") for score in row]
    rationales = [said for row in column(ratings, "rationales") for said in row]
    assert len(scores) == len(rationales) == 15 * len(column(ratings, "record_id"))
    unmeasured = [said for score, said in zip(scores, rationales, strict=True) if score is None]
    assert all(said.startswith("not measurable: ") for said in unmeasured)
    assert len(unmeasured) < len(scores) / 5


@pytest.mark.parametrize("source", list(SOURCES))
def test_real_records_are_all_rated_scored_and_tokenised(real_run: Path, source: str) -> None:
    ids = column(real_run / "records" / source, "record_id")
    ratings = real_run / "ratings/smoke" / source
    assert column(ratings, "record_id") == ids
    statuses = Counter(column(ratings, "status"))
    assert statuses == {"ok": len(ids)} == manifest(ratings)["counts"]["totals"]
    scores = real_run / "record_scores/smoke" / source
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
