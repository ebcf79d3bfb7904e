"""A process that has read a part may end at any moment, with its own exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from smoke_runs import assert_done, ended

from mira_megatron.shards import file_digest

FORKING = Path(__file__).with_name("exit_after_reading.py")


def test_process_that_has_read_a_part_ends_without_an_abort(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    columns = {name: ["abc" * 50] * 2_000 for name in "abcd"}
    pq.write_table(pa.table(columns), path, row_group_size=100)
    assert_done(ended([sys.executable, FORKING, path, file_digest(path)]))
