"""`degraded_copies.parquet`: which documents of a source are degraded copies, one row per copy.

In the documents table a copy has its parent's `text_hash`, so that whatever keeps the texts of
held-out documents, or of another arm, out of training keeps their copies out as well. The parent
stands before its copies, so it is the parent that is held out. What a copy itself says is hashed
here: it could be what another held-out document says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.corpus.degraded_copies import way_and_parent
from mira_megatron.shards import read_part, write_parquet
from mira_megatron.stage import Workspace

_HASH = pa.binary(16)
COPY_SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),  # from 0, as in the documents table
        pa.field("degraded", pa.string(), nullable=False),  # the way, one of degradation.WAYS
        pa.field("own_text_hash", _HASH, nullable=False),  # xxh3_128 of the copy's UTF-8
    ]
)


def write_copies(workspace: Workspace, source: str, documents: pa.Table) -> pa.Table:
    """Writes which documents are copies, and returns them with their parents' text hashes.

    `documents` have a column `text_hash`, of what they say themselves.
    """
    ways: dict[int, str] = {}
    parents: list[bytes] = documents["text_hash"].to_pylist()
    start = 0
    for path, part in workspace.upstream_parts(layout.records(source), ".parquet"):
        metas = read_part(path, part.digest, ["meta"])["meta"].to_pylist()
        for number, meta in enumerate(metas, start=start):
            copy = way_and_parent(meta)
            if copy is not None:
                ways[number], parents[number] = copy[0], bytes.fromhex(copy[1])
        start += len(metas)
    own = documents["text_hash"].take(pa.array(list(ways), pa.int64())).combine_chunks()
    columns = [pa.array(list(ways), pa.int64()), pa.array(list(ways.values()), pa.string()), own]
    copies = pa.Table.from_arrays(columns, schema=COPY_SCHEMA)
    write_parquet(workspace.folder / layout.COPIES, copies)
    column = documents.schema.get_field_index("text_hash")
    field = documents.schema.field(column)
    return documents.set_column(column, field, pa.array(parents, _HASH))


def read_copies(workspace: Workspace, source: str) -> pa.Table | None:
    """Returns a source's copies (COPY_SCHEMA); None for a source that is not asked for any."""
    for path, part in workspace.upstream_parts(layout.tokens(source), layout.COPIES):
        return read_part(path, part.digest, COPY_SCHEMA.names)
    return None


def copies_beside(documents: Path) -> pa.Table | None:
    """Returns the copies among the documents of a table, by the table's path."""
    path = documents.with_name(layout.COPIES)
    return pq.read_table(path) if path.is_file() else None


def is_text_of(
    documents: pa.Table, copies: pa.Table | None, texts: pa.ChunkedArray
) -> npt.NDArray[np.bool_]:
    """Returns which documents say one of the texts (hashes), or are copies of one that does."""
    is_one = pc.is_in(documents["text_hash"], texts).to_numpy()
    if copies is not None:
        is_one = is_one.copy()  # Arrow's memory is not to be written to
        says_one = pc.is_in(copies["own_text_hash"], texts)
        is_one[copies["document"].filter(says_one).to_numpy()] = True
    found: npt.NDArray[np.bool_] = is_one
    return found
