"""`mira tokens write`, ended by kill -9 anywhere and run again."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from killed_work import num_calls_or_killed
from written_tokens import TEXTS, files_under, jsonl, train_tokenizer, written

pytestmark = pytest.mark.integration  # a minute

KILLS = 10
JOINING_CALLS = 12


def write(files: list[Path], tokenizer: Path, folder: Path) -> None:
    """Writes with one thread, so that a call has one place in the order."""
    written(files, tokenizer, folder, workers=1, id_field="id")


def test_writing_killed_anywhere_and_run_again_gives_the_same_bytes(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path)
    # A shard for each file; ids are those of the rows' numbers, so the files have their own.
    parts = [TEXTS[start::4] for start in range(4)]
    files = [jsonl(tmp_path / f"{number}.jsonl", part) for number, part in enumerate(parts)]
    for number, path in enumerate(files):
        path.write_bytes(path.read_bytes().replace(b'"id-', f'"{number}-'.encode()))
    output = tmp_path / "out"
    num_calls = num_calls_or_killed(write, (files, tokenizer, output), kill_at=0)
    expected = files_under(output)
    draw = random.Random(0)
    # Half of them where the shards are joined and get their names, the last calls of all.
    first = [1, max(1, num_calls - JOINING_CALLS)] * (KILLS // 2)
    for kill_at in [draw.randint(start, num_calls) for start in first]:
        shutil.rmtree(output)
        killed = num_calls_or_killed(write, (files, tokenizer, output), kill_at)
        assert killed == -signal.SIGKILL
        write(files, tokenizer, output)
        assert files_under(output) == expected, f"killed at call {kill_at} of {num_calls}"
