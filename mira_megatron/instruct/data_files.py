"""The files of instruct_data/: conversations as ids, made once for every arm.

training.parquet, validation.parquet   one row per sample, in the order of a hash:
    record_id   of the record, or <file>:<line>
    source      the record's, or the file's name
    ids         the sample's token ids
    answers     start, end, start, end …: which of them are answers, and so have loss
dropped.jsonl        {"record_id", "source", "reason", "detail"} of the conversations left out
instruct_data.json   num_training, num_validation, num_answer_tokens (of training), vocab_size,
                     end_id (the token that ends a turn)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mira_megatron.distill.packed_dataset import TokenSample
from mira_megatron.shards import read_part, write_parquet

TRAINING = "training.parquet"
VALIDATION = "validation.parquet"
DROPPED = "dropped.jsonl"
FACTS = "instruct_data.json"

SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("ids", pa.large_list(pa.int32()), nullable=False),
        pa.field("answers", pa.list_(pa.int32()), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """A sample with its origin."""

    record_id: str
    source: str
    sample: TokenSample


def write_conversations(path: Path, conversations: Sequence[Conversation]) -> None:
    """Writes one side's samples in the order given."""
    columns = {
        "record_id": [each.record_id for each in conversations],
        "source": [each.source for each in conversations],
        "ids": [each.sample.ids_N for each in conversations],
        "answers": [_edges(each.sample) for each in conversations],
    }
    write_parquet(path, pa.Table.from_pydict(columns, schema=SAMPLE_SCHEMA))


def read_samples(path: Path, digest: str) -> Iterator[TokenSample]:
    """Yields one side's samples in their order; ValueError where the file changed."""
    table = read_part(path, digest, ["ids", "answers"])
    for batch in table.to_batches(max_chunksize=1024):
        for ids, answers in zip(batch["ids"], batch["answers"], strict=True):
            ids_N = ids.values.to_numpy()
            is_answer_N = np.zeros(len(ids_N), np.bool_)
            edges = answers.values.to_numpy().reshape(-1, 2)
            for start, end in edges:
                is_answer_N[start:end] = True
            yield TokenSample(ids_N, is_answer_N)


def _edges(sample: TokenSample) -> list[int]:
    """Returns where answers begin and end: start, end, start, end …"""
    padded = np.concatenate([[False], sample.is_answer_N, [False]])
    edges: list[int] = np.flatnonzero(padded[1:] != padded[:-1]).tolist()
    return edges
