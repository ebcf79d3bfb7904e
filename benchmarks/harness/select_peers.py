"""Keeps half of each source's tokens with polars and with DuckDB, one thread each.

Runs in the environment of requirements/peers.txt (see peers.py). Reads source, score, tokens and
tie as .npy from a folder, writes polars.npy and duckdb.npy, the masks, and prints one line of JSON:
CPU seconds of each, the least of some repeats. Reading is left out, the mask in row order is in.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

COLUMNS = ("source", "score", "tokens", "tie")


def main() -> None:
    """Writes the masks and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    columns = {name: np.load(words.folder / f"{name}.npy") for name in COLUMNS}
    frame = pl.DataFrame(columns).with_row_index("row")
    connection = duckdb.connect(config={"threads": 1})
    # DuckDB's own table: scanning a frame of another library is not what is compared.
    connection.register("given", {**columns, "row": np.arange(len(columns["source"]))})
    connection.execute("create table documents as select * from given")
    seconds = {}
    for name, select in {
        "polars": lambda: _polars(frame),
        "duckdb": lambda: _duckdb(connection),
    }.items():
        mask, seconds[name] = _timed(select, words.repeats)
        np.save(words.folder / f"{name}.npy", mask)
    print(json.dumps(seconds))


def _polars(frame: pl.DataFrame) -> np.ndarray:
    return (
        frame.sort(["source", "score", "tie"], descending=[False, True, False])
        .with_columns(
            is_kept=pl.col("tokens").cum_sum().over("source")
            <= pl.col("tokens").sum().over("source") // 2
        )
        .sort("row")["is_kept"]
        .to_numpy()
    )


def _duckdb(connection: duckdb.DuckDBPyConnection) -> np.ndarray:
    return connection.execute(
        """
        select sum(tokens) over (
                   partition by source order by score desc, tie
                   rows between unbounded preceding and current row
               ) <= sum(tokens) over (partition by source) // 2 as is_kept
        from documents order by row
        """
    ).fetchnumpy()["is_kept"]


def _timed(select: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        mask = select()
        seconds.append(time.process_time() - started)
    return mask, min(seconds)


if __name__ == "__main__":
    main()
