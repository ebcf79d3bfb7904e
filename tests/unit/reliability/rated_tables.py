"""Tables of ratings to be aggregated, of few columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from mira_megatron.records import NUM_SLOTS, RATING_SCHEMA

# Record id, the slots that were answered (the rest is null), status.
Rating = tuple[str, Sequence[float | None], str]

RATED_AS = {"model": "m", "prompt_key": "0123", "answer_mode": "full"}
NAMES = ("record_id", "model", "prompt_key", "answer_mode", "scores", "status")
COLUMNS = pa.schema([RATING_SCHEMA.field(name) for name in NAMES])


def ratings(rows: Sequence[Rating]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "record_id": record_id,
                **RATED_AS,
                "scores": [*answered, *[None] * (NUM_SLOTS - len(answered))],
                "status": status,
            }
            for record_id, answered, status in rows
        ],
        schema=COLUMNS,
    )
