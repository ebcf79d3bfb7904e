from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.grade_shards import Shard, shard_files, shard_of_words


@given(st.integers(1, 50), st.integers(0, 500))
def test_every_task_is_one_shards(count: int, position: int) -> None:
    shards = [shard_of_words(f"{index}/{count}") for index in range(count)]
    assert sum(shard.has(position) for shard in shards) == 1
    assert len({shard.file_name for shard in shards}) == count


@pytest.mark.parametrize("words", ["8/8", "3", "-1/8", "1/0", "a/b", "1/8/2", "0/8 ", "1.5/8"])
def test_words_that_are_no_shard_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match="shard"):
        shard_of_words(words)


def test_files_of_shards_are_found_oldest_first(tmp_path: Path) -> None:
    for age, shard in enumerate((Shard(index=0, count=2), Shard(index=7, count=8))):
        path = tmp_path / shard.file_name
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "verdicts.jsonl").touch()
    assert [path.name for path in shard_files(tmp_path)] == [
        "verdicts.7-of-8.jsonl",
        "verdicts.0-of-2.jsonl",
    ]
