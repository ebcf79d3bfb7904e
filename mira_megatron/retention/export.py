"""One row per document with what an arm decided, for other tools: parquet, jsonl or csv.

Reads   keep/<arm>/, tokens/<source>/*.records.parquet, record_scores/, records/ (for origins)
Writes  one file of EXPORT_SCHEMA, sources sorted by name, documents in their order

One source is in memory at a time. A text in a csv may begin with `=`: a spreadsheet may take it for
a formula, so that what was not written by oneself is better read as parquet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.atomic_files import replacing
from mira_megatron.config import Recipe, nearest
from mira_megatron.manifest import read_manifest
from mira_megatron.retention.certificate import RANKED
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.documents import documents_table, score_table, token_dataset
from mira_megatron.retention.keep_masks import read_decisions
from mira_megatron.retention.selection import units
from mira_megatron.shards import read_part
from mira_megatron.stage import Resources, Run, Unit, Workspace, check_unit

logger = logging.getLogger(__name__)

EXPORT_SCHEMA = pa.schema(
    [
        pa.field("origin", pa.string()),  # raw file; of an adopted source the path of its pair
        pa.field("row", pa.int64()),  # in it: line or row from 1; of a pair the document from 0
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("decision", pa.string(), nullable=False),  # kept or dropped
        pa.field("reason", pa.string()),  # of the drop
    ]
)
_ROWS_AT_ONCE = 100_000
_ENDINGS = (".parquet", ".jsonl", ".csv")

Write = Callable[[pa.Table], None]


def export_selection(recipe: Recipe, output: Path, arm: str | None = None) -> int:
    """Writes what an arm decided about every document and returns their number.

    Raises ValueError for an ending that is none of parquet, jsonl and csv, a file that exists, an
    arm that is not named although there are several, a selection that is not finished, and records
    that are not those of the documents.
    """
    if output.suffix not in _ENDINGS:
        raise ValueError(f"{output}: must end in one of {', '.join(_ENDINGS)}")
    if output.exists():
        raise ValueError(f"{output}: exists already, and nothing is overwritten. Name another file")
    workspace = _finished(recipe, arm)
    certificate = orjson.loads((workspace.folder / layout.CERTIFICATE).read_bytes())
    num_rows = 0
    with (
        replacing(output) as temporary,
        temporary.open("wb") as file,
        _writer(file, output.suffix) as write,
    ):
        for source, decided in certificate["sources"].items():
            for table in _source_rows(workspace, source, decided["how"], certificate):
                write(table)
                num_rows += table.num_rows
    logger.info("%s: %s documents of arm %s", output, f"{num_rows:,}", certificate["arm"])
    return num_rows


def _finished(recipe: Recipe, arm: str | None) -> Workspace:
    by_arm = {unit.name: unit for unit in units(recipe)}
    if arm is None and len(by_arm) > 1:
        raise ValueError(f"{recipe.path}: several arms, name one: --arm {' | '.join(by_arm)}")
    if arm is not None and arm not in by_arm:
        raise ValueError(f"{recipe.path}: no arm {arm!r}.{nearest(arm, by_arm)}")
    unit: Unit = by_arm[arm] if arm is not None else next(iter(by_arm.values()))
    run = Run(folder=recipe.run_folder)
    folder = run.folder / unit.folder
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder}: not finished (no manifest.json). Run `mira select` first.")
    check_unit(unit, run)
    return Workspace(
        run=run,
        unit=unit,
        folder=folder,
        fingerprint=manifest.fingerprint,
        resources=Resources(),
    )


def _source_rows(
    workspace: Workspace, source: str, how: str, certificate: Mapping[str, Any]
) -> Iterator[pa.Table]:
    documents = documents_table(workspace, source, ["record_id"])
    names = pa.array(certificate["decisions"], pa.string())
    num = documents.num_rows
    scores = pa.table({"score": pa.nulls(num, pa.float32()), "reason": pa.nulls(num, pa.string())})
    if how == RANKED:
        score = certificate["score"]
        scores = score_table(workspace, score, source, documents, ["score", "reason"])
    decisions_D = np.concatenate(
        [
            read_decisions(workspace.folder / layout.decisions(prefix.name), prefix.num_documents)
            for prefix in token_dataset(workspace, source).prefixes
        ]
    )
    start = 0
    for origins in _origins(workspace, source, documents["record_id"]):
        own = slice(start, start + origins.num_rows)
        ids, decisions = documents["record_id"][own], pa.array(decisions_D[own])
        is_kept = pc.equal(decisions, int(Decision.KEPT))
        # Held out, or denied, a record is whatever its score; only of `no_score` this is the why.
        why_no_score = pc.if_else(
            pc.equal(decisions, int(Decision.NO_SCORE)),
            scores["reason"][own].combine_chunks(),
            pa.scalar(None, pa.string()),
        )
        why = pc.binary_join_element_wise(
            names.take(decisions), why_no_score, ": ", null_handling="skip"
        )
        columns = [
            origins["origin"],
            origins["row"],
            ids,
            pa.repeat(source, len(ids)),
            scores["score"][own],
            pc.if_else(is_kept, "kept", "dropped"),
            pc.if_else(is_kept, pa.scalar(None, pa.string()), why),
        ]
        yield pa.Table.from_arrays(columns, schema=EXPORT_SCHEMA)
        start += origins.num_rows
    assert start == num, source


def _origins(workspace: Workspace, source: str, record_ids: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Yields origin and row of a source's documents, in their order; these are their ids.

    Raises ValueError where the records are not those that the documents were made of.
    """
    if read_manifest(workspace.run.folder / layout.records(source)) is not None:
        start = 0
        for path, part in workspace.upstream_parts(layout.records(source), ".parquet"):
            records = read_part(path, part.digest, ["record_id", "origin"])
            end = start + records.num_rows
            if not records["record_id"].equals(record_ids[start:end]):
                raise ValueError(_other_records(source, f"records {start:,} to {end:,} of {path}"))
            start = end
            origins = records["origin"].combine_chunks()
            pieces = pc.extract_regex(origins, r"(?s)^(?P<file>.*):(?P<row>[0-9]{1,18})$")
            rows = pc.struct_field(pieces, "row").cast(pa.int64())
            files = pc.coalesce(pc.struct_field(pieces, "file"), origins)
            yield pa.table({"origin": files, "row": rows})
        if start != len(record_ids):
            where = workspace.run.folder / layout.records(source)
            raise ValueError(
                _other_records(source, f"the {start:,} records of {where}", len(record_ids))
            )
        return
    for prefix in token_dataset(workspace, source).prefixes:
        for start in range(0, prefix.num_documents, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, prefix.num_documents))
            origin = pa.repeat(str(prefix.path_prefix), len(rows))
            yield pa.table({"origin": origin, "row": rows})


def _other_records(source: str, found: str, num_documents: int | None = None) -> str:
    documents = "the documents" if num_documents is None else f"the {num_documents:,} documents"
    return (
        f"{found} are not {documents} of {layout.tokens(source)}: the source was ingested again "
        "since, so that their origins are unknown. Score and tokenise the same records again, then "
        "run `mira select`."
    )


@contextmanager
def _writer(file: BinaryIO, ending: str) -> Iterator[Write]:
    match ending:
        case ".parquet":
            with pq.ParquetWriter(file, EXPORT_SCHEMA, compression="zstd") as parquet:
                yield parquet.write_table
        case ".csv":
            with pyarrow.csv.CSVWriter(file, EXPORT_SCHEMA) as lines:
                yield lines.write_table
        case _:

            def write(table: pa.Table) -> None:
                for rows in table.to_batches(_ROWS_AT_ONCE):
                    dumped = (orjson.dumps(row) for row in rows.to_pylist())
                    file.write(b"".join(line + b"\n" for line in dumped))

            yield write
