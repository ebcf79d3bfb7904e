from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mira_megatron.shards import file_digest as digest_of
from mira_megatron.shards import map_shards, read_part, write_parquet


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_map_shards_keeps_the_order_of_tasks(workers: int) -> None:
    tasks = list(range(9))
    assert list(map_shards(square, tasks, workers=workers, title="")) == [n * n for n in tasks]


def test_read_part_with_changed_bytes_names_the_part(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_parquet(path, pa.table({"a": [1]}))
    digest = digest_of(path)
    assert read_part(path, digest, ["a"]).to_pylist() == [{"a": 1}]
    write_parquet(path, pa.table({"a": [2]}))
    with pytest.raises(ValueError, match=r"part-00000\.parquet: this part's bytes changed"):
        read_part(path, digest, ["a"])


def test_parquet_of_equal_tables_is_equal_bytes(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", None], "b": [[1, 2], []]})
    for name in ("one", "two"):
        write_parquet(tmp_path / name, table)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
