"""The store of answers through kill -9, at every call by which its files change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed_sessions import Sessions
from stored_answers import key, stored

from mira_megatron.atomic_files import is_temporary
from mira_megatron.scoring.answer_store import AnswerStore

_ANSWERS = [(number, f"text {number}") for number in range(7)]


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    with Sessions() as sessions:
        yield sessions


def _assert_holds(folder: Path, expected: dict[int, str], maybe: dict[int, str]) -> None:
    """Fails unless a folder has these answers, at most the others besides, and nothing is left."""
    for _ in range(2):
        with AnswerStore(folder) as store:
            found = store.known([key(number) for number in range(20)])
            num_charged = store.charged("m").num_output_tokens // 2
            assert len(store) == len(found)
        both = {**maybe, **expected}
        assert found == {name: stored(int(name, 16), both[int(name, 16)]) for name in found}
        assert {key(number) for number in expected} <= found.keys()
        assert len(found) <= num_charged <= len(both)
        assert list(folder.glob("*.jsonl")) in ([], _without_bytes(folder))
        segments = folder / "segments"
        assert not any(map(is_temporary, segments.iterdir() if segments.is_dir() else []))


def _without_bytes(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.jsonl") if not path.stat().st_size]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: forcing to disk takes its time, and is not tested."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.parametrize("has_earlier", [False, True])
def test_no_answer_put_is_lost_or_counted_twice_whatever_call_is_killed(
    sessions: Sessions, memory: Path, has_earlier: bool
) -> None:
    earlier = [(number, f"text {number}") for number in range(10, 12)] if has_earlier else []
    start = memory / "start"
    start.mkdir()
    sessions.run(start, earlier, is_closed=False)
    num_killed = 0
    for kill_at in range(1, 200):
        folder = memory / str(kill_at)
        shutil.copytree(start, folder)
        is_ended, num_put = sessions.run(folder, _ANSWERS, kill_at=kill_at)
        expected = dict([*earlier, *_ANSWERS[:num_put]])
        _assert_holds(folder, expected, dict(_ANSWERS[num_put : num_put + 1]))
        if is_ended:
            break
        num_killed += 1
    assert num_killed > 20


def test_folder_opened_again_and_again_is_killed_again_and_again(
    sessions: Sessions, memory: Path
) -> None:
    sessions.run(memory, _ANSWERS, is_closed=False)
    kills = 0
    while not sessions.run(memory, kill_at=kills + 1)[0]:
        kills += 1
    assert kills > 8
    _assert_holds(memory, dict(_ANSWERS), {})


_SESSION = st.tuples(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), max_size=8),
    st.booleans(),
    st.integers(0, 40),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_SESSION, min_size=1, max_size=5))
def test_store_is_a_dict_in_which_the_first_answer_stands(
    sessions: Sessions,
    memory: Path,
    history: list[tuple[list[tuple[int, str]], bool, int]],
) -> None:
    folder = memory / uuid4().hex
    expected: dict[int, str] = {}
    for answers, is_closed, kill_at in history:
        _, num_put = sessions.run(folder, answers, kill_at=kill_at, is_closed=is_closed)
        for number, text in answers[:num_put]:
            expected.setdefault(number, text)
        store = AnswerStore(folder)
        for number, text in answers[num_put : num_put + 1]:  # put by halves
            if key(number) in store:
                expected.setdefault(number, text)
        found = store.known([key(number) for number in range(10)])
        assert found == {key(number): stored(number, text) for number, text in expected.items()}
        assert len(store) == len(expected)
