"""Ratings to record scores: the trimmed mean of 15 slots beside numpy and polars, on one core.

A million records, one slot of twenty null and one record of fifty without any; scores whole, as a
full answer has them, or means by probability; no slot masked, or four. Ours is what the stage does
with a part: an Arrow table of ratings in memory to the table of record scores, reasons included.
polars makes the same columns, numpy the scores alone, row by sorted row. Same scores on all sides,
checked first: ours exact, theirs to what float32 holds. CPU seconds of one thread, least of some.

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
from typing import TypeVar

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))

from harness.peers import peer_python

from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.scored_ratings import score_ratings

NUM_RECORDS = 1_000_000
PERCENT_CUT = 10
MIN_SLOTS = 5
REPEATS = 5
BAR = 3.0  # million records per second
BAR_RATIO = 1.2
FOUR = (1, 6, 7, 12)
_POLARS = Path(__file__).parent / "harness" / "trimmed_mean_polars.py"
_ROWS_AT_ONCE = 8192  # numpy's, which in one piece takes longer

Masked = tuple[int, ...]
Scores = TypeVar("Scores")


def main() -> int:
    """Returns the exit code."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the peer inherits it
    pa.set_cpu_count(1)
    python = peer_python()
    is_below = False
    cases: list[tuple[str, bool, Masked]] = [
        ("whole", True, ()),
        ("expected", False, ()),
        ("expected_4_masked", False, FOUR),
    ]
    for name, is_whole, masked in cases:
        ratings = _ratings(is_whole)
        own, seconds = _timed(_ours, ratings, masked)
        peers = {
            "numpy": _timed(_numpy, ratings, masked),
            "polars": _polars(python, ratings, masked),
        }
        for peer, (scores, peer_seconds) in peers.items():
            _check_equal(own["score"], scores, peer)
            figure = _figure(f"trimmed_mean_{name}_{peer}", peer, seconds, peer_seconds)
            is_below = is_below or figure["ours"] < BAR or figure["ratio"] < BAR_RATIO
            print(json.dumps(figure), flush=True)
    return int(is_below)


def _ratings(is_whole: bool) -> pa.Table:
    generator = np.random.default_rng(0)
    scores = np.clip(generator.normal(6, 2, (NUM_RECORDS, NUM_SLOTS)), 0, 10)
    scores = scores.round(0 if is_whole else 3).astype(np.float32)
    is_null = generator.random(scores.shape) < 0.05
    is_null[generator.random(NUM_RECORDS) < 0.02] = True
    statuses = np.array(["ok", "partial", "unparsed"])
    kind = np.where(is_null.all(axis=1), 2, is_null.any(axis=1).astype(int))
    return pa.table(
        {
            "record_id": pa.array([f"{number:032x}" for number in range(NUM_RECORDS)]),
            "scores": pa.FixedSizeListArray.from_arrays(
                pa.array(scores.ravel(), mask=is_null.ravel()), NUM_SLOTS
            ),
            "status": pa.array(statuses[kind].tolist()),
        }
    )


def _ours(ratings: pa.Table, masked: Masked) -> pa.Table:
    return score_ratings(
        ratings,
        trim_fraction=PERCENT_CUT / 100,
        min_slots=MIN_SLOTS,
        is_masked=[slot in masked for slot in range(NUM_SLOTS)],
    )


def _numpy(ratings: pa.Table, masked: Masked) -> pa.Array:
    """Returns the scores as numpy is usually asked for them: rows sorted, NaN last."""
    slots = ratings["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows = slots.reshape(-1, NUM_SLOTS)
    wanted = [slot for slot in range(NUM_SLOTS) if slot not in masked]
    ranks = np.arange(len(wanted))
    means = np.empty(len(rows), np.float32)
    has_mean = np.empty(len(rows), np.bool_)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        own = slice(start, start + _ROWS_AT_ONCE)
        block = np.sort(rows[own][:, wanted] if masked else rows[own], axis=1)
        num = (~np.isnan(block)).sum(axis=1)
        cut = num * PERCENT_CUT // 100
        counts = (ranks >= cut[:, np.newaxis]) & (ranks < (num - cut)[:, np.newaxis])
        totals = np.where(counts, block, 0).sum(axis=1, dtype=np.float64)
        means[own] = totals / np.maximum(num - 2 * cut, 1)
        has_mean[own] = num >= MIN_SLOTS
    return pa.array(means, mask=~has_mean)


def _polars(python: Path, ratings: pa.Table, masked: Masked) -> tuple[pa.Array, float]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ratings.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ratings.schema) as writer:
            writer.write_table(ratings)
        command = [str(python), str(_POLARS), name, f"--repeats={REPEATS}"]
        command += [f"--percent={PERCENT_CUT}", f"--min-slots={MIN_SLOTS}"]
        command += [f"--masked={','.join(map(str, masked))}"]
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environ["POLARS_MAX_THREADS"] = "1"
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
        with pa.OSFile(str(Path(name) / "polars.arrow")) as file:
            scores = pa.ipc.open_file(file).read_all()["score"]
        return scores, float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _check_equal(own: pa.ChunkedArray, theirs: pa.Array, peer: str) -> None:
    mine = own.to_numpy(zero_copy_only=False)
    other = theirs.to_numpy(zero_copy_only=False)
    # Two units in the last place of 10 in float32: theirs are added as they come.
    if not np.allclose(mine, other, rtol=0, atol=2e-6, equal_nan=True):
        sys.exit(f"{peer} has other scores: no speed is worth anything")


def _timed(
    work: Callable[[pa.Table, Masked], Scores], ratings: pa.Table, masked: Masked
) -> tuple[Scores, float]:
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        made = work(ratings, masked)
        seconds.append(time.process_time() - started)
    return made, min(seconds)


def _figure(name: str, peer: str, seconds: float, peer_seconds: float) -> dict[str, object]:
    ours, theirs = NUM_RECORDS / seconds / 1e6, NUM_RECORDS / peer_seconds / 1e6
    made = "scores alone, rows sorted" if peer == "numpy" else "lists sorted and sliced"
    return {
        "name": name,
        "ours": round(ours, 2),
        "peer": round(theirs, 2),
        "unit": f"million records per CPU second, one core, best of {REPEATS}; "
        f"peer: {peer}, {made}",
        "ratio": round(peer_seconds / seconds, 2),
        "bar": f"ours at least {BAR}, ratio at least {BAR_RATIO}",
    }


if __name__ == "__main__":
    sys.exit(main())
