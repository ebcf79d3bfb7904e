"""Parquet rows written group by group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mira_megatron.tokenization import parquet_rows
from mira_megatron.tokenization.parquet_rows import writing_rows

TABLE = pa.table({"name": [f"row {number}" for number in range(40)]})
# As a full disk is: a file cannot grow above a few bytes.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import pyarrow as pa
from mira_megatron.tokenization.parquet_rows import writing_rows
table = pa.table({"number": list(range(100_000))})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with writing_rows(Path(sys.argv[1]), table.schema) as rows:
    rows.add(table)
"""


@pytest.mark.parametrize("step", [1, 3, 7, 16, 40])
def test_rows_are_the_same_bytes_however_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(parquet_rows, "ROWS_PER_GROUP", 7)
    whole, path = tmp_path / "whole.parquet", tmp_path / "rows.parquet"
    with writing_rows(whole, TABLE.schema) as rows:
        rows.add(TABLE)
    with writing_rows(path, TABLE.schema) as rows:
        for start in range(0, TABLE.num_rows, step):
            rows.add(TABLE.slice(start, step))
    assert pq.read_table(path).equals(TABLE)
    assert pq.read_metadata(path).num_row_groups == 6
    assert path.read_bytes() == whole.read_bytes()


def test_no_rows_are_a_file_of_none(tmp_path: Path) -> None:
    with writing_rows(tmp_path / "none.parquet", TABLE.schema):
        pass
    assert pq.read_table(tmp_path / "none.parquet").equals(TABLE.schema.empty_table())


def test_a_block_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    with (
        pytest.raises(KeyError, match="absent"),
        writing_rows(path, TABLE.schema) as rows,
    ):
        rows.add(TABLE.select(["absent"]))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{path}: no space left while writing" in done.stderr
    assert list(tmp_path.iterdir()) == []
