"""What selection, blend and report all know of documents: their tables, masks and scopes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.shards import read_part
from mira_megatron.stage import Workspace
from mira_megatron.tokenization.degraded_documents import is_text_of, read_copies
from mira_megatron.tokenization.token_dataset import TokenDataset, read_token_dataset

logger = logging.getLogger(__name__)

Read = TypeVar("Read")


class SharedTables:
    """Tables that several arms of one run of the stage read: each is read once.

    Lives as long as the units that hold it. What was read is known by the digests of its files, so
    that a table made anew in between is read anew.
    """

    def __init__(self) -> None:
        self._read: dict[tuple[object, ...], object] = {}

    def once(self, key: tuple[object, ...], read: Callable[[], Read]) -> Read:
        """Returns what `read` returns, or what it returned for an equal key before."""
        if key not in self._read:
            # Of an older state of the same table, only one is of use.
            self._read = {old: table for old, table in self._read.items() if old[:-1] != key[:-1]}
            self._read[key] = read()
        return cast("Read", self._read[key])


def read_documents(workspace: Workspace, sources: Iterable[str]) -> dict[str, pa.Table]:
    """Returns per source its documents table, with a column `repeats_held_out`.

    That column is true where the text is that of a held-out document of any source, which includes
    the held-out documents themselves, and for every degraded copy of such a document.
    """
    columns = ["record_id", "num_tokens", "is_validation", "text_hash"]
    tables = {source: documents_table(workspace, source, columns) for source in sources}
    held_out = [table.filter(table["is_validation"])["text_hash"] for table in tables.values()]
    hashes = pa.chunked_array(
        [chunk for column in held_out for chunk in column.chunks], pa.binary(16)
    )
    return {
        source: table.append_column(
            "repeats_held_out",
            pa.array(is_text_of(table, read_copies(workspace, source), hashes)),
        )
        for source, table in tables.items()
    }


def documents_table(workspace: Workspace, source: str, columns: Sequence[str]) -> pa.Table:
    """Returns columns of all documents of a source, one prefix after another."""
    folder = layout.tokens(source)
    digests = {
        path: part.digest for path, part in workspace.upstream_parts(folder, ".records.parquet")
    }
    return pa.concat_tables(
        [
            read_part(prefix.documents, digests[prefix.documents], columns)
            for prefix in token_dataset(workspace, source).prefixes
        ]
    )


def score_table(
    workspace: Workspace, score: str, source: str, documents: pa.Table, columns: Sequence[str]
) -> pa.Table:
    """Returns columns of a source's record scores, row i of document i.

    Raises ValueError where they are not the same records.
    """
    folder = layout.record_scores(score, source)
    scores = pa.concat_tables(
        [
            read_part(path, part.digest, ["record_id", *columns])
            for path, part in workspace.upstream_parts(folder, ".parquet")
        ]
    )
    where = workspace.run.folder / folder
    tokens = layout.tokens(source)
    return in_document_order(where, scores, documents["record_id"], tokens).select(columns)


def in_document_order(
    where: Path, scores: pa.Table, record_ids: pa.ChunkedArray, tokens: str
) -> pa.Table:
    """Returns the rows of scores with a column `record_id`, row i of document i.

    Rows in the order of the documents are taken as they are; in another order they are joined by
    id. Raises ValueError, which names `where` scores and tokens lie, where they are not the same
    records.
    """
    if scores["record_id"].equals(record_ids):
        return scores
    rows = pc.index_in(record_ids, scores["record_id"])
    if rows.null_count or scores.num_rows != len(record_ids):
        missing = record_ids.filter(pc.is_null(rows))
        tail = f", such as {missing[0].as_py()!r}" if len(missing) else ""
        raise ValueError(
            f"{where}: its {scores.num_rows:,} records are not the {len(record_ids):,} "
            f"documents of {tokens}: {len(missing):,} of these have no row{tail}. "
            "Score and tokenise the same records again."
        )
    logger.info("%s: in another order than %s, joined by id", where, tokens)
    return scores.take(rows)


def token_dataset(workspace: Workspace, source: str) -> TokenDataset:
    """Returns where the tokens of a source lie."""
    return read_token_dataset(workspace.run.folder / layout.tokens(source))


def kept_by_arm(workspace: Workspace, arm: str, source: str) -> npt.NDArray[np.bool_]:
    """Returns which documents of a source an arm keeps, one prefix after another."""
    folder = workspace.run.folder / layout.keep(arm)
    masks = [
        read_keep_mask(folder / f"{prefix.name}.keep.npy").is_kept
        for prefix in token_dataset(workspace, source).prefixes
    ]
    return np.concatenate(masks)


def texts_of_arms(
    workspace: Workspace, arms: Sequence[str], tables: Mapping[str, pa.Table]
) -> pa.ChunkedArray:
    """Returns the hashes of the texts that any of the arms keeps, of the sources in `tables`."""
    chunks: list[pa.Array] = []
    for arm in arms:
        for source, table in tables.items():
            is_kept = pa.array(kept_by_arm(workspace, arm, source))
            chunks += table["text_hash"].filter(is_kept).chunks
    return pa.chunked_array(chunks, pa.binary(16))


def scope_name(scope: str, *, source: str, source_group: str) -> str:
    """Returns the name of the scope that a source's documents are ranked in."""
    match scope:
        case "global":
            return "all"
        case "group":
            return source_group
        case _:
            return source
