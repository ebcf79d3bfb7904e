from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.generation.generations import (
    Generation,
    GenerationFile,
    generation_of_line,
    read_generations,
    style_of,
)
from mira_megatron.eval.verdicts import Form

ONE = Generation(
    task_id="t/0",
    sample=0,
    prompt_digest="d",
    template="p/1",
    sampling="temperature=0.0 top_p=1.0 max_tokens=9",
    seed=None,
    form=Form.COMPLETION,
    text="x",
    finish_reason="stop",
    num_prompt_tokens=1,
    num_output_tokens=None,
    reason=None,
)


def write(path: Path, *generations: Generation) -> None:
    with GenerationFile(path) as file:
        for generation in generations:
            file.append(generation)


@given(st.text(st.characters()), st.integers(0, 2**31), st.none() | st.text())
def test_line_gives_back_the_generation(text: str, seed: int, reason: str | None) -> None:
    generation = dataclasses.replace(ONE, text=text, seed=seed, reason=reason)

    line = generation.to_line()

    assert line.count(b"\n") == 1
    assert line.isascii()
    assert generation_of_line(line) == generation


@pytest.mark.parametrize("num_bytes", [1, 40, 200])
def test_torn_last_line_is_not_read_and_cut_off_before_the_next(
    tmp_path: Path, num_bytes: int
) -> None:
    path = tmp_path / "g.jsonl"
    second, third = (dataclasses.replace(ONE, sample=number) for number in (1, 2))
    write(path, ONE)
    with path.open("ab") as file:
        file.write(second.to_line()[:num_bytes])

    assert list(read_generations(path).values()) == [ONE]
    write(path, third)
    assert list(read_generations(path).values()) == [ONE, third]


def test_later_line_of_one_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    again = dataclasses.replace(ONE, text="y")
    write(path, ONE, again)

    assert list(read_generations(path).values()) == [again]


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"{}\n",
        b"{\n",
        b"\xff\n",
        ONE.to_line().replace(b'"sample": 0', b'"sample": "0"'),
        ONE.to_line().replace(b'"completion"', b'"poem"'),
        ONE.to_line().replace(b'"reason"', b'"why": 1, "reason"'),
    ],
)
def test_line_that_is_none_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "g.jsonl"
    path.write_bytes(ONE.to_line() + line)

    with pytest.raises(ValueError, match=r"g.jsonl:2: no generation"):
        read_generations(path)


def test_style_is_that_of_the_last_answer() -> None:
    answer = dataclasses.replace(ONE, form=Form.ANSWER)

    assert style_of([ONE, answer]) is Style.CHAT
    assert style_of([answer, ONE]) is Style.COMPLETION


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Keeps this process from writing larger files, as a disk that is full would.

    The test runner's own log is one of them, so it holds as long as needed and no longer.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_after_a_line_that_the_disk_did_not_take_whole_no_other_follows(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    size = len(ONE.to_line())
    with GenerationFile(path) as file:
        file.append(ONE)
        full = pytest.raises(OSError, match=r"no space left while keeping an answer\. Make room")
        with largest_file(size + size // 2), full:
            file.append(ONE)
        with pytest.raises(OSError, match="no space left"):
            file.append(ONE)
    assert path.read_bytes() == ONE.to_line() + ONE.to_line()[: size // 2]

    write(path, dataclasses.replace(ONE, sample=1))

    assert len(read_generations(path)) == 2
