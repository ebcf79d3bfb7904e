"""One part of records into one shard of tokens: what a worker of the tokenize stage does.

Memory: the part's compressed file, and per chunk of CHUNK_BYTES of text some ten times as much. A
record longer than that is a chunk by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron.shards import open_part
from mira_megatron.tokenization.raw_rows import CHUNK_BYTES, grouped
from mira_megatron.tokenization.text_columns import TextError, text_hashes
from mira_megatron.tokenization.token_shards import EncodedShard, writing_shard
from mira_megatron.tokenization.tokenizer import RecordEncoder

_COLUMNS = ["record_id", "text", "control_spans"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTask:
    """A part of records, and the shard that it becomes."""

    records: Path
    records_digest: str
    tokenizer: Path
    tokenizer_digest: str
    eod_token: str
    backend: str
    shard: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """What a shard holds."""

    num_documents: int
    num_tokens: int
    num_control_texts: int


def encode_part(task: PartTask) -> EncodedShard[PartReport]:
    """Returns the part, encoded.

    Raises ValueError, naming the record, for a text that cannot be encoded, or that gigatoken
    encodes unlike Hugging Face.
    """
    encoder = open_encoder(task.tokenizer, task.tokenizer_digest, task.eod_token, task.backend)
    with writing_shard(task.shard) as shard:
        for chunk in _chunks(task):
            try:
                texts = chunk["text"]
                shard.add(
                    encoder.encode(texts, chunk["control_spans"]),
                    chunk["record_id"],
                    text_hashes(texts),
                )
            except TextError as error:
                record = chunk["record_id"][error.text]
                raise ValueError(f"{task.records}: record {record}: {error.problem}") from error
        return shard.encoded(
            PartReport(
                num_documents=shard.num_documents,
                num_tokens=shard.num_tokens,
                num_control_texts=shard.num_control_texts,
            )
        )


@lru_cache(maxsize=1)
def open_encoder(path: Path, digest: str, eod_token: str, backend: str) -> RecordEncoder:
    """Returns the encoder, built once per process: it takes a second for a large vocabulary."""
    return RecordEncoder(path, eod_token, backend)


def _chunks(task: PartTask) -> Iterator[pa.RecordBatch]:
    """Yields a part's records in chunks, after checking the part's bytes."""
    with open_part(task.records, task.records_digest) as file:
        longest = pc.max(file.read(["num_chars"])["num_chars"]).as_py() or 1
        rows = max(1, min(CHUNK_BYTES // longest, 10_000))
        yield from grouped(file.iter_batches(rows, columns=_COLUMNS, use_threads=False))
