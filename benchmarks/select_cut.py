"""A token budget per source: the cut by histogram beside sorting, in numpy, polars and DuckDB.

Five million documents in 21 sources of unequal size; the better half of each source's tokens is
kept, ties by a hash that is given to all sides. Same masks on all sides, checked first. The plain
numpy side sorts by score, then tie (`lexsort`). The packed one sorts score and the upper half of
the tie value as one integer, which numpy does with vector instructions; its bar is that ours is not
slower. Peers from requirements/peers.txt, one thread each, run in one process of their own.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below a bar.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))

from harness.peers import peer_python

from mira_megatron.retention.ranking import best_prefix

NUM_DOCUMENTS = 5_000_000
NUM_SOURCES = 21
REPEATS = 3
BARS = {"spread": 5.0, "five_valued": 5.0, "equal": 1.0}
BAR_OTHERS = 1.0
_PEERS = Path(__file__).parent / "harness" / "select_peers.py"

Array = npt.NDArray[np.generic]


def main() -> int:
    """Returns the exit code."""
    is_below = False
    python = peer_python()
    with tempfile.TemporaryDirectory() as name:
        for kind, bar in BARS.items():
            columns = _columns(kind)
            ends = np.cumsum(np.bincount(columns["source"], minlength=NUM_SOURCES))
            places = [
                slice(end - num, end)
                for end, num in zip(ends, np.diff(ends, prepend=0), strict=True)
            ]
            masks, seconds = {}, {}
            for side, select in SIDES.items():
                masks[side], seconds[side] = _timed(select, columns, places)
            for side, peer in _peers(python, Path(name), columns).items():
                masks[side], seconds[side] = peer
            for side, mask in masks.items():
                if not np.array_equal(mask, masks["ours"]):
                    sys.exit(f"{side} keeps other documents: no speed is worth anything")
            for side in masks:
                if side == "ours":
                    continue
                figure = _figure(kind, side, seconds, bar if side == "numpy" else BAR_OTHERS)
                is_below = is_below or figure["ratio"] < figure["bar"]
                print(json.dumps(figure))
    return int(is_below)


def _columns(kind: str) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    weights = 1.0 / np.arange(1, NUM_SOURCES + 1)
    sources = generator.choice(NUM_SOURCES, NUM_DOCUMENTS, p=weights / weights.sum())
    scores = {
        "spread": lambda: generator.beta(5, 3, NUM_DOCUMENTS) * 10,
        "five_valued": lambda: generator.integers(0, 5, NUM_DOCUMENTS) * 2.5,
        "equal": lambda: np.full(NUM_DOCUMENTS, 5.0),
    }[kind]()
    return {
        "source": np.sort(sources).astype(np.int32),
        "score": scores.astype(np.float32),
        "tokens": generator.integers(20, 4_000, NUM_DOCUMENTS),
        "tie": generator.integers(0, 2**64, NUM_DOCUMENTS, dtype=np.uint64),
    }


def _ours(scores: Array, tokens: Array, ties: Array) -> Array:
    budget = int(tokens.sum()) // 2
    return best_prefix(scores, tokens, lambda at: ties[at], budget).is_kept_K


def _lexsort(scores: Array, tokens: Array, ties: Array) -> Array:
    return _kept(np.lexsort((ties, -scores)), tokens)


def _packed(scores: Array, tokens: Array, ties: Array) -> Array:
    keys = ~scores.view(np.uint32).astype(np.uint64) << np.uint64(32)  # no score is negative
    return _kept(np.argsort(keys | (ties >> np.uint64(32))), tokens)


def _kept(ranking: Array, tokens: Array) -> Array:
    ends = np.cumsum(tokens[ranking])
    is_kept = np.zeros(len(tokens), dtype=np.bool_)
    is_kept[ranking[: np.searchsorted(ends, ends[-1] // 2, side="right")]] = True
    return is_kept


SIDES = {"ours": _ours, "numpy": _lexsort, "numpy_packed": _packed}


def _timed(
    select: Callable[[Array, Array, Array], Array],
    columns: dict[str, Array],
    places: list[slice],
) -> tuple[Array, float]:
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        masks = [
            select(columns["score"][at], columns["tokens"][at], columns["tie"][at]) for at in places
        ]
        seconds.append(time.process_time() - started)
    return np.concatenate(masks), min(seconds)


def _peers(python: Path, folder: Path, columns: dict[str, Array]) -> dict[str, tuple[Array, float]]:
    for name, values in columns.items():
        np.save(folder / f"{name}.npy", values)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ |= {"POLARS_MAX_THREADS": "1"}
    command = [str(python), str(_PEERS), str(folder), "--repeats", str(REPEATS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    seconds = json.loads(done.stdout.splitlines()[-1])
    return {side: (np.load(folder / f"{side}.npy"), seconds[side]) for side in seconds}


def _figure(kind: str, side: str, seconds: dict[str, float], bar: float) -> dict[str, object]:
    return {
        "name": f"select_cut_{kind}_{side}",
        "ours": round(NUM_DOCUMENTS / 1e6 / seconds["ours"], 1),
        "peer": round(NUM_DOCUMENTS / 1e6 / seconds[side], 1),
        "unit": "million documents/s on one core, best of 3",
        "ratio": round(seconds[side] / seconds["ours"], 2),
        "bar": bar,
    }


if __name__ == "__main__":
    sys.exit(main())
