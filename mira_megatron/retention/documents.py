"""What selection and report both know of documents: copies of held-out texts, and scopes."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.shards import read_part
from mira_megatron.stage import Workspace


def read_documents(workspace: Workspace, sources: Iterable[str]) -> dict[str, pa.Table]:
    """Returns per source its documents table, with a column `repeats_held_out`.

    That column is true where the text is that of a held-out document of any source, which includes
    the held-out documents themselves.
    """
    tables = {}
    for source in sources:
        ((path, part),) = workspace.upstream_parts(layout.tokens(source), ".records.parquet")
        columns = ["record_id", "num_tokens", "is_validation", "text_hash"]
        tables[source] = read_part(path, part.digest, columns)
    held_out = [table.filter(table["is_validation"])["text_hash"] for table in tables.values()]
    hashes = pa.chunked_array(
        [chunk for column in held_out for chunk in column.chunks], pa.binary(16)
    )
    return {
        source: table.drop_columns("text_hash").append_column(
            "repeats_held_out", pc.is_in(table["text_hash"], hashes)
        )
        for source, table in tables.items()
    }


def scope_name(scope: str, *, source: str, source_group: str) -> str:
    """Returns the name of the scope that a source's documents are ranked in."""
    match scope:
        case "global":
            return "all"
        case "group":
            return source_group
        case _:
            return source
