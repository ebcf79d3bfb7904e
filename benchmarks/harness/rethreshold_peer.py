"""Keeps half of each source's tokens from the files of a run, with polars: join, sort, window.

Runs in the environment of requirements/peers.txt (see peers.py). Reads the documents and the record
scores under FOLDER/run, writes FOLDER/peer/<source>.npy, and prints one line of JSON: CPU seconds,
reading and writing included.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl


def main() -> None:
    """Writes a mask per source and prints the seconds."""
    folder = Path(sys.argv[1])
    started = time.process_time()
    tables, scores = [], []
    for source in sorted(path.name for path in (folder / "run" / "tokens").iterdir()):
        documents = folder / "run" / "tokens" / source / f"{source}.records.parquet"
        name = pl.lit(source).alias("source")
        columns = ["record_id", "num_tokens", "is_validation"]
        tables.append(pl.scan_parquet(documents).select(*columns, name))
        parts = folder / "run" / "record_scores" / "given" / source / "*.parquet"
        scores.append(pl.scan_parquet(parts).select("record_id", "score"))
    frame = (
        pl.concat(tables)
        .with_row_index("row")
        .join(pl.concat(scores), on="record_id", how="left")
        .collect()
    )
    trainable = pl.col("num_tokens") * ~pl.col("is_validation")
    # Each source's share of half of all tokens, in proportion, as whole numbers.
    whole = frame.select(trainable.sum()).item()
    budget = pl.lit(whole // 2, pl.Int128) * trainable.sum().over("source").cast(pl.Int128) // whole
    kept = (
        frame.sort(["source", "score"], descending=[False, True])
        .with_columns(budget=budget)
        .with_columns(
            is_kept=(trainable.cum_sum().over("source") <= pl.col("budget"))
            & ~pl.col("is_validation")
        )
        .sort("row")
    )
    for (source,), rows in kept.group_by("source", maintain_order=True):
        np.save(folder / "peer" / f"{source}.npy", rows["is_kept"].to_numpy())
    print(json.dumps({"seconds": time.process_time() - started}))


if __name__ == "__main__":
    main()
