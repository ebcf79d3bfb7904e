"""A finished run made for tests: a few records whose scores and outcomes a reader can see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import xxhash

from mira_megatron import layout
from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import Counts, Manifest, list_parts, output_digest, write_manifest
from mira_megatron.records import (
    DOCUMENT_SCHEMA,
    NUM_SLOTS,
    RATING_SCHEMA,
    RECORD_SCHEMA,
    RECORD_SCORE_SCHEMA,
    Anchor,
    Medoid,
)
from mira_megatron.report import report
from mira_megatron.retention import selection
from mira_megatron.rubric.anchor_files import with_version, write_anchors
from mira_megatron.shards import part_name, write_parquet
from mira_megatron.stage import Resources, Run, Workspace, run_unit
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    TokenPrefix,
    write_token_dataset,
)

ARM = "mira_group"
TABLE = "rule_judge"
ANCHORS = tuple(f"Anchor {slot}" for slot in range(1, NUM_SLOTS + 1))
ROWS_PER_PART = 3
AGGREGATED = {"trim_fraction": 0.1, "min_slots": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallRecord:
    """A record with what the stages before the report say about it."""

    text: str
    score: float | None
    num_tokens: int = 10
    is_validation: bool = False
    reason: str | None = None  # why there is no score
    status_reason: str = "timed out"  # why the judge's status is not ok
    rationale: str = "12 of 12 functions documented"
    origin: str = "corpus.jsonl:1"
    meta: str | None = None
    model: str = "rule-judge-1"
    ratings: tuple[float | None, ...] | None = None  # None: the score on every anchor


# Of every source at least one document is held out; that is a contract of tokenize.
HELD_OUT = SmallRecord(text="held out for validation", score=5.0, is_validation=True)


def write_run(
    folder: Path,
    sources: Mapping[str, Sequence[SmallRecord]],
    *,
    budget_tokens: int = 20,
    scope: str = "group",
    bad_rows: Sequence[Mapping[str, str]] = (),
    anchor_names: Sequence[str] = ANCHORS,
) -> Recipe:
    """Writes every stage up to midtrain, select by its own code, and returns the recipe."""
    recipe = write_recipe(folder, list(sources), budget_tokens=budget_tokens, scope=scope)
    for source, records in sources.items():
        _write_source(recipe.run_folder, source, records, bad_rows)
        _write_anchors(recipe.run_folder, f"text-{source}", anchor_names)
    (unit,) = selection.units(recipe)
    run_unit(unit, Run(folder=recipe.run_folder), Resources())
    write_training(recipe.run_folder)
    return recipe


def with_arm(recipe: Recipe, arm: str, **config: object) -> Recipe:
    """Selects a finished run's records under one more arm; returns the recipe that names it."""
    content = orjson.loads(recipe.path.read_bytes())
    content["arms"][arm] = {"score": TABLE, "scope": "group", **config}
    write_bytes(recipe.path, orjson.dumps(content))
    widened = load_recipe(recipe.path)
    for unit in selection.units(widened):
        run_unit(unit, Run(folder=widened.run_folder), Resources())
    return widened


def write_report(recipe: Recipe) -> str:
    """Runs the report's unit and returns the page."""
    (unit,) = report.units(recipe)
    run_unit(unit, Run(folder=recipe.run_folder), Resources())
    return (recipe.run_folder / "report" / "index.html").read_text()


def report_workspace(recipe: Recipe) -> Workspace:
    """Returns what the report's work function would be given."""
    (unit,) = report.units(recipe)
    run = Run(folder=recipe.run_folder)
    folder = recipe.run_folder / unit.folder
    return Workspace(run=run, unit=unit, folder=folder, fingerprint="0" * 32, resources=Resources())


def write_recipe(
    folder: Path, sources: Sequence[str], *, budget_tokens: int = 20, scope: str = "group"
) -> Recipe:
    """Writes a recipe of text sources with one arm; every source is a group of its own."""
    path = folder / "small.yaml"
    content = {
        "run_folder": str(folder / "run"),
        "seed": 7,
        "sources": {
            name: {
                "format": "text_tree",
                "family": "text",
                "group": f"text-{name}",
                "paths": ["*.txt"],
            }
            for name in sources
        },
        "rubric": TABLE,
        "blend": {},
        "midtrain": {},
        "aggregate": {"scoring": TABLE, **AGGREGATED},
        "select": {"budget_tokens": budget_tokens},
        "arms": {ARM: {"score": TABLE, "scope": scope}},
    }
    write_bytes(path, orjson.dumps(content))  # JSON is YAML
    return load_recipe(path)


def record_id(source: str, number: int) -> str:
    """Returns the id of a source's record, counted from 0."""
    return f"{source}-{number:04d}"


def finish(
    folder: Path,
    stage: str,
    unit: str,
    *,
    num_rows: int = 0,
    config: Mapping[str, Any] | None = None,
    counts: Counts | None = None,
    rows: Mapping[str, int] | None = None,
) -> None:
    """Writes the manifest of a folder whose files are there."""
    parts = list_parts(folder, rows or {})
    manifest = Manifest(
        stage=stage,
        unit=unit,
        stage_version=1,
        config=config or {},
        inputs={},
        fingerprint="made for a test",
        output_digest=output_digest(parts),
        parts=parts,
        counts=counts or Counts(num_in=num_rows, num_out=num_rows),
        seconds=1.5,
        code={},
        packages={},
    )
    write_manifest(folder, manifest)


def write_training(run_folder: Path) -> None:
    """Writes what blend and midtrain leave: two logged losses, two validation losses."""
    blend, checkpoints = run_folder / layout.blend(ARM), run_folder / layout.checkpoints(ARM)
    left_out = {"split": "valid", "prefix": "tiny-valid-0000aaaa", "num_tokens": 5}
    write_json(blend / "blend.json", {"left_out": [left_out]})
    finish(blend, "blend", ARM)
    log = [
        {"step": 0, "eval_loss": 7.5, "eval_tokens": 64},
        {"step": 5, "loss": 7.25, "learning_rate": 0.003, "grad_norm": 1.0},
        {"step": 10, "loss": 5.125, "learning_rate": 0.001, "grad_norm": 1.0},
        {"step": 10, "eval_loss": 5.5, "eval_tokens": 64},
    ]
    state = {"global_step": 10, "max_steps": 10, "num_train_tokens": 1280, "log_history": log}
    write_json(checkpoints / "trainer_state.json", state)
    coverage = {
        "split": "train",
        "prefix": "wiki-1234abcd",
        "num_samples": 3,
        "tokens_seen": 97,
        "tail_tokens": 11,
    }
    write_json(checkpoints / "coverage.json", [coverage])
    finish(checkpoints, "midtrain", ARM)


def _write_anchors(run_folder: Path, group: str, names: Sequence[str]) -> None:
    folder = run_folder / layout.anchors(TABLE, group)
    found = [
        Anchor(
            anchor_id=f"A{slot}",
            name=name,
            description=None,
            part=None,
            cluster_size=NUM_SLOTS - slot + 1,
            aliases=(),
            medoid=Medoid(record_id="r", source="s", score=5.0, reason="half of it"),
            references=(),
            rubric_version="",
        )
        for slot, name in enumerate(names, start=1)
    ]
    write_anchors(folder / layout.ANCHORS, with_version(TABLE, found))
    finish(folder, "anchor", group)


def _write_source(
    run_folder: Path,
    source: str,
    records: Sequence[SmallRecord],
    bad_rows: Sequence[Mapping[str, str]],
) -> None:
    numbered = list(enumerate(records))
    folders = {
        "ingest": run_folder / layout.records(source),
        "score": run_folder / layout.ratings(TABLE, source),
        "aggregate": run_folder / layout.record_scores(TABLE, source),
    }
    rows: dict[str, int] = {}
    for start in range(0, len(numbered), ROWS_PER_PART):
        part, name = numbered[start : start + ROWS_PER_PART], part_name(start // ROWS_PER_PART)
        rows[name] = len(part)
        record_rows = [_record_row(source, number, record) for number, record in part]
        rating_rows = [_rating_row(source, number, record) for number, record in part]
        score_rows = [_score_row(source, number, record) for number, record in part]
        _write_part(folders["ingest"] / name, record_rows, RECORD_SCHEMA)
        _write_part(folders["score"] / name, rating_rows, RATING_SCHEMA)
        _write_part(folders["aggregate"] / name, score_rows, RECORD_SCORE_SCHEMA)
    lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in bad_rows)
    write_bytes(folders["ingest"] / "dropped.jsonl", lines)
    dropped = {"not_json": len(bad_rows)} if bad_rows else {}
    counts = Counts(num_in=len(records) + len(bad_rows), num_out=len(records), dropped=dropped)
    finish(folders["ingest"], "ingest", source, counts=counts, rows=rows)
    finish(folders["score"], "score", source, rows=rows)
    finish(
        folders["aggregate"],
        "aggregate",
        source,
        num_rows=len(records),
        config=AGGREGATED,
        rows=rows,
    )
    _write_tokens(run_folder, source, numbered)


def _write_tokens(
    run_folder: Path, source: str, numbered: Sequence[tuple[int, SmallRecord]]
) -> None:
    tokens = run_folder / layout.tokens(source)
    documents = [
        {
            "record_id": record_id(source, number),
            "num_tokens": record.num_tokens,
            "is_validation": record.is_validation,
            "text_hash": xxhash.xxh3_128_digest(record.text.encode()),
        }
        for number, record in numbered
    ]
    _write_part(tokens / f"{source}.records.parquet", documents, DOCUMENT_SCHEMA)
    num_tokens = sum(record.num_tokens for _, record in numbered)
    prefix = TokenPrefix(
        name=source,
        source=source,
        path_prefix=tokens / source,
        documents=tokens / f"{source}.records.parquet",
        idx_fingerprint=f"index of {source}",
        num_documents=len(numbered),
        num_tokens=num_tokens,
        num_bytes=4 * num_tokens,
    )
    dataset = TokenDataset(source=source, eod_id=0, vocab_size=300, prefixes=(prefix,))
    write_token_dataset(tokens, dataset, {})
    totals = {"tokens": num_tokens}
    counts = Counts(num_in=len(numbered), num_out=len(numbered), totals=totals)
    finish(tokens, "tokenize", source, counts=counts)


def _write_part(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    write_parquet(path, pa.Table.from_pylist(list(rows), schema=schema))


def _record_row(source: str, number: int, record: SmallRecord) -> dict[str, Any]:
    return {
        "record_id": record_id(source, number),
        "content_hash": "0" * 32,
        "source": source,
        "family": "text",
        "text": record.text,
        "meta": record.meta,
        "control_spans": [],
        "num_chars": len(record.text),
        "origin": record.origin,
    }


def _rating_row(source: str, number: int, record: SmallRecord) -> dict[str, Any]:
    return {
        "record_id": record_id(source, number),
        "content_key": "0" * 32,
        "model": record.model,
        "prompt_key": "0" * 32,
        "answer_mode": "full",
        "view_policy": "whole",
        "num_attempts": 1,
        "scores": list(record.ratings or [record.score] * NUM_SLOTS),
        "rationales": [record.rationale] * NUM_SLOTS,
        "status": "ok" if record.reason is None else record.reason,
        "reason": None if record.reason is None else record.status_reason,
    }


def _score_row(source: str, number: int, record: SmallRecord) -> dict[str, Any]:
    return {
        "record_id": record_id(source, number),
        "score": record.score,
        "reason": record.reason,
    }
