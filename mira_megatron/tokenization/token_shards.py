"""Shards of a token dataset, as workers encode them; shard_joining.py lays them into one file.

    <shard>.documents.arrow     record_id, num_tokens, text_hash: row i describes document i
    <shard>.bin                 the ids, only of a shard that is too large for memory
    <shard>.*                   what else the caller writes beside them

Memory: MEMORY_BYTES of ids in the caller's own process, those of one `add` in a worker process,
which cannot hand them over; `read_documents` holds what describes the documents of all shards,
`read_num_tokens` eight bytes of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import parent_process
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from mira_megatron.atomic_files import explaining_full_disk
from mira_megatron.tokenization.tokenizer import EncodedTexts

SHARD_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int64(), nullable=False),
        pa.field("text_hash", pa.binary(16), nullable=False),
    ]
)
MEMORY_BYTES = 64 << 20
IDS = "bin"
# What is said of a full disk.
WRITING_SHARDS = "writing shards. Finished ones are kept: make room and run the same command again"
_DOCUMENTS = "documents.arrow"
# Megatron's index has 32 bits for the length of a sequence.
_MAX_DOCUMENT_TOKENS = 2**31 - 1


Report = TypeVar("Report")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedShard(Generic[Report]):
    """A shard that is to be laid."""

    path: Path
    num_bytes: int  # of ids
    ids: tuple[npt.NDArray[np.number], ...] | None  # None: they are in <shard>.bin
    digests: dict[str, str]  # of the ids (IDS) and of the files beside them, by suffix
    report: Report  # a dataclass of plain values


class DigestedFile:
    """A file being written, and the digest of what was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = xxhash.xxh3_128()
        self.closed = False  # read by Arrow
        self._file: BinaryIO = path.open("wb")

    def write(self, content: bytes | memoryview) -> None:
        """Appends bytes."""
        self.digest.update(content)
        self._file.write(content)

    def close(self) -> None:
        """Closes the file."""
        self.closed = True
        self._file.close()


@dataclass(slots=True)
class ShardWriter:
    """A shard being encoded; documents are appended in order."""

    shard: Path
    num_documents: int = 0
    num_tokens: int = 0
    num_control_texts: int = 0
    _num_bytes: int = 0
    _ids: list[npt.NDArray[np.number]] = field(default_factory=list)  # not written to a file yet
    _files: dict[str, DigestedFile] = field(default_factory=dict)
    _documents: pa.RecordBatchStreamWriter | None = None

    def add(
        self, encoded: EncodedTexts, record_ids: pa.Array, text_hashes: pa.FixedSizeBinaryArray
    ) -> None:
        """Appends documents: their ids, and what describes them.

        Raises ValueError, naming the record, for a document longer than Megatron's index can say.
        """
        tokens = encoded.num_tokens_D
        if len(tokens) and tokens.max() > _MAX_DOCUMENT_TOKENS:
            document = int(tokens.argmax())
            raise ValueError(
                f"record {record_ids[document]}: {tokens[document]:,} tokens, but Megatron's index "
                f"has room for {_MAX_DOCUMENT_TOKENS:,} in one document. Cut the record."
            )
        self._ids.append(encoded.ids_T)
        self._num_bytes += encoded.ids_T.nbytes
        can_hand_over = parent_process() is None
        if not can_hand_over or sum(ids.nbytes for ids in self._ids) > MEMORY_BYTES:
            self._spill()
        if self._documents is None:
            self._documents = pa.ipc.new_stream(self.file(_DOCUMENTS), SHARD_SCHEMA)
        columns = [record_ids, pa.array(tokens), text_hashes]
        self._documents.write_batch(pa.RecordBatch.from_arrays(columns, schema=SHARD_SCHEMA))
        self.num_documents += len(tokens)
        self.num_tokens += len(encoded.ids_T)
        self.num_control_texts += encoded.num_control_texts

    def file(self, suffix: str) -> DigestedFile:
        """Returns the file <shard>.<suffix>, made when it is first asked for."""
        if suffix not in self._files:
            self._files[suffix] = DigestedFile(beside(self.shard, suffix))
        return self._files[suffix]

    def encoded(self, report: Report) -> EncodedShard[Report]:
        """Returns the shard; nothing can be added any more."""
        if self._documents is not None:
            self._documents.close()
        is_spilled = IDS in self._files
        if is_spilled:
            self._spill()
        self.close()
        digests = {suffix: file.digest.hexdigest() for suffix, file in self._files.items()}
        if not is_spilled:
            digests[IDS] = _digest(self._ids)
        return EncodedShard(
            path=self.shard,
            num_bytes=self._num_bytes,
            ids=None if is_spilled else tuple(self._ids),
            digests=digests,
            report=report,
        )

    def close(self) -> None:
        """Closes its files."""
        for file in self._files.values():
            file.close()

    def _spill(self) -> None:
        file = self.file(IDS)
        for ids in self._ids:
            file.write(bytes_of(ids))
        self._ids.clear()


@contextmanager
def writing_shard(shard: Path) -> Iterator[ShardWriter]:
    """Yields a writer; `encoded` is to be called within the block.

    Raises OSError, with the file and the way out, for a full disk.
    """
    shard.parent.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(shard)
    try:
        with explaining_full_disk(shard, WRITING_SHARDS):
            yield writer
    finally:
        writer.close()


def beside(shard: Path, suffix: str) -> Path:
    """Returns a shard's file of this suffix."""
    return shard.with_name(f"{shard.name}.{suffix}")


def bytes_of(ids: npt.NDArray[np.number]) -> memoryview:
    """Returns ids as the bytes that they are in a `.bin`."""
    return ids.view(np.uint8).data


def read_documents(shards: Sequence[Path]) -> pa.Table:
    """Returns what describes the documents of all shards, in order, as one chunk per column."""
    batches = (batch for shard in shards for batch in document_batches(shard))
    return pa.Table.from_batches(batches, SHARD_SCHEMA).combine_chunks()


def document_batches(shard: Path) -> Iterator[pa.RecordBatch]:
    """Yields what describes a shard's documents, as they were added."""
    path = beside(shard, _DOCUMENTS)
    if path.is_file():  # a shard without documents has none
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as batches:
            yield from batches


def read_num_tokens(shards: Sequence[Path], num_documents: int) -> npt.NDArray[np.int64]:
    """Returns the tokens of every document of all shards, in order, shape (num_documents,)."""
    num_tokens_D = np.empty(num_documents, np.int64)
    start = 0
    for batch in (batch for shard in shards for batch in document_batches(shard)):
        num_tokens_D[start : start + batch.num_rows] = batch["num_tokens"].to_numpy()
        start += batch.num_rows
    return num_tokens_D


def _digest(ids: Sequence[npt.NDArray[np.number]]) -> str:
    digest = xxhash.xxh3_128()
    for some in ids:
        digest.update(bytes_of(some))
    return digest.hexdigest()
