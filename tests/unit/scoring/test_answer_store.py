from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mira_megatron.scoring.answer_store import (
    AnswerStore,
    Charged,
    StoredAnswer,
    asking_alone,
    question_key,
)
from mira_megatron.scoring.completion import Answer

_KEYS = [f"{number:032x}" for number in range(3)]


def _stored(key: str, text: str = "fine", **changes: object) -> StoredAnswer:
    stored = StoredAnswer(
        key=key,
        model="m",
        charged=Charged(num_prompt_tokens=10, num_output_tokens=2),
        text=text,
        reasoning=None,
        finish_reason="stop",
        num_prompt_tokens=10,
        num_output_tokens=2,
        failure=None,
        failure_detail=None,
    )
    return replace(stored, **changes)  # type: ignore[arg-type]


def _with_segment(folder: Path) -> Path:
    """Returns the one segment of a store that holds the three keys."""
    with AnswerStore(folder) as store:
        for key in _KEYS:
            store.put(_stored(key, f"answer {key[-1]}\n第一"))
    (segment,) = folder.iterdir()
    return segment


def _key(**changes: object) -> str:
    asked: dict[str, object] = {"model": "m", "messages": b"[]", "sampling": [1.0], "fields": {}}
    return question_key(**{**asked, **changes})  # type: ignore[arg-type]


def test_store_gives_back_what_it_was_given_now_and_when_opened_again(tmp_path: Path) -> None:
    _with_segment(tmp_path)
    with AnswerStore(tmp_path) as store:
        store.put(_stored(f"{7:032x}", "new", reasoning="because"))
        assert len(store) == 4
        assert store.get(f"{7:032x}") == _stored(f"{7:032x}", "new", reasoning="because")
        assert store.get(_KEYS[1]) == _stored(_KEYS[1], "answer 1\n第一")
        assert store.get(f"{9:032x}") is None


def test_stored_answer_becomes_the_answer_to_another_record(tmp_path: Path) -> None:
    stored = _stored(_KEYS[0], failure="refused", failure_detail="no")
    assert stored.answer("r5") == Answer(
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
    assert not (tmp_path / "answers").exists()


@pytest.mark.parametrize("num_bytes", [1, 40, 90])
def test_store_ignores_a_last_line_that_was_cut_off(tmp_path: Path, num_bytes: int) -> None:
    segment = _with_segment(tmp_path)
    os.truncate(segment, segment.stat().st_size - num_bytes)
    with AnswerStore(tmp_path) as store:
        assert [key in store for key in _KEYS] == [True, True, False]
        store.put(_stored(_KEYS[2]))
    assert len(list(tmp_path.iterdir())) == 2  # the damaged segment is left as it is
    assert len(AnswerStore(tmp_path)) == 3


@pytest.mark.parametrize("damage", [b"#", b'{"key": 1}', b"[]"])
def test_store_damaged_in_the_middle_is_refused_with_file_and_line(
    tmp_path: Path, damage: bytes
) -> None:
    segment = _with_segment(tmp_path)
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + damage + b"\n" + lines[2])
    with pytest.raises(ValueError, match=rf"{segment.name}:2: not a stored answer"):
        AnswerStore(tmp_path)


def test_stores_written_at_once_have_segments_of_their_own(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as one, AnswerStore(tmp_path) as other:
        one.put(_stored(_KEYS[0]))
        other.put(_stored(_KEYS[1]))
    assert len(list(tmp_path.iterdir())) == 2
    assert len(AnswerStore(tmp_path)) == 2


def test_charged_counts_every_answer_of_a_model_twice_paid_ones_twice(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        store.put(_stored(_KEYS[0]))
        store.put(_stored(_KEYS[0]))
        store.put(_stored(_KEYS[1], model="other"))
    again = AnswerStore(tmp_path)
    assert again.charged("m") == Charged(num_prompt_tokens=20, num_output_tokens=4)
    assert again.charged("nobody") == Charged()


def test_what_was_sent_is_charged_at_its_most_until_it_has_ended(tmp_path: Path) -> None:
    most = Charged(num_prompt_tokens=100, num_output_tokens=50)
    with AnswerStore(tmp_path) as store:
        answered, free, lost = (store.send("m", most) for _ in range(3))
        assert store.charged("m") == most + most + most
        store.put(_stored(_KEYS[0]), answered)
        store.end(free)
        at_last = store.charged("m")
    assert lost not in (answered, free)
    assert at_last == most + Charged(num_prompt_tokens=10, num_output_tokens=2)
    again = AnswerStore(tmp_path)
    assert (again.charged("m"), len(again)) == (at_last, 1)
    assert again.get(_KEYS[0]) == _stored(_KEYS[0])


def test_answer_whose_end_was_cut_off_stays_charged_at_the_most_as_well(tmp_path: Path) -> None:
    most = Charged(num_prompt_tokens=100, num_output_tokens=50)
    with AnswerStore(tmp_path) as store:
        store.put(_stored(_KEYS[0]), store.send("m", most))
    (segment,) = tmp_path.iterdir()
    os.truncate(segment, segment.stat().st_size - 1)
    again = AnswerStore(tmp_path)
    assert _KEYS[0] in again
    assert again.charged("m") == most + Charged(num_prompt_tokens=10, num_output_tokens=2)


def test_end_of_what_was_never_sent_is_refused_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"ended": 3}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:1: not a stored answer"):
        AnswerStore(tmp_path)


def test_asking_alone_refuses_another_one_until_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    for _ in range(2):
        with (
            asking_alone(folder),
            pytest.raises(ValueError, match="another process is asking") as caught,
            asking_alone(folder),
        ):
            pass
        assert str(folder) in str(caught.value)


def test_what_was_sent_is_charged_after_kill_9(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mira_megatron.scoring.answer_store import *\n"
        "store = AnswerStore(Path(sys.argv[1]))\n"
        "store.send('m', Charged(num_prompt_tokens=7, num_output_tokens=8))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert AnswerStore(tmp_path).charged("m") == Charged(num_prompt_tokens=7, num_output_tokens=8)


def test_answer_put_is_there_after_kill_9(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mira_megatron.scoring.answer_store import *\n"
        "store = AnswerStore(Path(sys.argv[1]))\n"
        "store.put(StoredAnswer(key='0' * 32, model='m', charged=Charged(), text='kept',"
        " reasoning=None, finish_reason=None, num_prompt_tokens=None, num_output_tokens=None,"
        " failure=None, failure_detail=None))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    stored = AnswerStore(tmp_path).get("0" * 32)
    assert stored is not None
    assert stored.text == "kept"


def test_store_on_a_full_disk_says_so_and_keeps_what_was_answered(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from mira_megatron.scoring.answer_store import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = AnswerStore(Path(sys.argv[1]))\n"
        "for number in range(99):\n"
        "    store.put(StoredAnswer(key=f'{number:032x}', model='m', charged=Charged(), text='k',"
        " reasoning=None, finish_reason=None, num_prompt_tokens=None, num_output_tokens=None,"
        " failure=None, failure_detail=None))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    assert "no space left while keeping an answer" in ended.stderr
    assert f"{0:032x}" in AnswerStore(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"messages": b"[ ]"},
        {"sampling": [2.0]},
        {"fields": {"top_k": 1}},
    ],
)
def test_question_key_changes_with_all_that_decides_an_answer(change: dict[str, object]) -> None:
    assert _key() == _key()
    assert _key(**change) != _key()


def test_question_key_does_not_depend_on_the_order_of_fields() -> None:
    assert _key(fields={"a": 1, "b": 2}) == _key(fields={"b": 2, "a": 1})
