"""Writing an `.idx`: ours beside megatron-core's own writer, the same sequences, the same bytes.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from megatron.core.datasets.indexed_dataset import _IndexWriter

from mira_megatron.tokenization.index_file import one_sequence_per_document, write_index

NUM_DOCUMENTS = 1_000_000
REPEATS = 3
# Megatron makes the pointers in a Python loop, ours are one cumsum; both write the same 20 MB.
BAR = 5.0


def main() -> int:
    """Returns the exit code."""
    lengths = np.random.default_rng(0).integers(1, 5000, NUM_DOCUMENTS).astype(np.int32)
    as_list, modes = lengths.tolist(), None
    boundaries = list(range(NUM_DOCUMENTS + 1))
    with tempfile.TemporaryDirectory() as folder:
        ours_path, peer_path = Path(folder, "ours.idx"), Path(folder, "peer.idx")

        def write_ours() -> None:
            write_index(ours_path, one_sequence_per_document(lengths, np.dtype(np.int32)))

        def write_peer() -> None:
            with _IndexWriter(str(peer_path), np.int32) as writer:
                writer.write(as_list, modes, boundaries)

        pairs = [(_cpu_seconds(write_ours), _cpu_seconds(write_peer)) for _ in range(REPEATS)]
        if ours_path.read_bytes() != peer_path.read_bytes():
            sys.stderr.write("the two files differ: no speed is worth anything\n")
            return 1
    ours, peer = (min(side) for side in zip(*pairs, strict=True))
    figure = {
        "name": "write_index_1m_documents",
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "unit": "CPU seconds, best of 3; peer: megatron-core 0.16.1 _IndexWriter",
        "ratio": round(peer / ours, 2),
        "bar": BAR,
    }
    print(json.dumps(figure))
    return 0 if figure["ratio"] >= BAR else 1


def _cpu_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
