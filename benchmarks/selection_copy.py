"""A selection written as a dataset of its own: ours beside megatron-core's own loop, same bytes.

The peer reads each kept document through `IndexedDataset` and gives it to `IndexedDatasetBuilder`,
which is how one does it with megatron-core 0.16.1. Both sides start from a mask, end with files
that are flushed to disk, and take turns; ours also checks mask and fingerprint.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from mira_megatron.retention.keep_masks import KeepMask, read_keep_mask, write_keep_mask
from mira_megatron.tokenization.handovers import write_physical_copy
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    index_fingerprint,
    one_sequence_per_document,
    write_index,
)

NUM_DOCUMENTS = 400_000
# Tokens of a document, log-normal around 800: 1.3 GB of int32 in all.
MEDIAN_TOKENS, SIGMA = 600, 0.8
KEEP_FRACTIONS = (0.5, 0.1)
REPEATS = 5
BAR = 4.0


def main() -> int:
    """Returns the exit code."""
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    random = np.random.default_rng(0)
    is_below = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = one_sequence_per_document(_lengths(random), np.dtype(np.int32))
        write_index(idx_path(folder / "all"), index)
        with bin_path(folder / "all").open("wb") as file:
            for at in range(0, index.num_tokens, 1 << 22):
                count = min(1 << 22, index.num_tokens - at)
                random.integers(0, 150_000, count, dtype=np.int32).tofile(file)
        for fraction in KEEP_FRACTIONS:
            is_kept = random.random(NUM_DOCUMENTS) < fraction
            write_keep_mask(
                folder / "all.keep.npy",
                is_kept,
                index.document_tokens(),
                idx_fingerprint=index_fingerprint(folder / "all"),
                scores_fingerprint="",
            )
            figure = _figure(folder, read_keep_mask(folder / "all.keep.npy"), fraction)
            if figure is None:
                return 1
            print(json.dumps(figure))
            is_below |= figure["ratio"] < BAR
    return 1 if is_below else 0


def _lengths(random: np.random.Generator) -> np.ndarray:
    drawn = random.lognormal(np.log(MEDIAN_TOKENS), SIGMA, NUM_DOCUMENTS)
    return np.clip(drawn, 1, 100_000).astype(np.int32)


def _figure(folder: Path, mask: KeepMask, fraction: float) -> dict | None:
    def ours() -> None:
        write_physical_copy(folder / "all", mask, folder / "ours")

    def peer() -> None:
        whole = IndexedDataset(str(folder / "all"))
        builder = IndexedDatasetBuilder(str(bin_path(folder / "peer")), dtype=np.int32)
        for number in np.flatnonzero(mask.is_kept).tolist():
            builder.add_item(torch.from_numpy(whole[number]))
            builder.end_document()
        builder.finalize(str(idx_path(folder / "peer")))
        for path in (bin_path(folder / "peer"), idx_path(folder / "peer")):
            with path.open("rb+") as file:
                os.fsync(file.fileno())

    seconds = []
    for _ in range(REPEATS):
        for path in (bin_path, idx_path):
            path(folder / "ours").unlink(missing_ok=True)
            path(folder / "peer").unlink(missing_ok=True)
        seconds.append((_seconds(ours), _seconds(peer)))
        for path in (bin_path, idx_path):
            if path(folder / "ours").read_bytes() != path(folder / "peer").read_bytes():
                sys.stderr.write("the copies differ: no speed is worth anything\n")
                return None
    best_ours, best_peer = (min(side) for side in zip(*seconds, strict=True))
    tokens = mask.info.tokens_kept / 1e6
    return {
        "name": f"copy_{fraction:.0%}_of_the_documents".replace("%", "_percent"),
        "ours": round(tokens / best_ours, 1),
        "peer": round(tokens / best_peer, 1),
        "unit": "million tokens/s written and flushed, best of 5; peer: megatron-core 0.16.1 "
        "IndexedDatasetBuilder.add_item per kept document",
        "ratio": round(best_peer / best_ours, 2),
        "bar": BAR,
    }


def _seconds(work: Callable[[], None]) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
