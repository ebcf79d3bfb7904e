"""Finds a record by its id, or by the beginning of it, in the sources of a recipe.

Reads   tokens/<source>/*.records.parquet; of a source that is not tokenised yet, records/<source>/

Ids are hashes, so that no statistics of a row group rule it out: all ids are looked at, one column
in several threads. Nothing else is read, except of the row that is found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe, nearest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.tokenization.token_dataset import TokenPrefix, read_token_dataset

_MAX_THREADS = 8  # ids decode at some 200 MB/s a thread; more wait for the disk
_NUM_NAMED = 5  # ids in a message
_NUM_NEAR_CHARS = 6  # of an id that is not there, what those beginning alike are looked for with

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocatedRecord:
    """Where a record stands in its source."""

    record_id: str
    source: str
    row: int  # among the source's records and documents, from 0
    prefix: TokenPrefix | None  # None where the source has no tokens yet
    document: int | None  # row of the prefix


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A parquet file with ids, and the rows of its source that come before it."""

    path: Path
    source: str
    first_row: int
    prefix: TokenPrefix | None


def locate(recipe: Recipe, id_start: str, *, source: str | None = None) -> LocatedRecord:
    """Returns the record with this id, or else the only one whose id begins so.

    Raises ValueError for a source that the recipe lacks, an id that is unknown, with some that
    begin alike, and one that several records have or begin with.
    """
    sources = _sources(recipe, source)
    tables = [table for name in sources for table in _tables(recipe.run_folder, name)]
    if not tables:
        raise ValueError(
            f"{recipe.run_folder}: no records of {', '.join(sources)} yet. Run `mira ingest` or "
            "`mira adopt` first."
        )
    found = _matches(tables, id_start)
    if len(found.exact) == 1 or found.num == 1:
        return (found.exact or found.first)[0]
    if found.exact:
        raise ValueError(
            f"record {id_start!r} stands in {', '.join(each.source for each in found.exact)}. Say "
            "which is meant: --source NAME"
        )
    if not found.num:
        raise ValueError(_unknown(tables, sources, id_start))
    named = ", ".join(f"{each.record_id} of {each.source}" for each in found.first)
    raise ValueError(
        f"{found.num:,} records' ids begin with {id_start!r}, such as {named}. Give more of the id"
    )


def over_row_groups(
    paths: Sequence[Path],
    columns: Sequence[str],
    look: Callable[[int, int, pa.Table], Found],
) -> Iterator[Found]:
    """Yields, in order, what `look` makes of each row group: file number, first row, its table.

    Rows count from 0 in each file. Groups are read in threads: what is yielded waits in memory.
    """
    files = [pq.ParquetFile(path) for path in paths]
    asked = [
        (number, group, first)
        for number, file in enumerate(files)
        for group, first in enumerate(_group_starts(file))
    ]
    metadata = [file.metadata for file in files]
    for file in files:
        file.close()

    def read(number: int, group: int, first: int) -> Found:
        # A file object each: one is not for several threads.
        with pq.ParquetFile(paths[number], metadata=metadata[number]) as file:
            table = file.read_row_group(group, columns=list(columns), use_threads=False)
        return look(number, first, table)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        yield from pool.map(read, *zip(*asked, strict=True)) if asked else ()


def _group_starts(file: pq.ParquetFile) -> list[int]:
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [0, *accumulate(sizes)][:-1]


def _sources(recipe: Recipe, source: str | None) -> list[str]:
    names = sorted([*recipe_sources(recipe), *adopted_sources(recipe)])
    if source is None:
        return names
    if source not in names:
        raise ValueError(f"{recipe.path}: no source {source!r}.{nearest(source, names)}")
    return [source]


def _tables(run_folder: Path, source: str) -> Iterator[_Table]:
    """Yields the files with a source's ids; none where nothing of it is there yet."""
    first_row = 0
    if (run_folder / layout.tokens(source) / layout.DATASET).is_file():
        for prefix in read_token_dataset(run_folder / layout.tokens(source)).prefixes:
            yield _Table(path=prefix.documents, source=source, first_row=first_row, prefix=prefix)
            first_row += prefix.num_documents
        return
    for path in sorted((run_folder / layout.records(source)).glob("part-*.parquet")):
        yield _Table(path=path, source=source, first_row=first_row, prefix=None)
        first_row += pq.read_metadata(path).num_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Matches:
    """Records whose ids are, or begin with, what was asked for."""

    exact: tuple[LocatedRecord, ...]
    first: tuple[LocatedRecord, ...]  # the first few of `num`
    num: int


def _matches(tables: Sequence[_Table], id_start: str) -> _Matches:
    def look(number: int, first: int, rows: pa.Table) -> _Matches:
        ids = rows["record_id"]
        beginning = np.flatnonzero(pc.starts_with(ids, id_start).to_numpy())
        exact = np.flatnonzero(pc.equal(ids, id_start).to_numpy())

        def located(row: int) -> LocatedRecord:
            table = tables[number]
            return LocatedRecord(
                record_id=ids[row].as_py(),
                source=table.source,
                row=table.first_row + first + row,
                prefix=table.prefix,
                document=None if table.prefix is None else first + row,
            )

        return _Matches(
            exact=tuple(map(located, exact.tolist())),
            first=tuple(map(located, beginning[:_NUM_NAMED].tolist())),
            num=len(beginning),
        )

    found = list(over_row_groups([table.path for table in tables], ["record_id"], look))
    return _Matches(
        exact=tuple(each for matches in found for each in matches.exact),
        first=tuple(each for matches in found for each in matches.first)[:_NUM_NAMED],
        num=sum(matches.num for matches in found),
    )


def _unknown(tables: Sequence[_Table], sources: Sequence[str], id_start: str) -> str:
    """Returns the message about an id that is not there."""
    start = id_start[:_NUM_NEAR_CHARS]
    near = _matches(tables, start).first if len(id_start) > len(start) else ()
    named = ", ".join(f"{each.record_id} of {each.source}" for each in near)
    alike = f" With {start!r} begin {named}." if near else ""
    return (
        f"no record's id is or begins with {id_start!r} in {', '.join(sources)}.{alike} Ids are 32 "
        "hex digits, of repeated content with -1, -2 … after them, or what an adopted source calls "
        "its documents; records that ingest dropped have none (records/<source>/dropped.jsonl). "
        "`mira export` lists all of them."
    )
