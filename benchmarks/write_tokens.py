"""Writing tokens that are there already: our shards and joining beside megatron-core's builder.

Twenty million ids in 20,000 documents, given to the peer as the lists that its preprocessing
gives it, and to ours as the arrays that gigatoken gives. Same bytes, checked first. Ours also keeps
what describes each document. One shard, as of small inputs, gets its name by a link; five are
joined by a copy. CPU seconds of all threads: ours waits until its files are on the disk, the peer
does not, and how long that takes is the disk's affair.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from mira_megatron.tokenization.document_layout import assembled, texts_alone
from mira_megatron.tokenization.plain_encoders import TokenLists
from mira_megatron.tokenization.token_shards import join_shards, read_documents, writing_shard
from mira_megatron.tokenization.tokenizer import EncodedTexts

NUM_DOCUMENTS = 20_000
MEAN_TOKENS = 1_000
VOCAB_SIZE = 152_000
EOD = VOCAB_SIZE - 1
CHUNK_DOCUMENTS = 2_000  # some 8 MiB of text, as `write_tokens` has them
NUMS_SHARDS = (1, 5)
REPEATS = 4
BAR = 3.0
DTYPE = np.dtype(np.int32)


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
        "unit": "million tokens per CPU second, best of 4; peer: megatron-core 0.16.1 add_document",
        "ratio": round(ours_speed / peer_speed, 2),
        "bar": BAR,
    }


def _write_ours(
    chunks: list[tuple[np.ndarray, np.ndarray]], path_prefix: Path, num_shards: int
) -> None:
    """Puts in the EODs, writes shards, joins them."""
    folder = path_prefix.with_name("shards")
    shards = [folder / str(number) for number in range(num_shards)]
    per_shard = len(chunks) // num_shards
    for number, shard in enumerate(shards):
        with writing_shard(shard) as writer:
            for ids, lengths in chunks[number * per_shard : (number + 1) * per_shard]:
                texts = pa.nulls(len(lengths), pa.large_string())
                layout = texts_alone(texts, EOD)
                encoded = TokenLists(ids, np.cumsum(lengths))
                ids_T, num_tokens_D = assembled(layout, encoded, DTYPE)
                names = pa.array(map(str, range(len(lengths))), pa.string())
                hashes = pa.array([bytes(16)] * len(lengths), pa.binary(16))
                writer.add(EncodedTexts(ids_T, num_tokens_D, 0), names, hashes)
    tokens = read_documents(shards)["num_tokens"].to_numpy()
    join_shards(shards, path_prefix, num_tokens_D=tokens, dtype=DTYPE, workers=2)
    shutil.rmtree(folder)


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
