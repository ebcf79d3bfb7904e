"""Journals as they are found: cut off, damaged, of an earlier version."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_answers import ONE, key, left_journal, stored

from mira_megatron.scoring.answer_journal import Journal
from mira_megatron.scoring.answer_store import AnswerStore, Charged
from mira_megatron.scoring.stored_answer import answer_line

_LINES = [answer_line(stored(number, f"answer {number} 第一")) for number in range(3)]
_SENT = {"sent": 0, "model": "m", "most": {"num_prompt_tokens": 100, "num_output_tokens": 50}}


def _known(folder: Path) -> list[int]:
    store = AnswerStore(folder)
    return [number for number in range(5) if key(number) in store]


@pytest.mark.parametrize("num_bytes", [1, 40, 90, len(_LINES[2])])
@pytest.mark.parametrize("tail", [b"", b"\0", b"\0" * 10_000])
def test_what_was_cut_off_at_the_end_is_ignored(
    tmp_path: Path, num_bytes: int, tail: bytes
) -> None:
    left_journal(tmp_path, *_LINES[:2], _LINES[2][:-num_bytes], tail)
    with AnswerStore(tmp_path) as store:
        assert store.charged("m") == ONE + ONE
        store.put(stored(2))
    assert _known(tmp_path) == [0, 1, 2]


def test_nul_bytes_behind_whole_lines_are_ignored(tmp_path: Path) -> None:
    left_journal(tmp_path, *_LINES, b"\0" * 4096)
    assert _known(tmp_path) == [0, 1, 2]


def test_journal_of_nothing_but_half_a_line_is_gone(tmp_path: Path) -> None:
    journal = left_journal(tmp_path, b'{"key": ')
    assert _known(tmp_path) == []
    assert not journal.exists()


def test_answer_whose_end_was_cut_off_stays_charged_at_the_most_as_well(tmp_path: Path) -> None:
    left_journal(tmp_path, _SENT, _LINES[0], b'{"ended":0}')
    store = AnswerStore(tmp_path)
    assert key(0) in store
    assert store.charged("m") == Charged(num_prompt_tokens=110, num_output_tokens=52)


@pytest.mark.parametrize(
    "damage",
    [
        b"#\n",
        b"[]\n",
        b"\0\0\0\n",
        b"\0\0\0" + _LINES[1],
        b'{"key": 1}\n',
        b'{"ended": 3}\n',
        b'{"sent": 1, "model": "m", "most": {"num_prompt_tokens": "1"}}\n',
        _LINES[1].replace(b'"fine', b"7").replace(b'"text":"answer 1 ', b'"text":7,"x":"'),
        _LINES[1].replace(b'"text":', b'"words":'),
        _LINES[1].replace(b'"finish_reason":"stop"', b'"finish_reason":7'),
        _LINES[1].replace(b'"model":"m"', b'"model":null'),
        _LINES[1].replace(b'{"num_prompt_tokens":10', b'{"num_prompt_tokens":null'),
        _LINES[1].replace(b',"num_output_tokens":2,"fail', b',"num_output_tokens":2.5,"fail'),
        _LINES[1].replace(b'"key":"00', b'"key":"0'),
        _LINES[1].replace(b'"key":"00', b'"key":"zz'),
        _LINES[1].replace(b'"odds":null', b'"odds":[{"slot":1}]'),
        _LINES[1].replace(b'"first_top":null', b'"first_top":7'),
        _LINES[1].replace(b'"first_top":null', b'"first_top":null,"more":1'),
    ],
)
def test_damage_before_the_end_is_refused_with_file_and_line(tmp_path: Path, damage: bytes) -> None:
    assert damage not in _LINES
    journal = left_journal(tmp_path, _LINES[0], damage, _LINES[2])
    before = journal.read_bytes()
    with pytest.raises(ValueError, match=rf"{journal}:2: not a stored answer.*delete this line"):
        AnswerStore(tmp_path)
    assert journal.read_bytes() == before
    assert list(tmp_path.glob("segments/*")) == []
    left_journal(tmp_path, _LINES[0], _LINES[2])  # the way out
    assert _known(tmp_path) == [0, 2]


def test_journal_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "writing.jsonl")
    journal.put(stored(0), None)
    assert _known(tmp_path) == []
    assert journal.get(bytes.fromhex(key(0))) == stored(0)
    journal.close()
    assert _known(tmp_path) == [0]
    assert not journal.path.exists()


def test_journal_that_nothing_was_written_to_yet_is_left_alone(tmp_path: Path) -> None:
    journal = left_journal(tmp_path)
    assert _known(tmp_path) == []
    assert journal.exists()
