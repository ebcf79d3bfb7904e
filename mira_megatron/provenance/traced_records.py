"""Record ids and scores of a few documents, out of tables of any length.

Reads   tokens/<source>/*.records.parquet, record_scores/<scoring>/<source>/part-*.parquet

Only row groups that hold a wanted row are read; a search by id goes through one at a time.

Shape letters: N wanted rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.tokenization.token_dataset import TokenPrefix

UNSCORED = "no_score"  # the reason where a score table has no row for the record


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordScore:
    """A record's score, or why it has none."""

    score: float | None  # 0-10
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRecord:
    """A record of the token datasets."""

    record_id: str
    prefix: TokenPrefix
    document: int  # row of the prefix
    num_tokens: int
    is_validation: bool


def read_rows(
    paths: Sequence[Path], rows_N: npt.NDArray[np.int64], columns: Sequence[str]
) -> pa.Table:
    """Returns columns of rising row numbers, counted through the files in their order.

    Rows past the end are left out.
    """
    tables = [pq.read_schema(paths[0]).empty_table().select(columns)]
    first = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows_N, [first, end])
                if low < high:
                    table = file.read_row_group(group, columns=list(columns))
                    tables.append(table.take(pa.array(rows_N[low:high] - first)))
                first = end
    return pa.concat_tables(tables)


def record_ids(prefix: TokenPrefix, documents_N: npt.NDArray[np.int64]) -> list[str]:
    """Returns the record id of each of a prefix's documents; numbers rise."""
    ids: list[str] = read_rows([prefix.documents], documents_N, ["record_id"])[
        "record_id"
    ].to_pylist()
    if len(ids) != len(documents_N):
        raise ValueError(
            f"{prefix.documents}: has no row {documents_N[-1]:,}, but {prefix.path_prefix}.idx has "
            f"such a document. The two do not belong together; make {prefix.source} anew."
        )
    return ids


def record_scores(
    run_folder: Path, scoring: str | None, source: str, rows_by_id: Mapping[str, int]
) -> dict[str, RecordScore]:
    """Returns the scores of records of a source, given their places among its records.

    A table in record order gives them at once; another is searched for the ids.
    """
    folder = run_folder / layout.record_scores(scoring or "", source)
    paths = sorted(folder.glob("part-*.parquet")) if scoring else []
    if not paths or not rows_by_id:
        return dict.fromkeys(rows_by_id, RecordScore(score=None, reason=UNSCORED))
    ordered = sorted(rows_by_id, key=lambda record_id: rows_by_id[record_id])
    rows = np.array([rows_by_id[record_id] for record_id in ordered], dtype=np.int64)
    columns = ["record_id", "score", "reason"]
    table = read_rows(paths, rows, columns)
    if table["record_id"].to_pylist() != ordered:
        wanted = pa.array(ordered, pa.string())
        parts = (pq.read_table(path, columns=columns) for path in paths)
        table = pa.concat_tables(
            [part.filter(pc.is_in(part["record_id"], wanted)) for part in parts]
        )
    found = {
        row["record_id"]: RecordScore(score=row["score"], reason=row["reason"])
        for row in table.to_pylist()
    }
    return {
        record_id: found.get(record_id, RecordScore(score=None, reason=UNSCORED))
        for record_id in ordered
    }


def find_records(
    prefixes: Sequence[TokenPrefix], id_start: str, *, at_most: int
) -> list[FoundRecord]:
    """Returns the record with this id, or else those whose ids begin so.

    Raises ValueError for an unknown id, and where more than `at_most` ids begin so.
    """
    found: list[FoundRecord] = []
    for prefix in prefixes:
        found.extend(_beginning_with(prefix, id_start))
    exact = [each for each in found if each.record_id == id_start]
    found = exact or found
    if not found:
        sources = sorted({prefix.source for prefix in prefixes})
        raise ValueError(
            f"no record's id is or begins with {id_start!r} in {', '.join(sources)}. Ids are 32 "
            "hex digits, of repeated content with -1, -2 … after them; records that ingest dropped "
            "have none (records/<source>/dropped.jsonl)."
        )
    if len(found) > at_most:
        raise ValueError(
            f"{len(found):,} records' ids begin with {id_start!r}, such as {found[0].record_id} "
            f"and {found[1].record_id}; give more of the id"
        )
    return found


def _beginning_with(prefix: TokenPrefix, id_start: str) -> list[FoundRecord]:
    columns = ["record_id", "num_tokens", "is_validation"]
    found: list[FoundRecord] = []
    first = 0
    with pq.ParquetFile(prefix.documents) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns)
            rows = np.flatnonzero(pc.starts_with(table["record_id"], id_start).to_numpy())
            found.extend(
                FoundRecord(prefix=prefix, document=first + row, **values)
                for row, values in zip(rows.tolist(), table.take(rows).to_pylist(), strict=True)
            )
            first += table.num_rows
    return found
