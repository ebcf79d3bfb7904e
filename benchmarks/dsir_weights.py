"""DSIR's importance weights: ours beside the package `data-selection`, on one core.

The modules of Python's standard library and what is installed beside it, some 12 MB of text, every
fifth of it the target. Both sides count the grams of all texts, make the log ratio, and weigh
every text; the weights are compared bit by bit first. CPU seconds, least of some; ours starts each
time with nothing remembered. A corpus of real size repeats more of its words and pairs, which only
ours gains by.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below a bar.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from data_selection.hashed_ngram_dsir import get_ngram_counts

from mira_megatron.baselines.dsir import log_ratio
from mira_megatron.baselines.hashed_grams import HashedGrams

NUM_BUCKETS = 10_000
MOST_BYTES = 12_000_000
REPEATS = 3
BAR = 3.0

Weights = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def main() -> int:
    """Returns the exit code."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = _texts()
    num_mb = sum(len(text.encode()) for text in texts) / 1e6
    own, seconds = _timed(lambda: _weights(texts, _ours), REPEATS)
    package, package_seconds = _timed(lambda: _weights(texts, _package), 1)
    if own.tobytes() != package.tobytes():
        sys.stderr.write("the weights are not the package's\n")
        return 1
    figure = {
        "name": "dsir_weights",
        "ours": round(num_mb / seconds, 2),
        "peer": round(num_mb / package_seconds, 2),
        "unit": "MB/s",
        "ratio": round(package_seconds / seconds, 2),
        "bar": BAR,
    }
    print(json.dumps(figure))
    return int(figure["ratio"] < BAR)


def _texts() -> list[str]:
    texts, num_bytes = [], 0
    for root in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(root)).glob("**/*.py")):
            text = path.read_text(encoding="utf-8", errors="replace")
            texts.append(text)
            num_bytes += len(text.encode())
            if num_bytes > MOST_BYTES:
                return texts
    return texts


def _weights(texts: Sequence[str], count: Callable[[Sequence[str]], list[Counts]]) -> Weights:
    """Counts every text twice, as both do: for the frequencies, then for its weight."""
    target = np.sum(count(texts[::5]), axis=0)
    ratio = log_ratio(np.sum(count(texts), axis=0), target)
    return np.array([np.dot(ratio, counts) for counts in count(texts)])


def _ours(texts: Sequence[str]) -> list[Counts]:
    return list(HashedGrams(NUM_BUCKETS).counts(texts))


def _package(texts: Sequence[str]) -> list[Counts]:
    return [get_ngram_counts(text, num_buckets=NUM_BUCKETS) for text in texts]


def _timed(weigh: Callable[[], Weights], repeats: int) -> tuple[Weights, float]:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        weights = weigh()
        seconds.append(time.process_time() - start)
    return weights, min(seconds)


if __name__ == "__main__":
    sys.exit(main())
