"""Ids and scores of adopted documents, joined from tables that other tools wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron.tokenization.adopted import AdoptedSource, TableConfig
from mira_megatron.tokenization.index_file import read_index

NOT_IN_TABLE, NOT_A_NUMBER = "not_in_table", "not_a_number"
_ROWS_AT_ONCE = 1 << 20
_WIDE = pa.large_string()  # to look ids up: of many documents they are more than a string's 2 GiB


def read_ids(source: AdoptedSource, prefixes: Sequence[Path]) -> list[pa.ChunkedArray]:
    """Returns the record ids of each prefix's documents, every prefix's in memory of its own.

    Without a table, document 7 of `/data/wiki_2` in source `wiki` is `wiki:wiki_2:7`: the id hangs
    on the file's name, not on its place, so files that are added rename no document. Raises
    ValueError for a table that leaves a document without an id, or gives one id to two.
    """
    counts = [read_index(prefix).num_documents for prefix in prefixes]
    if source.ids is None:
        return [
            _numbered(f"{source.name}:{prefix.name}", count)
            for prefix, count in zip(prefixes, counts, strict=True)
        ]
    where = f"adopt.{source.name}.ids"
    values, document = read_joined(source, source.ids, where, sum(counts), record_ids=None)
    if len(values) != sum(counts):
        raise ValueError(
            f"{where}: {len(values):,} ids for {sum(counts):,} documents; every document needs one"
        )
    ids = values.cast(_WIDE).combine_chunks()
    if ids.null_count or pc.count_distinct(ids).as_py() != len(ids):
        raise ValueError(
            f"{where}: {ids.null_count:,} ids are null and {pc.count_distinct(ids).as_py():,} of "
            f"{len(ids):,} are distinct; a record's id names it alone"
        )
    rows = pa.array(np.argsort(document, kind="stable"))
    ends = np.cumsum(counts)
    return [
        _chunked(end - count, end, lambda start, stop: ids.take(rows[start:stop]).cast(pa.string()))
        for end, count in zip(ends.tolist(), counts, strict=True)
    ]


def _numbered(name: str, count: int) -> pa.ChunkedArray:
    def piece(start: int, stop: int) -> pa.Array:
        numbers = pa.array(np.arange(start, stop)).cast(pa.string())
        return pc.binary_join_element_wise(name, numbers, ":")

    return _chunked(0, count, piece)


def _chunked(start: int, stop: int, piece: Callable[[int, int], pa.Array]) -> pa.ChunkedArray:
    """Returns strings of rows start..stop, made piece by piece: an array holds at most 2 GiB."""
    pieces = [piece(at, min(at + _ROWS_AT_ONCE, stop)) for at in range(start, stop, _ROWS_AT_ONCE)]
    return pa.chunked_array(pieces, pa.string())


def join_scores(
    source: AdoptedSource, score: str, record_ids: pa.ChunkedArray
) -> tuple[pa.Array, pa.Array]:
    """Returns score (float32 or null) and reason of a null for every document, in order."""
    table = source.scores[score]
    where = f"adopt.{source.name}.scores.{score}"
    values, document = read_joined(source, table, where, len(record_ids), record_ids=record_ids)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise ValueError(f"{where}: column {table.column!r} holds {values.type}, expected numbers")
    # Unchecked: whole numbers are rounded, as fractions are. A null becomes NaN.
    given = values.cast(pa.float64(), safe=False).cast(pa.float32(), safe=False).to_numpy()
    scores = np.full(len(record_ids), np.nan, dtype=np.float32)
    is_listed = np.zeros(len(record_ids), dtype=bool)
    scores[document], is_listed[document] = given, True
    is_number = np.isfinite(scores)
    why_null = np.where(is_listed, 0, 1).astype(np.int8)
    reasons = pa.DictionaryArray.from_arrays(
        pa.array(why_null, mask=is_number), pa.array([NOT_A_NUMBER, NOT_IN_TABLE])
    )
    return pa.array(scores, mask=~is_number), reasons.cast(pa.string())


def read_joined(
    source: AdoptedSource,
    table: TableConfig,
    where: str,
    num_documents: int,
    *,
    record_ids: pa.ChunkedArray | None,
) -> tuple[pa.ChunkedArray, npt.NDArray[np.int64]]:
    """Returns the values of a table and the document each belongs to.

    Raises ValueError for a column that is missing, a document that is none or is listed twice, and
    rows without a key whose number is not that of the documents.
    """
    key = table.document or table.record_id
    columns = [table.column, *([key] if key else [])]
    content = _read_table(source.table_paths(table), columns, where)
    values = content[table.column]
    if key is None:
        if len(values) != num_documents:
            raise ValueError(
                f"{where}: {len(values):,} rows for {num_documents:,} documents. Name the column "
                "that says which is which (document or record_id), or give one row per document."
            )
        return values, np.arange(num_documents)
    keys = content[key]
    if table.document is not None:
        document = _document_numbers(keys, where)
    elif record_ids is None:
        raise ValueError(f"{where}: ids are joined by document number, not by id")
    else:
        document = _positions(keys, record_ids, where)
    _check_documents(document, num_documents, where)
    return values, document


def _read_table(paths: Sequence[Path], columns: Sequence[str], where: str) -> pa.Table:
    tables = []
    for path in paths:
        try:
            names = pq.read_schema(path).names
        except pa.ArrowInvalid as error:
            raise ValueError(f"{where}: {path}: not a parquet file ({error})") from error
        missing = [column for column in columns if column not in names]
        if missing:
            raise ValueError(
                f"{where}: {path}: no column {missing[0]!r}; it has {', '.join(names)}"
            )
        tables.append(pq.read_table(path, columns=list(columns)))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        types = "; ".join(
            f"{path}: {', '.join(f'{field.name} {field.type}' for field in table.schema)}"
            for path, table in zip(paths, tables, strict=True)
        )
        raise ValueError(
            f"{where}: its files hold columns of types that do not go together ({types}). Write "
            "them with one type."
        ) from error


def _document_numbers(keys: pa.ChunkedArray, where: str) -> npt.NDArray[np.int64]:
    if not pa.types.is_integer(keys.type) or keys.null_count:
        raise ValueError(f"{where}: document numbers must be whole numbers, got {keys.type}")
    try:
        numbers: npt.NDArray[np.int64] = keys.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{where}: document number {pc.max(keys).as_py():,} is no document's. Numbers start at "
            "0 and run through all prefixes of the source."
        ) from error
    return numbers


def _positions(
    keys: pa.ChunkedArray, record_ids: pa.ChunkedArray, where: str
) -> npt.NDArray[np.int64]:
    found = pc.index_in(keys.cast(_WIDE), record_ids.cast(_WIDE))
    if found.null_count:
        unknown = keys.filter(pc.is_null(found))[0].as_py()
        raise ValueError(
            f"{where}: {found.null_count:,} of {len(keys):,} ids are no document's, such as "
            f"{unknown!r}. Ids are those of adopt.<source>.ids, or "
            "<source>:<file name of the prefix>:<document number in it>."
        )
    positions: npt.NDArray[np.int64] = found.cast(pa.int64()).to_numpy()
    return positions


def _check_documents(document: npt.NDArray[np.int64], num_documents: int, where: str) -> None:
    outside = document[(document < 0) | (document >= num_documents)]
    if len(outside):
        raise ValueError(
            f"{where}: document number {outside[0]:,}, but the source has documents "
            f"0..{num_documents - 1:,}. Numbers start at 0 and run through all its prefixes."
        )
    times = np.bincount(document, minlength=num_documents)
    if (times > 1).any():
        raise ValueError(
            f"{where}: document {int(np.argmax(times > 1)):,} is listed more than once. "
            "Numbers run through all prefixes of a source; tables that each start at 0 belong to "
            "sources of their own."
        )
