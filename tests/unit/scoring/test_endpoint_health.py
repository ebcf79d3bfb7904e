from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.endpoint_health import FAILURES_IN_A_ROW, EndpointHealth


def test_health_only_failures_in_a_row_are_failing() -> None:
    health = EndpointHealth(5.0)
    for _ in range(FAILURES_IN_A_ROW - 1):
        health.failed()
    assert (health.is_doubtful, health.is_failing) == (True, False)
    health.answered()
    assert (health.is_doubtful, health.is_failing) == (False, False)
    for _ in range(FAILURES_IN_A_ROW):
        health.failed()
    assert health.is_failing


def test_health_looks_are_5_to_60_seconds_apart() -> None:
    health = EndpointHealth(5.0)
    health.drain()
    waits = []
    for _ in range(6):
        waits.append(health.probe_seconds)
        health.probed(is_well=False)
    assert waits == [5, 10, 20, 40, 60, 60]
    assert health.is_drained


def test_health_endpoint_that_answers_looks_and_no_request_is_looked_at_ever_more_seldom() -> None:
    health = EndpointHealth(5.0)
    health.drain()
    health.probed(is_well=True)
    assert not health.is_drained
    health.failed()
    assert health.is_failing
    assert health.probe_seconds == 10
    health.answered()
    assert health.probe_seconds == 5


def test_health_answer_that_was_in_flight_brings_an_endpoint_back() -> None:
    health = EndpointHealth(5.0)
    assert not health.has_answered
    health.drain()
    health.answered()
    assert (health.is_drained, health.has_answered) == (False, True)


@given(
    first=st.floats(0.01, 200),
    events=st.lists(st.sampled_from(["fail", "answer", "drain", "well", "ill"]), max_size=100),
)
def test_health_the_wait_for_a_look_is_bounded_whatever_happens(
    first: float, events: list[str]
) -> None:
    health = EndpointHealth(first)
    for event in events:
        match event:
            case "fail":
                health.failed()
            case "answer":
                health.answered()
            case "drain":
                health.drain()
            case _ if health.is_drained:
                health.probed(is_well=event == "well")
        assert first <= health.probe_seconds <= max(60.0, first)
        assert not (event == "answer" and (health.is_drained or health.is_doubtful))
