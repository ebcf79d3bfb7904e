"""The records that a job's price rests on: a seeded sample over all sources of a group.

Which record is in it depends neither on order nor on workers (see corpus.sampling). Where a job
asks about a sample, as `label` does, ours is taken from the very records that it is going to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.corpus.sampling import sample_ids
from mira_megatron.manifest import read_manifest, verify_parts
from mira_megatron.planning.jobs import Job
from mira_megatron.records import RECORD_SCHEMA, Record, records_from_table
from mira_megatron.shards import map_shards

PURPOSE = "plan"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Some of the records that a job asks about."""

    num_records: int  # that the job asks about
    records: tuple[Record, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawing:
    path: Path
    n: int
    seed: int
    purpose: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    path: Path
    record_ids: frozenset[str]


def draw(run_folder: Path, job: Job, n: int, *, seed: int, workers: int) -> Sample:
    """Returns up to `n` of the records that the job asks about, and how many those are.

    Parts are not digested: reading whole texts of a corpus for two hundred of them would take
    hours, and the stages check every byte. Raises ValueError for a part that is gone or has
    another size.
    """
    num_records = 0
    drawn: dict[Path, set[str]] = {}
    for source in job.sources:
        num_of_source, of_parts = _draw_source(run_folder, job, source, n, seed, workers)
        num_records += num_of_source
        drawn.update(of_parts)
    chosen = sample_ids(chain.from_iterable(drawn.values()), n, seed=seed, purpose=PURPOSE)
    readings = [
        _Reading(path=path, record_ids=frozenset(record_ids & chosen))
        for path, record_ids in drawn.items()
        if record_ids & chosen
    ]
    title = f"plan {job.stage} {job.group}: read the sample"
    tables = map_shards(_read, readings, workers=workers, title=title, in_threads=True)
    return Sample(num_records=num_records, records=tuple(chain.from_iterable(tables)))


def _draw_source(
    run_folder: Path, job: Job, source: str, n: int, seed: int, workers: int
) -> tuple[int, dict[Path, set[str]]]:
    """Returns how many records of a source are asked about, and up to `n` of them by part."""
    paths, num_records = _parts(run_folder, source)
    if job.records_per_source is None:
        return num_records, _draw_parts(job, paths, n, seed, PURPOSE, workers)
    most, purpose = job.records_per_source, job.drawn_as
    drawn = _draw_parts(job, paths, most, seed, purpose, workers)
    ids = sample_ids(chain.from_iterable(drawn.values()), most, seed=seed, purpose=purpose)
    return len(ids), {path: of_part & ids for path, of_part in drawn.items()}


def _draw_parts(
    job: Job, paths: Sequence[Path], n: int, seed: int, purpose: str, workers: int
) -> dict[Path, set[str]]:
    drawings = [_Drawing(path=path, n=n, seed=seed, purpose=purpose) for path in paths]
    title = f"plan {job.stage} {job.group}: sample"
    drawn = map_shards(_draw, drawings, workers=workers, title=title, in_threads=True)
    return dict(zip(paths, drawn, strict=True))


def _parts(run_folder: Path, source: str) -> tuple[list[Path], int]:
    """Returns the parts of a source's records, and how many records they hold."""
    folder = run_folder / layout.records(source)
    manifest = read_manifest(folder)
    assert manifest is not None, folder
    verify_parts(folder, manifest)
    paths = [folder / part.path for part in manifest.parts if part.path.endswith(".parquet")]
    return paths, manifest.counts.num_out


def _draw(drawing: _Drawing) -> set[str]:
    record_ids = pq.read_table(drawing.path, columns=["record_id"])["record_id"].to_pylist()
    return sample_ids(record_ids, drawing.n, seed=drawing.seed, purpose=drawing.purpose)


def _read(reading: _Reading) -> list[Record]:
    # Batch by batch: of a part of ten thousand long texts only the rows asked for are kept.
    is_wanted = pc.field("record_id").isin(sorted(reading.record_ids))
    table = pq.read_table(reading.path, columns=RECORD_SCHEMA.names, filters=is_wanted)
    return records_from_table(table)
