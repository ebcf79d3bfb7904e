from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.concurrency import Concurrency


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


def _refuse_together(concurrency: Concurrency, *, num_sent: int, num_refused: int) -> None:
    """Plays requests sent together of which the server takes all but some."""
    for _ in range(num_sent):
        concurrency.start()
    burst = concurrency.burst
    for number in range(num_refused):
        concurrency.end()
        assert concurrency.refuse(burst) is (number == 0)
    for _ in range(num_sent - num_refused):
        concurrency.end()


def _let_all_come(concurrency: Concurrency, limit: int) -> None:
    """Plays two windows of answers to one request at a time."""
    for _ in range(2 * limit):
        concurrency.start()
        concurrency.end()
        concurrency.grow()


def test_concurrency_doubles_from_16_to_the_most_while_all_of_it_is_used() -> None:
    concurrency = Concurrency(100)
    limits = [concurrency.limit]
    for _ in range(4):
        _answer_window(concurrency)
        limits.append(concurrency.limit)
    assert limits == [16, 32, 64, 100, 100]


def test_concurrency_starts_with_the_most_where_that_is_less_than_16() -> None:
    assert Concurrency(3).limit == 3


def test_concurrency_that_is_not_used_does_not_grow() -> None:
    concurrency = Concurrency(64)
    _answer_window(concurrency, num_used=12)
    assert concurrency.limit == 16
    _answer_window(concurrency, num_used=13)
    assert concurrency.limit == 32


def test_concurrency_held_does_not_grow_until_it_is_let_go() -> None:
    concurrency = Concurrency(64)
    concurrency.is_held = True
    _answer_window(concurrency)
    assert concurrency.limit == 16
    concurrency.is_held = False
    _answer_window(concurrency)
    assert concurrency.limit == 32


def test_concurrency_falls_by_as_many_as_are_refused() -> None:
    concurrency = Concurrency(64)
    _refuse_together(concurrency, num_sent=16, num_refused=7)
    assert concurrency.limit == 9  # what the server took


def test_concurrency_a_burst_of_refusals_takes_half_at_most() -> None:
    concurrency = Concurrency(64)
    for _ in range(3):
        _answer_window(concurrency)
    _refuse_together(concurrency, num_sent=64, num_refused=60)
    assert concurrency.limit == 32
    _refuse_together(concurrency, num_sent=32, num_refused=32)
    assert concurrency.limit == 16


def test_concurrency_refusals_of_a_burst_that_comes_late_do_not_cut_again() -> None:
    concurrency = Concurrency(64)
    for _ in range(3):
        _answer_window(concurrency)
    late = concurrency.burst
    _refuse_together(concurrency, num_sent=64, num_refused=63)
    _refuse_together(concurrency, num_sent=32, num_refused=1)
    assert concurrency.limit == 31
    assert not concurrency.refuse(late)
    assert concurrency.limit == 31


def test_concurrency_refusal_while_little_is_in_flight_falls_to_that_first() -> None:
    concurrency = Concurrency(64)
    for _ in range(3):
        _answer_window(concurrency)
    _let_all_come(concurrency, 64)
    _refuse_together(concurrency, num_sent=40, num_refused=3)
    assert concurrency.limit == 37
    _let_all_come(concurrency, 40)
    before = concurrency.limit
    _refuse_together(concurrency, num_sent=2, num_refused=1)
    assert concurrency.limit == before // 2  # half at most


def test_concurrency_timeouts_of_a_burst_cut_a_fifth_once() -> None:
    concurrency = Concurrency(10)
    _answer_window(concurrency)
    burst = concurrency.burst
    for _ in range(5):
        concurrency.cut(burst)
    assert concurrency.limit == 8
    concurrency.cut(concurrency.burst)
    assert concurrency.limit == 6  # 8 x 0.8 = 6.4
    for _ in range(20):
        concurrency.cut(concurrency.burst)
    assert concurrency.limit == 1


def test_concurrency_after_a_refusal_grows_by_steps_and_no_more_by_doubling() -> None:
    concurrency = Concurrency(64)
    for _ in range(3):
        _answer_window(concurrency)
    _refuse_together(concurrency, num_sent=64, num_refused=13)
    assert concurrency.limit == 51
    _answer_window(concurrency)
    assert concurrency.limit == 54  # a sixteenth more: 54.2
    _answer_window(concurrency)
    assert concurrency.limit == 57


def test_concurrency_growth_that_is_refused_at_once_is_tried_ever_more_seldom() -> None:
    concurrency = Concurrency(64)
    _refuse_together(concurrency, num_sent=16, num_refused=7)
    windows = []
    for _ in range(8):
        windows.append(0)
        while concurrency.limit == 9:
            _answer_window(concurrency)
            windows[-1] += 1
        assert concurrency.limit == 10
        _refuse_together(concurrency, num_sent=10, num_refused=1)
        assert concurrency.limit == 9
    assert windows == [1, 2, 4, 8, 16, 32, 32, 32]
    # The server takes more from here on: one proof, and it grows as at first.
    while concurrency.limit == 9:
        _answer_window(concurrency)
    _answer_window(concurrency)
    _answer_window(concurrency)
    assert concurrency.limit == 12


def test_concurrency_growth_that_nothing_has_used_is_not_added_to() -> None:
    concurrency = Concurrency(64)
    _refuse_together(concurrency, num_sent=16, num_refused=6)
    _answer_window(concurrency)
    assert concurrency.limit == 11
    _let_all_come(concurrency, 11)  # what that window left behind
    for _ in range(3):
        _answer_window(concurrency, num_used=9)
    assert concurrency.limit == 11


def test_concurrency_of_an_endpoint_that_comes_back_starts_slowly_again() -> None:
    concurrency = Concurrency(64)
    for _ in range(3):
        _answer_window(concurrency)
    concurrency.restart()
    assert concurrency.limit == 16
    _answer_window(concurrency)
    assert concurrency.limit == 32


_EVENTS = st.sampled_from(
    ["start", "answer", "refuse", "refuse late", "time out", "hold", "let go", "restart"]
)


@given(most=st.integers(1, 300), events=st.lists(_EVENTS, max_size=150))
def test_concurrency_limit_stays_between_1_and_the_most_whatever_happens(
    most: int, events: list[str]
) -> None:
    concurrency = Concurrency(most)
    sent: list[int] = []  # the bursts of what is in flight
    for event in events:
        before, burst = concurrency.limit, concurrency.burst
        if event == "start" and concurrency.room > 0:
            concurrency.start()
            sent.append(burst)
        elif event in ("answer", "refuse", "refuse late", "time out") and sent:
            sent_in = sent.pop(0 if event == "refuse late" else -1)
            concurrency.end()
            match event:
                case "answer":
                    concurrency.grow()
                case "time out":
                    concurrency.cut(sent_in)
                case _:
                    assert concurrency.refuse(sent_in) is (sent_in == burst)
        elif event in ("hold", "let go"):
            concurrency.is_held = event == "hold"
        elif event == "restart":
            concurrency.restart()
        assert concurrency.num_in_flight == len(sent)
        assert 1 <= concurrency.limit <= most
        assert concurrency.limit <= max(16, 2 * before)
        if event in ("refuse", "refuse late", "time out"):
            assert concurrency.limit <= before
        elif event != "restart":
            assert concurrency.limit >= before
