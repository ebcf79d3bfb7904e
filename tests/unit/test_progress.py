from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mira_megatron.progress import Pace, Snapshot, track


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "mira_megatron")
    return caplog


def elsewhere() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def test_a_line_comes_when_half_a_minute_has_passed(lines: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with track("score wiki", 1000, clock=clock, console=elsewhere()) as advance:
        for _ in range(60):
            clock.seconds += 1
            advance()
    assert lines.messages == [
        "score wiki: 30 of 1,000, 1.00/s, 16 min 10 s left",
        "score wiki: 60 of 1,000, 1.00/s, 15 min 40 s left",
    ]


def test_a_line_has_what_was_reported(lines: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with track("score wiki", 100_000, clock=clock, console=elsewhere()) as advance:
        advance.report(num_prompt_tokens=60_000_000, num_output_tokens=300_000, num_failed=3)
        advance.report(cache_hit_rate=0.1)
        advance.report(cache_hit_rate=0.934)
        clock.seconds += 30
        advance(3000)
    assert lines.messages == [
        "score wiki: 3,000 of 100,000, 100/s, 2.00M prompt and 10.0k output tokens/s, "
        "failed 0.1%, cache hits 93.4%, 16 min 10 s left"
    ]


def test_speed_is_that_of_the_last_minutes(lines: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with track("score wiki", 20_000, clock=clock, console=elsewhere()) as advance:
        advance(10_000)  # what the store held
        for _ in range(600):
            clock.seconds += 1
            advance()
    assert lines.messages[0].startswith("score wiki: 10,030 of 20,000, 334/s")
    assert lines.messages[-1] == "score wiki: 10,600 of 20,000, 1.00/s, 2 h 37 min left"


def test_what_an_earlier_run_finished_counts_as_done_and_tells_nothing_of_the_speed(
    lines: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    track_resumed = track("score wiki", 10_000, num_done=8_000, clock=clock, console=elsewhere())
    with track_resumed as advance:
        for _ in range(60):
            clock.seconds += 1
            advance.report(num_failed=1)
            advance()
    # 2,000 were left, one a second; of those that were asked all failed.
    assert lines.messages[-1] == (
        "score wiki: 8,060 of 10,000, 1.00/s, 0 prompt and 0 output tokens/s, failed 100.0%, "
        "32 min 20 s left"
    )


def test_steps_that_were_answered_before_do_not_make_the_rest_look_fast(
    lines: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    with track("score wiki", 10_000, clock=clock, console=elsewhere()) as advance:
        for _ in range(30):
            clock.seconds += 1
            advance()
            advance(100, is_anew=False)
    assert lines.messages == ["score wiki: 2,930 of 10,000, 1.00/s, 1 h 58 min left"]


def test_bar_of_a_resumed_step_begins_where_it_was_left() -> None:
    clock, file = Clock(), io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    with track("score wiki", 1000, num_done=900, clock=clock, console=console) as advance:
        clock.seconds += 10
        advance(50)
    text = file.getvalue()
    assert "900/1000" in text
    assert "950/1000" in text
    assert "10 s left" in text


def test_no_time_left_is_told_where_nothing_has_moved(lines: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with track("label wiki", 5, clock=clock, console=elsewhere()) as advance:
        clock.seconds += 31
        advance(0)
    assert lines.messages == ["label wiki: 0 of 5, 0.00/s"]


def test_a_terminal_shows_a_bar_and_no_lines(lines: pytest.LogCaptureFixture) -> None:
    clock, file = Clock(), io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    with track("score [wiki]", 1000, clock=clock, console=console) as advance:
        clock.seconds += 10
        advance.report(num_prompt_tokens=10_000)
        advance(500)
    text = file.getvalue()
    assert "score [wiki]" in text
    assert "500/1000" in text
    assert "50/s" in text
    assert "1,000 prompt and 0 output tokens/s" in text
    assert "10 s left" in text
    assert not lines.messages


@given(st.lists(st.tuples(st.floats(0.001, 200), st.integers(0, 50)), min_size=1, max_size=300))
def test_pace_remembers_little_and_no_more_than_its_window_needs(
    steps: list[tuple[float, int]],
) -> None:
    pace = Pace()
    seconds, num_done = 0.0, 0
    pace.note(Snapshot(seconds, num_done, 0, 0))
    everything = [(seconds, num_done)]
    for passed, done in steps:
        seconds, num_done = seconds + passed, num_done + done
        pace.note(Snapshot(seconds, num_done, 0, 0))
        everything.append((seconds, num_done))
    assert len(pace.snapshots) <= 2 * 50 + 3
    first, last = pace.snapshots[0], pace.snapshots[-1]
    assert (last.seconds, last.num_done) == everything[-1]
    assert (first.seconds, first.num_done) in everything
    assert seconds - first.seconds >= min(
        seconds, 300.0 - 1e-6
    )  # the whole window, or all there is
    assert pace.per_second("num_done") == pytest.approx(
        (last.num_done - first.num_done) / (last.seconds - first.seconds)
    )


def test_pace_of_a_bar_drawn_all_day_stays_small() -> None:
    pace = Pace()
    for tick in range(20_000):
        pace.note(Snapshot(0.2 * tick, 3 * tick, 0, 0))
    assert len(pace.snapshots) <= 2 * 50 + 3
    assert pace.per_second("num_done") == pytest.approx(15)
