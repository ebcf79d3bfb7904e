from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.scoring.chat_request import EndpointSettings
from mira_megatron.scoring.completion import Failure
from mira_megatron.scoring.concurrency import FIRST_LIMIT
from mira_megatron.scoring.endpoint_health import FAILURES_IN_A_ROW
from mira_megatron.scoring.endpoint_pool import EndpointPool, PooledEndpoint

_SETTINGS = EndpointSettings(
    model="m",
    temperature=0.0,
    top_p=1.0,
    max_tokens=8,
    max_in_flight=4,
    timeout_seconds=1,
    max_retries=2,
    patience_seconds=600,
)
_REFUSED = Failure(kind="connection", detail="refused", is_passing=True)
_ILL = Failure(kind="http_500", detail="ill", is_passing=True)
_BUSY = Failure(kind="http_503", detail="busy", is_passing=True)
_LATER = Failure(kind="http_429", detail="busy", is_passing=True)
_WAIT = Failure(kind="http_429", detail="busy", is_passing=True, wait_seconds=0.02)
_TOO_LONG = Failure(kind="too_long", detail="too long")


def _play(
    num_endpoints: int, play: Callable[[EndpointPool], Coroutine[Any, Any, None]], **changes: Any
) -> None:
    """Plays with a pool of endpoints called a, b, ..."""

    async def run() -> None:
        urls = [f"http://{name}/v1" for name in "abcd"[:num_endpoints]]
        pool = EndpointPool(urls, dataclasses.replace(_SETTINGS, **changes), lambda drained: None)
        try:
            await play(pool)
        finally:
            pool.close()

    asyncio.run(run())


def _taken(pool: EndpointPool) -> PooledEndpoint:
    endpoint = pool.take()
    assert endpoint is not None
    return endpoint


def _fail(pool: EndpointPool, endpoint: PooledEndpoint, failure: Failure, times: int) -> None:
    """Has requests to one endpoint fail, as ones that were in flight together."""
    for _ in range(times):
        endpoint.concurrency.start()
    burst = endpoint.concurrency.burst
    for _ in range(times):
        pool.give_back(endpoint, failure, burst)


def _answer(pool: EndpointPool, endpoint: PooledEndpoint) -> None:
    pool.give_back(endpoint, None, endpoint.concurrency.burst)


def test_pool_request_goes_where_most_room_is() -> None:
    async def play(pool: EndpointPool) -> None:
        a, b = pool.endpoints
        assert [_taken(pool) for _ in range(8)].count(a) == 4
        assert not pool.has_room
        assert pool.take() is None
        _answer(pool, b)
        assert pool.has_room
        assert _taken(pool) is b

    _play(2, play)


def test_pool_retry_goes_elsewhere_where_there_is_room() -> None:
    async def play(pool: EndpointPool) -> None:
        a, b = pool.endpoints
        for _ in range(3):
            b.concurrency.start()
        assert await pool.wait(unlike=a) is b
        assert await pool.wait(unlike=a) is a

    _play(2, play)


def test_pool_who_waits_is_served_first_and_in_order() -> None:
    async def play(pool: EndpointPool) -> None:
        (a,) = pool.endpoints
        for _ in range(4):
            _taken(pool)
        waiting = [asyncio.create_task(pool.wait(unlike=None)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        _answer(pool, a)
        assert pool.take() is None
        assert await waiting[1] is a
        _answer(pool, a)
        assert pool.take() is a

    _play(1, play)


def test_pool_endpoint_that_failed_gets_one_at_a_time_beside_others_until_it_answers() -> None:
    async def play(pool: EndpointPool) -> None:
        a, b = pool.endpoints
        _fail(pool, a, _ILL, 1)
        assert [_taken(pool) for _ in range(5)] == [b, b, b, b, a]
        assert pool.take() is None
        _answer(pool, a)
        assert [_taken(pool) for _ in range(3)] == [a, a, a]

    _play(2, play)


@pytest.mark.parametrize(("failure", "is_out"), [(_REFUSED, True), (_BUSY, False)])
def test_pool_only_endpoint_is_out_when_it_cannot_be_reached_and_not_when_it_is_busy(
    failure: Failure, is_out: bool
) -> None:
    async def play(pool: EndpointPool) -> None:
        (a,) = pool.endpoints
        _fail(pool, a, failure, FAILURES_IN_A_ROW)
        assert a.health.is_drained is is_out

    _play(1, play)


def test_pool_endpoint_that_says_503_to_a_burst_is_out_only_when_it_says_nothing_else() -> None:
    async def play(pool: EndpointPool) -> None:
        a, _ = pool.endpoints
        for number in range(FAILURES_IN_A_ROW):
            assert not a.health.is_drained, number
            _fail(pool, a, _BUSY, 9)
        assert a.health.is_drained

    _play(2, play)


def test_pool_endpoint_that_takes_nothing_is_paused_ever_longer_until_it_takes_one() -> None:
    async def play(pool: EndpointPool) -> None:
        (a,) = pool.endpoints
        pauses = []
        for failure in (_LATER, _LATER, _LATER, None, _LATER):
            a.paused_until = 0.0
            pool.give_back(_taken(pool), failure, a.concurrency.burst)
            pauses.append(round(a.paused_until - asyncio.get_running_loop().time(), 1))
        assert pauses[:3] + pauses[4:] == [8, 16, 32, 8]
        # One that is at work besides is not: its next answer makes room.
        a.paused_until = 0.0
        a.concurrency.start()
        _fail(pool, a, _LATER, 1)
        assert a.paused_until == 0.0

    _play(1, play, backoff_seconds=8)


def test_pool_endpoint_that_takes_nothing_is_paused_no_longer_than_it_asks_for() -> None:
    async def play(pool: EndpointPool) -> None:
        (a,) = pool.endpoints
        pauses = []
        for wait_seconds in (3, 3, 3, 3, 0, 500):
            a.paused_until = 0.0
            failure = dataclasses.replace(_BUSY, wait_seconds=wait_seconds)
            pool.give_back(_taken(pool), failure, a.concurrency.burst)
            pauses.append(round(a.paused_until - asyncio.get_running_loop().time(), 1))
        assert pauses == [3, 3, 3, 3, 32, 120]

    _play(1, play, backoff_seconds=2)


def test_pool_that_is_refused_for_as_long_as_patience_lasts_gives_up_until_one_is_taken() -> None:
    async def play(pool: EndpointPool) -> None:
        a, b = pool.endpoints
        pool.give_back(_taken(pool), _LATER, 0)
        assert pool.given_up is None
        in_work = _taken(pool)
        await asyncio.sleep(0.06)
        last = b if in_work is a else a
        last.paused_until = 0.0
        last.concurrency.start()
        pool.give_back(last, _LATER, last.concurrency.burst)
        assert pool.given_up is None  # one is being worked at
        waiting = asyncio.create_task(pool.wait(unlike=None))
        pool.give_back(in_work, _ILL, in_work.concurrency.burst)
        last.paused_until = in_work.paused_until = 0.0
        pool.give_back(_taken(pool), _LATER, last.concurrency.burst)
        assert pool.given_up is _LATER
        assert await pool.wait(unlike=None) is None
        waiting.cancel()
        last.paused_until = in_work.paused_until = 0.0
        _answer(pool, _taken(pool))
        assert await pool.wait(unlike=None) is not None

    _play(2, play, patience_seconds=0.05, backoff_seconds=0.01)


def test_pool_failure_that_is_the_requests_own_does_not_speak_against_an_endpoint() -> None:
    async def play(pool: EndpointPool) -> None:
        a, _ = pool.endpoints
        _fail(pool, a, _TOO_LONG, 9)
        assert not a.health.is_doubtful
        assert a.num_failed == 0

    _play(2, play)


def test_pool_pause_ends_by_itself_for_who_waits() -> None:
    async def play(pool: EndpointPool) -> None:
        (a,) = pool.endpoints
        started = asyncio.get_running_loop().time()
        _fail(pool, a, _WAIT, 1)
        assert pool.has_room  # to stand by
        assert pool.take() is None
        assert await pool.wait(unlike=None) is a
        assert asyncio.get_running_loop().time() - started >= 0.02
        assert a.concurrency.limit == 2  # cut

    _play(1, play)


def test_pool_endpoint_that_is_well_again_serves_who_waits_slowly_at_first() -> None:
    async def play(pool: EndpointPool) -> None:
        (a,) = pool.endpoints
        _answer(pool, _taken(pool))
        _fail(pool, a, _REFUSED, FAILURES_IN_A_ROW)
        waiting = [asyncio.create_task(pool.wait(unlike=a)) for _ in range(30)]
        await asyncio.sleep(0)
        pool.probed(a, is_well=False)
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        pool.probed(a, is_well=True)
        await asyncio.sleep(0)
        assert sum(task.done() for task in waiting) == FIRST_LIMIT
        pool.end()
        assert (await asyncio.gather(*waiting)).count(None) == 30 - FIRST_LIMIT
        assert await pool.wait(unlike=None) is None

    _play(1, play, max_in_flight=64)


def test_pool_patience_is_short_where_no_endpoint_ever_answered() -> None:
    async def play(pool: EndpointPool) -> None:
        a, b = pool.endpoints
        assert pool.patience_seconds == 0.03  # 0.01 + 0.02, as the retries take
        for endpoint in (a, b):
            _fail(pool, endpoint, _REFUSED, FAILURES_IN_A_ROW)
        assert await pool.wait(unlike=None) is None
        assert await pool.wait(unlike=None) is None
        assert pool.has_room
        pool.probed(b, is_well=True)
        assert await pool.wait(unlike=None) is b
        _answer(pool, b)
        assert pool.patience_seconds == 600

    _play(2, play, backoff_seconds=0.01)


_OUTCOMES = st.sampled_from([None, _REFUSED, _ILL, _BUSY, _LATER, _WAIT, _TOO_LONG])
_EVENTS = st.lists(st.tuples(st.integers(0, 2), st.one_of(st.just("take"), _OUTCOMES)), max_size=80)


@settings(max_examples=100, deadline=None)
@given(events=_EVENTS)
def test_pool_has_room_whenever_nothing_is_in_flight(
    events: list[tuple[int, str | Failure | None]],
) -> None:
    async def play(pool: EndpointPool) -> None:
        in_flight: list[PooledEndpoint] = []
        for number, event in events:
            if isinstance(event, str):
                endpoint = pool.take()
                in_flight += [] if endpoint is None else [endpoint]
            elif in_flight:
                endpoint = in_flight.pop(number % len(in_flight))
                pool.give_back(endpoint, event, endpoint.concurrency.burst)
            for each in pool.endpoints:
                assert each.concurrency.num_in_flight == in_flight.count(each)
                assert each.concurrency.num_in_flight <= 4
            assert in_flight or pool.has_room

    _play(3, play)
