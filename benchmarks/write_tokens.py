"""Writing tokens that are there already: our shards and joining beside megatron-core's builder.

Twenty million ids in 20,000 documents, given to the peer as the lists that its preprocessing
gives it, and to ours as the arrays that gigatoken gives. Same bytes, checked first. Ours also keeps
what describes each document, and digests to go on by. CPU seconds of all threads: ours waits until
its files are on the disk, the peer does not, and how long that takes is the disk's affair.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from mira_megatron.tokenization.document_layout import assembled, texts_alone
from mira_megatron.tokenization.plain_encoders import TokenLists
from mira_megatron.tokenization.shard_joining import ShardJoiner
from mira_megatron.tokenization.token_shards import EncodedShard, read_num_tokens, writing_shard
from mira_megatron.tokenization.tokenizer import EncodedTexts

NUM_DOCUMENTS = 20_000
MEAN_TOKENS = 1_000
VOCAB_SIZE = 152_000
EOD = VOCAB_SIZE - 1
CHUNK_DOCUMENTS = 2_000  # some 8 MiB of text, as `write_tokens` has them
NUMS_SHARDS = (1, 5)
REPEATS = 10
BAR = 3.0
DTYPE = np.dtype(np.int32)


@dataclass(frozen=True, kw_only=True)
class _Report:
    num_documents: int


def main() -> int:
    """Returns the exit code."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 2 * MEAN_TOKENS, NUM_DOCUMENTS)
    ids = generator.integers(0, EOD, lengths.sum()).astype(np.uint32)
    documents = np.split(ids, np.cumsum(lengths)[:-1])
    lists = [[*document.tolist(), EOD] for document in documents]
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = Path(folder, "ours"), Path(folder, "peer")
        chunks = [
            (
                np.concatenate(documents[first : first + CHUNK_DOCUMENTS]),
                lengths[first:][:CHUNK_DOCUMENTS],
            )
            for first in range(0, NUM_DOCUMENTS, CHUNK_DOCUMENTS)
        ]

        figures = [_figure(chunks, lists, (ours, peer), num_shards) for num_shards in NUMS_SHARDS]
    for figure in figures:
        print(json.dumps(figure))
    return int(any(figure["ratio"] < BAR for figure in figures))


def _figure(
    chunks: list[tuple[np.ndarray, np.ndarray]],
    lists: list[list[int]],
    prefixes: tuple[Path, Path],
    num_shards: int,
) -> dict[str, Any]:
    """Returns what was measured; exits where the two sides write other bytes."""
    ours, peer = prefixes

    def write_ours() -> None:
        _write_ours(chunks, ours, num_shards)

    def write_peer() -> None:
        _write_peer(lists, peer)

    pairs = [(_seconds(write_ours), _seconds(write_peer)) for _ in range(REPEATS)]
    for suffix in ("bin", "idx"):
        files = [Path(f"{path_prefix}.{suffix}").read_bytes() for path_prefix in (ours, peer)]
        if files[0] != files[1]:
            sys.exit(f"the two .{suffix} differ: no speed is worth anything")
    num_tokens = sum(map(len, lists))
    ours_speed, peer_speed = (num_tokens / 1e6 / min(side) for side in zip(*pairs, strict=True))
    return {
        "name": f"write_tokens_20m_in_{num_shards}_shards",
        "ours": round(ours_speed, 1),
        "peer": round(peer_speed, 1),
        "unit": "million tokens per CPU second, best of 10; peer: 0.16.1 add_document",
        "ratio": round(ours_speed / peer_speed, 2),
        "bar": BAR,
    }


def _write_ours(
    chunks: list[tuple[np.ndarray, np.ndarray]], path_prefix: Path, num_shards: int
) -> None:
    """Puts in the EODs, and lays the shards into one file."""
    folder = path_prefix.with_name("shards")
    shards = [folder / str(number) for number in range(num_shards)]
    per_shard = len(chunks) // num_shards
    with ShardJoiner(folder / "joined.bin", shards, _Report, workers=2) as joiner:
        for number, shard in enumerate(shards):
            joiner.add(_encoded(shard, chunks[number * per_shard : (number + 1) * per_shard]))
        joiner.finish(path_prefix, read_num_tokens(shards, NUM_DOCUMENTS), DTYPE)
    shutil.rmtree(folder)


def _encoded(shard: Path, chunks: list[tuple[np.ndarray, np.ndarray]]) -> EncodedShard[_Report]:
    with writing_shard(shard) as writer:
        for ids, lengths in chunks:
            layout = texts_alone(pa.nulls(len(lengths), pa.large_string()), EOD)
            ids_T, num_tokens_D = assembled(layout, TokenLists(ids, np.cumsum(lengths)), DTYPE)
            names = pa.array(map(str, range(len(lengths))), pa.string())
            hashes = pa.array([bytes(16)] * len(lengths), pa.binary(16))
            writer.add(EncodedTexts(ids_T, num_tokens_D, 0), names, hashes)
        return writer.encoded(_Report(num_documents=writer.num_documents))


def _write_peer(lists: list[list[int]], path_prefix: Path) -> None:
    builder = IndexedDatasetBuilder(f"{path_prefix}.bin", dtype=np.int32)
    for ids in lists:
        builder.add_document(ids, [len(ids)])
    builder.finalize(f"{path_prefix}.idx")


def _seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
