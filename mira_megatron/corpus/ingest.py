"""Ingest raw files into records, one source at a time.

Reads   the files of a source descriptor
Writes  records/<source>/part-*.parquet (records.RECORD_SCHEMA); dropped.jsonl: every malformed row
        with its file and line
Keeps   file and row order; ids and part boundaries do not depend on the number of workers

Workers turn shards of files into staged rows; one ordered pass then numbers exact duplicates,
draws the sample that `max_records` asks for, and cuts the parts. Degraded copies (sources.py) stand
behind their record, share its fate in the sample, and change neither id nor order of the others.
Memory holds one part per worker and about 100 bytes per row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from mira_megatron import layout
from mira_megatron.atomic_files import replacing
from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.corpus.raw_digests import raw_files_digest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.corpus.sources import SourceConfig, input_shards, resolve_files
from mira_megatron.corpus.staged_rows import KeptRows, kept_rows
from mira_megatron.corpus.staging import DROPPED, PART_BYTES, ShardReport, ShardTask, stage_shard
from mira_megatron.manifest import Counts
from mira_megatron.records import RECORD_SCHEMA
from mira_megatron.shards import map_shards, part_name, with_columns, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """How records are stored, and how much damage is accepted."""

    records_per_part: int
    # Raising it to let a damaged source pass changes no byte of the records.
    max_bad_fraction: float = field(metadata={"execution": True})

    def __post_init__(self) -> None:
        if self.records_per_part < 1:
            raise ValueError(f"records_per_part={self.records_per_part} must be at least 1")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction={self.max_bad_fraction} must be in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestSettings:
    """What ingest needs for one source."""

    source: str
    config: IngestConfig
    source_config: SourceConfig
    base_folder: Path  # the descriptor's, from which its paths start


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source."""
    sources = recipe_sources(recipe)
    if not sources:  # all are adopted
        return []
    config = recipe.section("ingest", IngestConfig)
    return [
        _unit(recipe, config, name, source_config, folder)
        for name, (source_config, folder) in sources.items()
    ]


def _unit(
    recipe: Recipe, config: IngestConfig, name: str, source_config: SourceConfig, folder: Path
) -> Unit:
    digests = recipe.run_folder / ".raw_digests" / f"{name}.json"

    def raw_files() -> dict[str, str]:
        files = resolve_files(source_config, folder)
        return {"raw files": raw_files_digest(files, digests)} if files else {}

    return Unit(
        stage="ingest",
        name=name,
        folder=layout.records(name),
        version=VERSION,
        config={**fingerprinted(config), "source": fingerprinted(source_config)},
        raw_files=raw_files,
        work="mira_megatron.corpus.ingest:ingest",
        settings=IngestSettings(
            source=name, config=config, source_config=source_config, base_folder=folder
        ),
    )


def ingest(workspace: Workspace, settings: IngestSettings) -> WorkResult:
    """Writes the records of one source."""
    reports = _stage_shards(workspace, settings)
    dropped: Counter[str] = Counter()
    for report in reports:
        dropped.update(report.dropped)
    num_rows = sum(report.num_rows for report in reports)
    num_copies = sum(report.num_copies for report in reports)
    _write_dropped(workspace, len(reports))
    _check_bad_fraction(workspace, settings, num_rows, sum(r.num_malformed for r in reports))
    staged = [workspace.scratch / part for report in reports for part in report.parts]
    config = settings.source_config
    with_copies = config.degraded_copies > 0
    kept = kept_rows(staged, config.max_records, with_copies=with_copies)
    dropped.update(kept.dropped)
    rows = _write_parts(workspace.folder, settings, staged, kept)
    if not rows:
        raise ValueError(
            f"source {settings.source}: no records left of {num_rows:,} rows "
            f"({dict(dropped)}). Check `fields` and the limits of its descriptor."
        )
    return WorkResult(
        counts=Counts(
            num_in=num_rows + num_copies,
            num_out=sum(rows.values()),
            dropped=dict(sorted(dropped.items())),
            totals={
                "exact_duplicates": int((kept.ordinals_R[kept.is_kept_R] > 0).sum()),
                **({"degraded_copies": kept.num_copies} if with_copies else {}),
            },
        ),
        rows=rows,
    )


def _stage_shards(workspace: Workspace, settings: IngestSettings) -> list[ShardReport]:
    files = resolve_files(settings.source_config, settings.base_folder)
    tasks = [
        ShardTask(
            source_config=settings.source_config,
            files=shard,
            records_per_part=settings.config.records_per_part,
            staging=workspace.scratch,
            index=index,
        )
        for index, shard in enumerate(input_shards(settings.source_config, files))
    ]
    title = f"ingest {settings.source}"
    return list(map_shards(stage_shard, tasks, workers=workspace.resources.workers, title=title))


def record_id(source: str, content_hash: str, ordinal: int) -> str:
    """Returns the id of the `ordinal`-th record (from 0) of a source with this content."""
    identity = xxhash.xxh3_128_hexdigest(f"{source}\0{content_hash}".encode())
    return identity if ordinal == 0 else f"{identity}-{ordinal}"


def _write_parts(
    folder: Path,
    settings: IngestSettings,
    staged: Iterable[Path],
    kept: KeptRows,
) -> dict[str, int]:
    rows: dict[str, int] = {}
    records = _numbered(settings.source, staged, kept)
    for index, table in enumerate(_recut(records, settings.config.records_per_part)):
        name = part_name(index)
        rows[name] = table.num_rows
        if not (folder / name).is_file():
            write_parquet(folder / name, table)
    return rows


def _numbered(source: str, staged: Iterable[Path], kept: KeptRows) -> Iterator[pa.Table]:
    start = 0
    for path in staged:
        table = pq.read_table(path)
        here = slice(start, start + table.num_rows)
        start += table.num_rows
        is_kept = kept.is_kept_R[here]
        ordinals = kept.ordinals_R[here][is_kept].tolist()
        table = table.filter(pa.array(is_kept))
        hashes = table["content_hash"].to_pylist()
        ids = [
            record_id(source, content, ordinal)
            for content, ordinal in zip(hashes, ordinals, strict=True)
        ]
        columns = {
            "record_id": pa.array(ids, pa.string()),
            "source": pa.array([source] * len(ids), pa.string()),
        }
        yield with_columns(table, columns, RECORD_SCHEMA)


def _recut(tables: Iterable[pa.Table], records_per_part: int) -> Iterator[pa.Table]:
    """Yields tables of `records_per_part` rows, or fewer where the texts are long."""
    held: list[pa.Table] = []
    num_rows = num_bytes = 0
    for table in tables:
        start = 0
        for row, size_bytes in enumerate(_row_bytes(table)):
            num_rows, num_bytes = num_rows + 1, num_bytes + size_bytes
            if num_rows >= records_per_part or num_bytes >= PART_BYTES:
                yield pa.concat_tables([*held, table.slice(start, row + 1 - start)])
                held, start, num_rows, num_bytes = [], row + 1, 0, 0
        if start < table.num_rows:
            held.append(table.slice(start))
    if held:
        yield pa.concat_tables(held)


def _row_bytes(table: pa.Table) -> list[int]:
    sizes = [
        pc.fill_null(pc.binary_length(table[name]), 0).to_numpy()
        for name in ("text", "payload", "meta")
    ]
    row_bytes: list[int] = np.sum(sizes, axis=0).tolist()
    return row_bytes


def _write_dropped(workspace: Workspace, num_shards: int) -> None:
    with replacing(workspace.folder / DROPPED) as path, path.open("wb") as file:
        for index in range(num_shards):
            shard = workspace.scratch / f"shard-{index:05d}.{DROPPED}"
            with shard.open("rb") as lines:
                file.writelines(lines)


def _check_bad_fraction(
    workspace: Workspace, settings: IngestSettings, num_rows: int, num_malformed: int
) -> None:
    if num_malformed <= settings.config.max_bad_fraction * num_rows:
        return
    path = workspace.folder / DROPPED
    with path.open("rb") as lines:
        first = orjson.loads(next(lines))
    # What an array of objects looks like, in one line or in many, where it is read line by line.
    is_no_jsonl = settings.source_config.format == "jsonl" and num_malformed == num_rows
    is_array = is_no_jsonl and first["reason"] in ("invalid_json", "not_an_object")
    hint = " A file that is one array of objects is read by format 'json'." if is_array else ""
    raise ValueError(
        f"source {settings.source}: {num_malformed:,} of {num_rows:,} rows are malformed, more "
        f"than ingest.max_bad_fraction={settings.config.max_bad_fraction} allows. The first is "
        f"{first['origin']}: {first['reason']} ({first['detail']}); all are listed in {path}. "
        f"Repair the file or the descriptor's `fields`, or raise the limit.{hint}"
    )
