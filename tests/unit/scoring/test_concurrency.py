from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.concurrency import COOL_DOWN_SECONDS, Concurrency


class _Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def _answer_window(concurrency: Concurrency, num_used: int | None = None) -> None:
    """Plays as many answers as the limit, with so many requests in flight at once; None: all."""
    limit = concurrency.limit
    for _ in range(limit if num_used is None else num_used):
        concurrency.start()
    for _ in range(limit):
        concurrency.end()
        concurrency.grow()
        concurrency.start()
    while concurrency.num_in_flight:
        concurrency.end()


def test_concurrency_doubles_from_8_to_the_most_while_all_of_it_is_used() -> None:
    concurrency = Concurrency(50, _Clock())
    limits = [concurrency.limit]
    for _ in range(4):
        _answer_window(concurrency)
        limits.append(concurrency.limit)
    assert limits == [8, 16, 32, 50, 50]


def test_concurrency_starts_with_the_most_where_that_is_less_than_8() -> None:
    assert Concurrency(3, _Clock()).limit == 3


def test_concurrency_that_is_not_used_does_not_grow() -> None:
    concurrency = Concurrency(64, _Clock())
    _answer_window(concurrency, num_used=6)
    assert concurrency.limit == 8
    _answer_window(concurrency, num_used=7)
    assert concurrency.limit == 16


def test_concurrency_held_does_not_grow_until_it_is_let_go() -> None:
    concurrency = Concurrency(64, _Clock())
    concurrency.is_held = True
    _answer_window(concurrency)
    assert concurrency.limit == 8
    concurrency.is_held = False
    _answer_window(concurrency)
    assert concurrency.limit == 16


def test_concurrency_a_burst_of_refusals_cuts_once_per_cool_down() -> None:
    clock = _Clock()
    concurrency = Concurrency(10, clock)
    _answer_window(concurrency)
    for _ in range(5):
        concurrency.cut()
    assert concurrency.limit == 8
    clock.seconds += COOL_DOWN_SECONDS - 0.1
    concurrency.cut()
    assert concurrency.limit == 8
    clock.seconds += 0.1
    concurrency.cut()
    assert concurrency.limit == 6  # 10 x 0.8 x 0.8 = 6.4


def test_concurrency_after_a_cut_grows_by_steps_and_no_more_by_doubling() -> None:
    clock = _Clock()
    concurrency = Concurrency(64, clock)
    for _ in range(3):
        _answer_window(concurrency)
    concurrency.cut()
    assert concurrency.limit == 51  # 51.2
    # What refused a moment ago gets no more: a server full at nine would be asked ever more.
    clock.seconds += COOL_DOWN_SECONDS - 0.1
    _answer_window(concurrency)
    assert concurrency.limit == 51
    clock.seconds += 0.1
    _answer_window(concurrency)
    assert concurrency.limit == 54  # a sixteenth more: 54.4


def test_concurrency_of_an_endpoint_that_comes_back_starts_slowly_again() -> None:
    concurrency = Concurrency(64, _Clock())
    for _ in range(3):
        _answer_window(concurrency)
    concurrency.restart()
    assert concurrency.limit == 8
    _answer_window(concurrency)
    assert concurrency.limit == 16


_EVENTS = st.sampled_from(["start", "answer", "refuse", "wait", "hold", "let go", "restart"])


@given(most=st.integers(1, 300), events=st.lists(_EVENTS, max_size=150))
def test_concurrency_limit_stays_between_1_and_the_most_whatever_happens(
    most: int, events: list[str]
) -> None:
    clock = _Clock()
    concurrency = Concurrency(most, clock)
    for event in events:
        before = concurrency.limit
        if event == "start" and concurrency.room > 0:
            concurrency.start()
        elif event in ("answer", "refuse") and concurrency.num_in_flight:
            concurrency.end()
            concurrency.grow() if event == "answer" else concurrency.cut()
        elif event == "wait":
            clock.seconds += 10
        elif event in ("hold", "let go"):
            concurrency.is_held = event == "hold"
        elif event == "restart":
            concurrency.restart()
        assert 1 <= concurrency.limit <= most
        assert concurrency.limit <= max(8, 2 * before)
        if event == "refuse":
            assert concurrency.limit >= int(0.8 * before)
        elif event != "restart":
            assert concurrency.limit >= before
