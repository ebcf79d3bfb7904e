"""The sample of a source's records that stands for it, and its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mira_megatron import layout
from mira_megatron.corpus.sampling import sample_ids
from mira_megatron.endpoints import api_key
from mira_megatron.grouping.embedders import embed
from mira_megatron.grouping.group import SampleSettings
from mira_megatron.grouping.unit_vectors import Floats
from mira_megatron.manifest import Counts
from mira_megatron.shards import map_shards, read_part
from mira_megatron.stage import Workspace

SAMPLE = "sample.parquet"
SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),  # as much of it as is embedded
    ]
)
_PURPOSE = "group"


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartTask:
    source: str
    records: Path
    digest: str
    settings: SampleSettings


def draw_sample(workspace: Workspace, sources: Sequence[str], settings: SampleSettings) -> pa.Table:
    """Returns sampled records of all the sources, sorted by source and record id."""
    tasks = [
        _PartTask(source=source, records=path, digest=part.digest, settings=settings)
        for source in sources
        for path, part in workspace.upstream_parts(layout.records(source), ".parquet")
    ]
    workers = workspace.resources.workers
    found = map_shards(_sample_part, tasks, workers=workers, title=f"sample {workspace.unit.name}")
    texts: dict[str, dict[str, str]] = {source: {} for source in sources}
    for task, candidates in zip(tasks, found, strict=True):
        texts[task.source] = _drawn({**texts[task.source], **candidates}, settings)
    rows = sorted(
        (source, record_id, text)
        for source, chosen in texts.items()
        for record_id, text in chosen.items()
    )
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    return pa.table([list(column) for column in columns], schema=SAMPLE_SCHEMA)


def sample_counts(workspace: Workspace, sources: Sequence[str], sample: pa.Table) -> Counts:
    """Returns how many of the sources' records were sampled."""
    manifests = [workspace.upstream_manifest(layout.records(source)) for source in sources]
    num_records = sum(manifest.counts.num_out for manifest in manifests)
    num_dropped = num_records - sample.num_rows
    return Counts(
        num_in=num_records,
        num_out=sample.num_rows,
        dropped={"not_sampled": num_dropped} if num_dropped else {},
    )


def sample_vectors(
    workspace: Workspace, sample: pa.Table, settings: SampleSettings
) -> dict[str, Floats]:
    """Returns the vectors of each source's sampled records, all embedded together."""
    key_name = settings.embedder.api_key_env
    vectors = embed(
        sample["text"].to_pylist(),
        settings.embedder,
        seed=settings.seed,
        api_key=api_key(key_name, workspace.resources.secrets, "embedder"),
        cache_folder=workspace.scratch,
    )
    rows_of: dict[str, list[int]] = {}
    for row, source in enumerate(sample["source"].to_pylist()):
        rows_of.setdefault(source, []).append(row)
    return {source: vectors[rows] for source, rows in rows_of.items()}


def _sample_part(task: _PartTask) -> dict[str, str]:
    """Returns the texts of the part's records that may belong to the sample, by record id."""
    table = read_part(task.records, task.digest, ["record_id", "text"])
    record_ids = table["record_id"].to_pylist()
    wanted = _sampled(record_ids, task.settings)
    rows = [row for row, record_id in enumerate(record_ids) if record_id in wanted]
    texts = table["text"].take(rows).to_pylist()
    max_chars = task.settings.embedder.max_chars
    return {record_ids[row]: text[:max_chars] for row, text in zip(rows, texts, strict=True)}


def _drawn(texts: dict[str, str], settings: SampleSettings) -> dict[str, str]:
    wanted = _sampled(list(texts), settings)
    return {record_id: text for record_id, text in texts.items() if record_id in wanted}


def _sampled(record_ids: Sequence[str], settings: SampleSettings) -> set[str]:
    return sample_ids(record_ids, settings.records_per_source, seed=settings.seed, purpose=_PURPOSE)
