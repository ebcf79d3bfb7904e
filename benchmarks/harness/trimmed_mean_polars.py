"""Averages the ratings of records with polars, the outer ones cut, on one thread.

Runs in the environment of requirements/peers.txt (see peers.py), started with POLARS_MAX_THREADS=1.
Reads ratings.arrow (record_id, scores, status) from a folder, writes polars.arrow (record_id,
score, reason), and prints one line of JSON: the CPU seconds, the least of some repeats. Reading is
left out, the finished frame is in.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import polars as pl


def main() -> None:
    """Writes the scores and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--min-slots", type=int, required=True)
    parser.add_argument("--percent", type=int, required=True, help="cut from each end")
    parser.add_argument("--masked", default="", help="slots from 0 on, with commas between")
    words = parser.parse_args()
    assert pl.thread_pool_size() == 1
    masked = {int(slot) for slot in words.masked.split(",") if slot}
    ratings = pl.read_ipc(words.folder / "ratings.arrow").rechunk()
    seconds = []
    for _ in range(words.repeats):
        started = time.process_time()
        scores = _scores(ratings, words.percent, words.min_slots, masked)
        seconds.append(time.process_time() - started)
    scores.write_ipc(words.folder / "polars.arrow")
    print(json.dumps({"seconds": min(seconds), "version": pl.__version__}))


def _scores(ratings: pl.DataFrame, percent: int, min_slots: int, masked: set[int]) -> pl.DataFrame:
    usable = pl.col("scores").arr.to_list()
    if masked:
        wanted = [slot for slot in range(15) if slot not in masked]
        usable = usable.list.gather(wanted)
    cut = pl.col("num") * percent // 100
    has_score = pl.col("num") >= min_slots
    return (
        ratings.lazy()
        .with_columns(usable=usable.list.drop_nulls().list.sort())
        .with_columns(num=pl.col("usable").list.len())
        .select(
            "record_id",
            score=pl.when(has_score).then(
                pl.col("usable").list.slice(cut, pl.col("num") - 2 * cut).list.mean()
            ),
            reason=pl.when(~has_score).then(
                pl.when((pl.col("num") == 0) & (pl.col("status") != "ok"))
                .then("status")
                .otherwise(pl.lit("too_few_slots"))
            ),
        )
        .collect()
    )


if __name__ == "__main__":
    main()
