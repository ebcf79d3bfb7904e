from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stored_answers import ONE, key, left_journal, stored

from mira_megatron.scoring.answer_store import (
    AnswerStore,
    Charged,
    asking,
)
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import SlotOdds

_MOST = Charged(num_prompt_tokens=100, num_output_tokens=50)
_ODDS = SlotOdds(
    slot=3, score=9, token=2, before=" ", weights={"9": 0.5}, one=0.5, zero_after_one=None
)
_ANSWERS = [
    stored(1, "第一\nand\u0000more", reasoning="because", model="other"),
    stored(2, failure="refused", failure_detail="no", finish_reason=None),
    stored(3, num_prompt_tokens=None, charged=Charged(num_prompt_tokens=7), text=None),
    stored(4, odds=(_ODDS, _ODDS), first_top=(("1", -0.25), ("0", -1.5))),
    stored(5, odds=(), first_top=()),
]


_NO_ROOM = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
)


def _in_process(folder: Path, body: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a process that has `store`, opened on the folder and never closed."""
    script = (
        f"import os, signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from stored_answers import *\n"
        f"from mira_megatron.scoring.answer_store import *\n{before}"
        f"store = AnswerStore(Path(sys.argv[1]))\n{body}\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)


def test_store_gives_back_what_it_was_given_now_and_when_opened_again(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        for answer in _ANSWERS:
            store.put(answer)
        assert [store.get(answer.key) for answer in _ANSWERS] == _ANSWERS
    with AnswerStore(tmp_path) as store:
        store.put(stored(7, "new"))
        assert len(store) == 6
        assert [store.get(answer.key) for answer in _ANSWERS] == _ANSWERS
        assert store.get(key(7)) == stored(7, "new")
        assert (key(5) in store, key(7) in store, key(9) in store) == (True, True, False)
        assert store.get(key(9)) is None


def test_store_gives_all_it_knows_of_many_questions_at_once(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        for number in range(0, 2_000, 2):
            store.put(stored(number, f"text {number}"))
    with AnswerStore(tmp_path) as store:
        store.put(stored(1, "text 1"))
        known = store.known([key(number) for number in reversed(range(1_500))])
        assert store.known([]) == {}
    assert known == {key(n): stored(n, f"text {n}") for n in (1, *range(0, 1_500, 2))}


def test_stored_answer_becomes_the_answer_to_another_record() -> None:
    assert stored(0, failure="refused", failure_detail="no").answer("r5") == Answer(
        key="r5",
        text="fine",
        finish_reason="stop",
        num_prompt_tokens=10,
        num_output_tokens=2,
        failure="refused",
        failure_detail="no",
        is_completion=True,
    )


def test_store_without_an_answer_leaves_no_folder(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "answers") as store:
        assert len(store) == 0
        assert store.get(key(1)) is None
    assert not (tmp_path / "answers").exists()


def test_first_of_two_answers_stands_in_one_journal_and_over_openings(tmp_path: Path) -> None:
    for text in ("a", "b"):
        with AnswerStore(tmp_path) as store:
            store.put(stored(1, f"first {text}"))
            store.put(stored(1, f"second {text}"))
            assert store.get(key(1)) == stored(1, "first a")
            assert len(store) == 1
    again = AnswerStore(tmp_path)
    assert (again.get(key(1)), len(again)) == (stored(1, "first a"), 1)
    assert again.charged("m") == ONE + ONE + ONE + ONE


def test_stores_written_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as one:
        one.put(stored(1))
        with AnswerStore(tmp_path) as other:  # takes in nothing that is being written
            other.put(stored(1))
            other.put(stored(2))
            assert len(other) == 2
        one.put(stored(3))
        assert len(one) == 2
    again = AnswerStore(tmp_path)
    assert [number for number in range(5) if key(number) in again] == [1, 2, 3]
    assert (len(again), again.charged("m")) == (3, ONE + ONE + ONE + ONE)


def test_journals_that_are_full_become_segments_meanwhile(tmp_path: Path) -> None:
    with AnswerStore(tmp_path, answers_per_journal=3) as store:
        for number in range(20):
            store.put(stored(number, f"text {number}"))
            assert [store.get(key(n)) for n in range(number + 2)] == [
                *(stored(n, f"text {n}") for n in range(number + 1)),
                None,
            ]
            assert len(store) == number + 1
            assert store.charged("m").num_output_tokens == 2 * (number + 1)
        assert len(list(tmp_path.glob("*.jsonl"))) <= 4
    assert list(tmp_path.glob("*.jsonl")) == []
    assert len(list(tmp_path.glob("segments/*.parquet"))) == 7
    assert len(AnswerStore(tmp_path)) == 20


def test_charged_counts_every_answer_of_a_model_twice_paid_ones_twice(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        store.put(stored(0))
        store.put(stored(0))
        store.put(stored(1, model="other"))
    again = AnswerStore(tmp_path)
    assert again.charged("m") == ONE + ONE
    assert again.charged("nobody") == Charged()


def test_what_was_sent_is_charged_at_its_most_until_it_has_ended(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        answered, free, lost = (store.send("m", _MOST) for _ in range(3))
        assert store.charged("m") == _MOST + _MOST + _MOST
        store.put(stored(0), answered)
        store.end(free)
        at_last = store.charged("m")
    assert lost not in (answered, free)
    assert at_last == _MOST + ONE
    again = AnswerStore(tmp_path)
    assert (again.charged("m"), len(again)) == (at_last, 1)
    assert again.get(key(0)) == stored(0)


def test_what_was_sent_may_end_in_a_later_journal(tmp_path: Path) -> None:
    with AnswerStore(tmp_path, answers_per_journal=1) as store:
        first, second, lost = (store.send("m", _MOST) for _ in range(3))
        store.put(stored(0))
        store.put(stored(1), first)
        store.put(stored(2))
        store.end(second)
        assert store.charged("m") == _MOST + ONE + ONE + ONE
    assert lost > second
    assert AnswerStore(tmp_path).charged("m") == _MOST + ONE + ONE + ONE


def test_store_left_by_an_error_is_taken_in_by_the_next_one(tmp_path: Path) -> None:
    def put_and_fail() -> None:
        with AnswerStore(tmp_path) as store:
            store.put(stored(1))
            raise KeyError

    with pytest.raises(KeyError):
        put_and_fail()
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    assert AnswerStore(tmp_path).get(key(1)) == stored(1)
    assert list(tmp_path.glob("*.jsonl")) == []


def test_answers_of_an_earlier_version_are_used(tmp_path: Path) -> None:
    left_journal(
        tmp_path,
        {"sent": 0, "model": "m", "most": {"num_prompt_tokens": 100, "num_output_tokens": 50}},
        {"sent": 1, "model": "m", "most": {"num_prompt_tokens": 100, "num_output_tokens": 50}},
        b'{"key":"00000000000000000000000000000001","model":"m","charged":{"num_prompt_tokens":10,'
        b'"num_output_tokens":2},"text":"fine","reasoning":null,"finish_reason":"stop",'
        b'"num_prompt_tokens":10,"num_output_tokens":2,"failure":null,"failure_detail":null}\n',
        {"ended": 1},
    )
    again = AnswerStore(tmp_path)
    assert again.get(key(1)) == stored(1)
    assert again.charged("m") == _MOST + ONE


@pytest.mark.parametrize("together", [(False, False), (False, True), (True, False)])
def test_asking_alone_refuses_others_until_it_ends(
    tmp_path: Path, together: tuple[bool, bool]
) -> None:
    folder = tmp_path / "answers"
    first, second = together
    for _ in range(2):
        with (
            asking(folder, together=first),
            pytest.raises(ValueError, match="another process is asking") as caught,
            asking(folder, together=second),
        ):
            pass
        assert str(folder) in str(caught.value)


def test_workers_that_share_ask_together(tmp_path: Path) -> None:
    with asking(tmp_path, together=True), asking(tmp_path, together=True):
        pass


def test_what_was_put_and_sent_is_there_after_kill_9(tmp_path: Path) -> None:
    ended = _in_process(
        tmp_path,
        "store.put(stored(1)); store.send('m', ONE); os.kill(os.getpid(), signal.SIGKILL)",
    )
    assert ended.returncode == -signal.SIGKILL
    again = AnswerStore(tmp_path)
    assert again.get(key(1)) == stored(1)
    assert again.charged("m") == ONE + ONE


def test_store_on_a_full_disk_says_so_and_keeps_what_was_answered(tmp_path: Path) -> None:
    ended = _in_process(
        tmp_path,
        "for number in range(99): store.put(stored(number))",
        _NO_ROOM,
    )
    assert "no space left while keeping an answer" in ended.stderr
    again = AnswerStore(tmp_path)
    assert [number for number in range(99) if key(number) in again] == [0, 1, 2]


def test_store_with_room_again_goes_on_behind_the_line_that_did_not_fit(tmp_path: Path) -> None:
    ended = _in_process(
        tmp_path,
        "try:\n"
        "    for number in range(99): store.put(stored(number))\n"
        "except OSError: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "store.put(stored(50))\n"
        "assert store.get(key(50)) == stored(50)\n",
        _NO_ROOM,
    )
    assert ended.returncode == 0, ended.stderr
    again = AnswerStore(tmp_path)
    assert [number for number in range(99) if key(number) in again] == [0, 1, 2, 50]


def test_segment_for_which_there_is_no_room_leaves_the_journal(tmp_path: Path) -> None:
    put = "with store: [store.put(stored(number)) for number in range(3)]"
    for body in (put, ""):
        ended = _in_process(tmp_path, body, _NO_ROOM)
        assert ended.returncode == 1
        assert "no space left while writing" in ended.stderr
        assert list((tmp_path / "segments").iterdir()) == []
    assert len(AnswerStore(tmp_path)) == 3


def test_what_cannot_be_forced_to_disk_is_said_by_a_later_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    put = []

    def put_until_told() -> None:
        with AnswerStore(tmp_path, seconds_per_sync=0.001) as store:
            for number in range(100_000):
                store.put(stored(0))
                put.append(number)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="Input/output error"):
            put_until_told()
    assert len(put) < 100_000
    assert key(0) in AnswerStore(tmp_path)
