"""The parts of a recipe's records, looked through by several processes; finished ones are kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.eval.contamination import ngram_index
from mira_megatron.eval.contamination.items import MIN_SCORE, Item
from mira_megatron.eval.contamination.needles import (
    Needles,
    build_needles,
    has_needles,
    open_needles,
    save_needles,
    sql_version,
)
from mira_megatron.eval.contamination.scan import PartTask, scan_part
from mira_megatron.grouping.source_groups import group_of_source
from mira_megatron.manifest import read_manifest, verify_parts
from mira_megatron.shards import json_digest, map_shards
from mira_megatron.written_numbers import grouped

logger = logging.getLogger(__name__)

SCAN_VERSION = 2  # of everything between the bytes of a record and a score
_SCRATCH = ".scratch"


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusPart:
    """One part of the records of a source."""

    source: str
    group: str  # source group
    path: Path
    digest: str
    num_records: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What was looked for, and what of it each part has."""

    needles: Needles
    needles_digest: str
    hits: tuple[pa.Table, ...]  # by part, in their order
    num_kept: int  # parts that an earlier run had scanned


def corpus_parts(recipe: Recipe) -> list[CorpusPart]:
    """Returns the parts of all sources with records.

    Raises ValueError for a source that is not ingested, or whose parts are not those of its
    manifest.
    """
    parts = []
    groups = group_of_source(recipe)
    for source in recipe_sources(recipe):
        folder = recipe.run_folder / layout.records(source)
        manifest = read_manifest(folder)
        if manifest is None:
            raise ValueError(
                f"{folder}: source {source} has no finished records to look through; run "
                f"`mira ingest {recipe.path}` first"
            )
        verify_parts(folder, manifest)
        parts += [
            CorpusPart(
                source=source,
                group=groups[source],
                path=folder / part.path,
                digest=part.digest,
                num_records=part.num_rows or 0,
            )
            for part in manifest.parts
            if part.path.startswith("part-")
        ]
    return parts


def scan_corpus(
    parts: Sequence[CorpusPart],
    items: Sequence[Item],
    output: Path,
    *,
    max_items: int,
    workers: int,
) -> Scan:
    """Returns the hits of every part; those of an earlier scan for the same are read, not made."""
    digest = needles_digest(items, max_items)
    folder = output / _SCRATCH / f"needles-{digest}"
    if not has_needles(folder):
        save_needles(build_needles(items, max_items), folder)
    tasks = [
        PartTask(
            part=part.path,
            digest=part.digest,
            needles=folder,
            needles_digest=digest,
            output=output / "parts" / part.source / part.path.name,
        )
        for part in parts
    ]
    num_kept = 0
    scanned = map_shards(scan_part, tasks, workers=workers, title="decontaminate")
    for part, result in zip(parts, scanned, strict=True):
        num_kept += not result.is_anew
        logger.info(
            "decontaminate %s %s: %s records, %s hits%s",
            part.source,
            part.path.name,
            grouped(part.num_records),
            grouped(result.num_hits),
            "" if result.is_anew else ", kept from an earlier run",
        )
    return Scan(
        needles=open_needles(folder),
        needles_digest=digest,
        hits=tuple(pq.read_table(task.output) for task in tasks),
        num_kept=num_kept,
    )


def needles_digest(items: Sequence[Item], max_items: int) -> str:
    """Returns the digest of everything beside a part's bytes that its hits depend on."""
    settings = {
        "version": SCAN_VERSION,
        "ngram_tokens": {form.value: n for form, n in ngram_index.NGRAM_TOKENS.items()},
        "min_lettered": ngram_index.MIN_LETTERED,
        "min_ngrams": {form.value: n for form, n in ngram_index.MIN_NGRAMS.items()},
        "max_items": max_items,
        "min_score": MIN_SCORE,
        "sqlglot": sql_version() if any(item.query for item in items) else None,
    }
    return json_digest([settings, [asdict(item) for item in items]])
