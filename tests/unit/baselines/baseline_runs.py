"""Runs of the stage `baseline` over small corpora written for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources


def recipe_over(
    folder: Path, texts: Mapping[str, Sequence[str]], baselines: Mapping[str, Any]
) -> Recipe:
    """Returns a recipe whose sources hold these texts, one record each, four records a part."""
    for source, rows in texts.items():
        lines = [orjson.dumps({"text": text}) for text in rows]
        (folder / f"{source}.jsonl").write_bytes(b"\n".join(lines))
    sources = {
        source: {
            "format": "jsonl",
            "family": "text",
            "fields": {"text": "text"},
            "paths": [str(folder / f"{source}.jsonl")],
        }
        for source in texts
    }
    recipe = {
        "run_folder": str(folder / "run"),
        "seed": 7,
        "sources": sources,
        "ingest": {"records_per_part": 4, "max_bad_fraction": 0.0},
        "baselines": baselines,
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(recipe))
    return load_recipe(path)


def run_baselines(recipe: Recipe, workers: int = 1) -> None:
    """Ingests the sources and scores their records."""
    run_stages(recipe, ["ingest", "baseline"], Resources(workers=workers))


def scores_of(recipe: Recipe, baseline: str, source: str) -> dict[str, tuple[float | None, Any]]:
    """Returns score and reason of every record, by its text."""
    records = table_of(recipe.run_folder / "records" / source, ["record_id", "text"])
    scores = table_of(recipe.run_folder / "record_scores" / baseline / source)
    assert scores["record_id"].equals(records["record_id"])
    rows = zip(*(scores[name].to_pylist() for name in ("score", "reason")), strict=True)
    return dict(zip(records["text"].to_pylist(), rows, strict=True))


def table_of(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns the rows of all parts of a folder."""
    paths = sorted(folder.glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(path, columns=columns) for path in paths])
