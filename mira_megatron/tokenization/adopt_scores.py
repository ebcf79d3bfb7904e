"""The work behind `mira adopt` for scores: a score or a reason for every document."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.manifest import Counts
from mira_megatron.records import RECORD_SCORE_SCHEMA
from mira_megatron.shards import part_name, write_parquet
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.tokenization.adopt import AdoptScoresSettings
from mira_megatron.tokenization.adopted_tables import join_scores
from mira_megatron.tokenization.token_dataset import read_token_dataset


def adopt_scores(workspace: Workspace, settings: AdoptScoresSettings) -> WorkResult:
    """Writes the record scores of one adopted source, one part per prefix."""
    dataset = read_token_dataset(workspace.run.folder / layout.tokens(settings.source.name))
    ids = [pq.read_table(prefix.documents, columns=["record_id"]) for prefix in dataset.prefixes]
    record_ids = pa.concat_tables(ids)["record_id"]
    scores, reasons = join_scores(settings.source, settings.score, record_ids)
    table = pa.table([record_ids, scores, reasons], schema=RECORD_SCORE_SCHEMA)
    rows, start = {}, 0
    for number, prefix in enumerate(dataset.prefixes):
        name = part_name(number)
        write_parquet(workspace.folder / name, table.slice(start, prefix.num_documents))
        rows[name] = prefix.num_documents
        start += prefix.num_documents
    nulls = {row["values"]: row["counts"] for row in reasons.drop_null().value_counts().to_pylist()}
    return WorkResult(
        counts=Counts(
            num_in=table.num_rows,
            num_out=table.num_rows,
            totals={
                "scored": table.num_rows - sum(nulls.values()),
                **{f"null: {reason}": num for reason, num in sorted(nulls.items())},
            },
        ),
        rows=rows,
    )
