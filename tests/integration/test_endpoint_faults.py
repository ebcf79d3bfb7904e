"""Servers that fail while many requests are in flight: every record gets its answer, once."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from fault_server import (
    Asked,
    FaultServer,
    Play,
    answer,
    half_a_body,
    hang,
    killing,
    reset,
    serving,
    status,
    too_long,
)

from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.asking import ask_all
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.concurrency import FIRST_LIMIT
from mira_megatron.scoring.endpoint import Endpoints, EndpointSettings, Request
from mira_megatron.scoring.endpoint_facts import Facts
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.questions import Question

_SETTINGS = EndpointSettings(
    model="m",
    temperature=0.0,
    top_p=1.0,
    max_tokens=64,
    max_in_flight=32,
    timeout_seconds=20,
    max_retries=4,
    backoff_seconds=0.01,
    patience_seconds=10.0,
    probe_seconds=0.05,
)


def _requests(num_requests: int) -> Iterator[Request]:
    for number in range(num_requests):
        yield Request(key=f"r{number}", messages=[{"role": "user", "content": str(number)}])


def _ask(urls: list[str], num_requests: int, **changes: Any) -> tuple[list[Answer], Facts]:
    """Returns all answers, and what was needed for them."""

    async def ask() -> tuple[list[Answer], Facts]:
        answers: list[Answer] = []
        requests = _requests(num_requests)
        async with Endpoints(urls, dataclasses.replace(_SETTINGS, **changes)) as endpoints:
            while True:
                request = next(requests, None) if endpoints.has_room else None
                if request is not None:
                    endpoints.start(request)
                elif endpoints.num_in_flight:
                    answers.append(await endpoints.next_answer())
                else:
                    return answers, endpoints.facts()

    return asyncio.run(ask())


def _assert_all_answered(answers: list[Answer], num_requests: int) -> None:
    """Each request has one answer, and it is that of its own prompt."""
    texts = {answer.key: answer.text for answer in answers}
    assert len(answers) == len(texts) == num_requests
    assert texts == {f"r{number}": f"fine {number}" for number in range(num_requests)}


def _every(num: int, fault: Play) -> Callable[[Asked], Play]:
    """Deals the fault to one in `num` requests."""
    return lambda asked: fault if asked.number % num == 0 else answer


def _killing_at(
    server: FaultServer, kills: Iterator[int], seconds_away: float | None
) -> Callable[[Asked], Play]:
    """Has a server die at the requests of these numbers."""
    next_kill = next(kills)

    def deal(asked: Asked) -> Play:
        nonlocal next_kill
        if asked.number < next_kill:
            return answer
        next_kill = next(kills, 1 << 40)
        return killing(server, seconds_away)

    return deal


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (status(503), "http_503"),
        (status(429, Retry_After="0"), "http_429"),
        (reset, "connection"),
        (half_a_body, "connection"),
    ],
)
def test_passing_fault_now_and_then_costs_a_retry_and_no_answer(fault: Play, kind: str) -> None:
    server = FaultServer(deal=_every(100, fault))
    with serving(server) as urls:
        answers, facts = _ask(urls, 400)
    _assert_all_answered(answers, 400)
    assert set(server.answered.values()) == {1}
    assert server.asked.total() == 400 + 4 == facts.num_sent
    assert facts.num_retries == {kind: 4}


def test_busy_server_that_asks_for_patience_is_left_alone_as_long() -> None:
    arrivals: list[tuple[float, int]] = []

    def deal(asked: Asked) -> Play:
        arrivals.append((asyncio.get_running_loop().time(), asked.number))
        return status(429, Retry_After="1") if asked.number == 40 else answer

    server = FaultServer(deal=deal, seconds_per_answer=0.002)
    with serving(server) as urls:
        answers, _ = _ask(urls, 200)
    _assert_all_answered(answers, 200)
    refused_at = next(time for time, number in arrivals if number == 40)
    # What was on its way when the server said so still arrives, and so does what takes the place of
    # answers that are read before the refusal: 32 at most of each.
    later = [time - refused_at for time, number in arrivals if number > 40 + 2 * 32]
    assert later
    assert min(later) >= 0.95


@pytest.mark.parametrize("refusal", [status(429), status(503), status(503, Retry_After="0")])
@pytest.mark.parametrize("num_servers", [1, 2])
def test_server_that_has_nine_places_is_soon_asked_for_no_more(
    refusal: Play, num_servers: int
) -> None:
    servers = [
        FaultServer(seconds_per_answer=0.02, places=9, refusal=refusal) for _ in range(num_servers)
    ]
    with serving(*servers) as urls:
        answers, facts = _ask(urls, 300, max_in_flight=64, max_retries=0)
    _assert_all_answered(answers, 300)
    for server, endpoint in zip(servers, facts.endpoints, strict=True):
        assert server.most_open == 9  # all of them are used
        # A place is free before its answer is read here: some more than nine seem to fit.
        assert 7 <= endpoint.limit <= 13
        # 7 by the first doubling to 16, and a few single ones that feel for more.
        assert server.num_refused <= 20
    answered = sum((server.answered for server in servers), Counter())
    assert set(answered.values()) == {1}


def test_server_that_comes_to_allow_less_is_soon_asked_for_less() -> None:
    server = FaultServer(seconds_per_answer=0.02)

    def deal(asked: Asked) -> Play:
        server.places = 9 if asked.number > 300 else None
        return answer

    server.deal = deal
    with serving(server) as urls:
        answers, facts = _ask(urls, 600, max_in_flight=64, max_retries=0)
    _assert_all_answered(answers, 600)
    assert 7 <= facts.endpoints[0].limit <= 13
    assert server.num_refused <= 2 * 64


@pytest.mark.parametrize("refusal", [status(429), status(503)])
@pytest.mark.parametrize("num_servers", [1, 2])
def test_server_that_refuses_for_good_ends_the_patience_with_typed_failures(
    refusal: Play, num_servers: int
) -> None:
    servers = [FaultServer(places=0, refusal=refusal) for _ in range(num_servers)]
    with serving(*servers) as urls:
        answers, _ = _ask(urls, 500, patience_seconds=0.5)
    assert len({each.key for each in answers}) == 500
    assert {each.failure for each in answers} <= {"http_429", "http_503"}
    # Who waits does not ask again and again.
    assert sum(server.num_refused for server in servers) <= 500


def test_server_that_refuses_for_longer_than_retries_last_is_waited_for() -> None:
    server = FaultServer(places=0)
    away = threading.Timer(0.6, lambda: setattr(server, "places", None))
    with serving(server) as urls:
        away.start()
        answers, facts = _ask(urls, 100, max_retries=1)
    away.join()
    _assert_all_answered(answers, 100)
    assert set(facts.num_retries) == {"http_429"}


def test_request_that_a_server_takes_and_fails_has_its_retries_and_no_more() -> None:
    # Refusals in between neither use retries up nor bring new ones.
    def deal(asked: Asked) -> Play:
        return status(429) if asked.attempt % 2 else status(500)

    server = FaultServer(deal=deal)
    with serving(server) as urls:
        (answer,), facts = _ask(urls, 1, max_retries=2)
    assert answer.failure == "http_500"
    assert facts.num_retries == {"http_429": 3, "http_500": 2}


def test_requests_that_hang_end_as_timeouts_and_are_asked_again() -> None:
    server = FaultServer(deal=_every(25, hang))
    with serving(server) as urls:
        answers, facts = _ask(urls, 100, timeout_seconds=1.0)
    _assert_all_answered(answers, 100)
    assert set(facts.num_retries) == {"timeout"}


def test_prompt_too_long_is_a_failure_of_that_record_only() -> None:
    server = FaultServer(deal=lambda asked: too_long if asked.prompt == "7" else answer)
    with serving(server) as urls:
        answers, _ = _ask(urls, 20)
    failures = {each.key: each.failure for each in answers if each.failure}
    assert failures == {"r7": "too_long"}
    assert server.asked["7"] == 1


def test_server_killed_and_restarted_in_mid_run_loses_and_doubles_nothing() -> None:
    server = FaultServer(seconds_per_answer=0.005)
    kills = iter((60, 180))
    server.deal = _killing_at(server, kills, seconds_away=0.0)
    with serving(server) as urls:
        answers, facts = _ask(urls, 300)
    _assert_all_answered(answers, 300)
    # Sent again: at most what was in flight at the two kills.
    assert server.asked.total() <= 300 + 2 * 32
    assert set(facts.num_retries) == {"connection"}
    assert list(kills) == []


def test_server_that_is_away_for_longer_than_all_retries_last_is_waited_for() -> None:
    server = FaultServer(seconds_per_answer=0.005)
    server.deal = _killing_at(server, iter((60,)), seconds_away=0.8)
    with serving(server) as urls:
        answers, _ = _ask(urls, 150, max_retries=1)
    _assert_all_answered(answers, 150)


def test_server_that_never_comes_back_ends_the_patience_with_typed_failures() -> None:
    server = FaultServer(seconds_per_answer=0.005)
    server.deal = _killing_at(server, iter((60,)), seconds_away=None)
    with serving(server) as urls:
        answers, facts = _ask(urls, 150, patience_seconds=0.3)
    failures = Counter(each.failure for each in answers)
    assert len({each.key for each in answers}) == 150
    assert set(failures) == {None, "connection"}
    assert 60 - 32 <= failures[None] < 60 + 32
    assert facts.endpoints[0].state == "out"


def test_endpoint_dead_from_the_start_costs_a_few_attempts() -> None:
    server = FaultServer()
    with serving(server) as (url,):
        answers, facts = _ask([f"http://127.0.0.1:{unused_port()}/v1", url], 300, probe_seconds=60)
    _assert_all_answered(answers, 300)
    assert set(server.asked.values()) == {1}
    dead, _ = facts.endpoints
    assert dead.state == "out"
    assert dead.num_sent == FIRST_LIMIT  # the first limit: they leave together


def test_endpoint_that_dies_in_mid_run_hands_its_requests_to_the_other() -> None:
    dying, lasting = FaultServer(seconds_per_answer=0.005), FaultServer(seconds_per_answer=0.005)
    dying.deal = _killing_at(dying, iter((50,)), seconds_away=None)
    with serving(dying, lasting) as urls:
        answers, facts = _ask(urls, 300, max_retries=1)
    _assert_all_answered(answers, 300)
    assert (dying.asked + lasting.asked).total() <= 300 + 32
    assert [each.state for each in facts.endpoints] == ["out", "up"]
    assert dying.asked.total() <= 50 + 32


@pytest.mark.parametrize("fault", [status(500), hang])
def test_endpoint_that_fails_at_once_or_hangs_is_no_place_where_requests_are_lost(
    fault: Play,
) -> None:
    ill, well = FaultServer(deal=lambda asked: fault), FaultServer(seconds_per_answer=0.002)
    with serving(ill, well) as urls:
        answers, _ = _ask(urls, 300, timeout_seconds=2.0, probe_seconds=60)
    _assert_all_answered(answers, 300)
    assert ill.asked.total() <= FIRST_LIMIT
    assert set(well.answered.values()) == {1}


def test_slow_endpoint_beside_a_fast_one_gets_less() -> None:
    slow, fast = FaultServer(seconds_per_answer=0.1), FaultServer(seconds_per_answer=0.01)
    with serving(slow, fast) as urls:
        answers, _ = _ask(urls, 400, max_in_flight=8)
    _assert_all_answered(answers, 400)
    assert slow.asked.total() * 3 < fast.asked.total()
    assert slow.asked.total() >= 8


def test_limit_grows_from_a_few_to_the_most_while_all_goes_well() -> None:
    server = FaultServer(seconds_per_answer=0.01)
    with serving(server) as urls:
        _, facts = _ask(urls, 200)
    assert facts.endpoints[0].limit == server.most_open == 32
    # Long enough for all of them to have connected.
    with serving(server := FaultServer(seconds_per_answer=0.3)) as urls:
        _ask(urls, FIRST_LIMIT)
    assert server.most_open == FIRST_LIMIT


def test_cache_hits_and_idle_share_come_from_the_servers_metrics() -> None:
    server = FaultServer(seconds_per_answer=0.05, metrics=_page(0, 0))

    async def ask() -> Facts:
        async with Endpoints(urls, _SETTINGS) as endpoints:
            for request in _requests(4):
                endpoints.start(request)
            while not server.num_looks["/metrics"]:
                await endpoints.next_answer()
            server.metrics = _page(1000, 750)
            await endpoints.refresh()
            return endpoints.facts()

    with serving(server) as urls:
        facts = asyncio.run(ask())
    assert facts.cache_hit_fraction == 0.75
    assert facts.idle_fraction in (None, 0.0)


def test_connection_that_was_idle_for_as_long_as_servers_keep_one_is_not_used_again() -> None:
    # uvicorn closes it after 5 s; a request that meets that is lost, and may have been billed.
    clients: list[object] = []

    async def noting(request: web.Request, text: str) -> web.StreamResponse:
        assert request.transport is not None
        clients.append(request.transport.get_extra_info("peername"))
        return await answer(request, text)

    async def ask() -> None:
        async with Endpoints(urls, _SETTINGS) as endpoints:
            for request, seconds in zip(_requests(3), (0.1, 4.3, 0), strict=True):
                endpoints.start(request)
                await endpoints.next_answer()
                await asyncio.sleep(seconds)

    with serving(FaultServer(deal=lambda asked: noting)) as urls:
        asyncio.run(ask())
    assert len(clients) == 3
    assert clients[2] not in clients[:2]


def test_server_whose_queue_stays_gets_no_more_at_once() -> None:
    page = _page(0, 0).replace('waiting{engine="0",model_name="m"} 0.0', "waiting{} 5.0")
    limits = []
    for metrics in (None, page):
        server = FaultServer(seconds_per_answer=0.02, metrics=metrics)

        async def ask(server: FaultServer = server) -> int:
            async with Endpoints([server.url], _SETTINGS) as endpoints:
                while server.metrics is not None and server.num_looks["/metrics"] < 3:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.1)
                for request in _requests(60):
                    while not endpoints.has_room:
                        await endpoints.next_answer()
                    endpoints.start(request)
                return endpoints.facts().endpoints[0].limit

        with serving(server):
            limits.append(asyncio.run(ask()))
    assert limits == [32, FIRST_LIMIT]


def test_server_without_metrics_is_asked_for_them_once() -> None:
    server = FaultServer(seconds_per_answer=0.3)

    async def ask() -> Facts:
        async with Endpoints(urls, _SETTINGS) as endpoints:
            for request in _requests(1):
                endpoints.start(request)
            await endpoints.next_answer()
            await endpoints.refresh()
            return endpoints.facts()

    with serving(server) as urls:
        facts = asyncio.run(ask())
    assert server.num_looks == {"/metrics": 1}
    assert (facts.cache_hit_fraction, facts.idle_fraction) == (None, None)


def test_requests_that_find_a_known_server_away_have_lost_no_attempt() -> None:
    server = FaultServer()

    async def ask() -> list[str | None]:
        settings = dataclasses.replace(_SETTINGS, max_retries=0)
        async with Endpoints(urls, settings) as endpoints:
            first, *others = _requests(3)
            endpoints.start(first)
            failures = [(await endpoints.next_answer()).failure]
            await asyncio.to_thread(server.kill)
            for request in others:
                endpoints.start(request)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.restart)
            failures += [(await endpoints.next_answer()).failure for _ in others]
            return failures

    with serving(server) as urls:
        assert asyncio.run(ask()) == [None, None, None]
    assert set(server.asked.values()) == {1}


def test_ended_while_the_only_endpoint_is_away_waits_for_nothing() -> None:
    server = FaultServer()

    async def ask() -> list[str | None]:
        settings = dataclasses.replace(_SETTINGS, patience_seconds=600, probe_seconds=60)
        async with Endpoints(urls, settings) as endpoints:
            requests = _requests(20)
            endpoints.start(next(requests))
            failures = [(await endpoints.next_answer()).failure]
            await asyncio.to_thread(server.kill)
            for request in requests:
                endpoints.start(request)
            await asyncio.sleep(0.05)
            endpoints.end()
            while endpoints.num_in_flight:
                failures.append((await endpoints.next_answer()).failure)
            return failures

    with serving(server) as urls:
        assert asyncio.run(ask()) == [None] + ["connection"] * 19


@pytest.mark.parametrize("has_dead_endpoint", [False, True])
def test_run_over_a_faulty_server_gives_every_question_one_reply(
    tmp_path: Path, has_dead_endpoint: bool
) -> None:
    server = FaultServer(deal=_every(400, status(503)))
    questions = [
        Question(
            key=str(number), record_id="r", messages=[{"role": "user", "content": str(number)}]
        )
        for number in range(900)
    ]

    async def ask(urls: list[str]) -> dict[str, str | None]:
        judge = JudgeConfig(
            engine="endpoint",
            model="m",
            temperature=0.0,
            top_p=1.0,
            max_tokens=64,
            endpoints=urls,
            max_failed_fraction=0.0,
        )
        with AnswerStore(tmp_path) as store:
            replies = ask_all(
                questions,
                judge,
                seed=0,
                api_key=None,
                store=store,
                read=lambda answer: SimpleNamespace(status="ok"),
                num_questions=len(questions),
                title="score notes",
            )
            return {reply.key: reply.answer.text async for reply in replies}

    with serving(server) as urls:
        dead = [f"http://127.0.0.1:{unused_port()}/v1"] if has_dead_endpoint else []
        texts = asyncio.run(ask([*dead, *urls]))
    assert texts == {str(number): f"fine {number}" for number in range(900)}
    assert set(server.answered.values()) == {1}
    assert server.asked.total() == 900 + 2


def _page(num_queried: int, num_hit: int) -> str:
    """Returns a page as vLLM writes it."""
    labels = '{engine="0",model_name="m"}'
    return (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        "# TYPE vllm:num_requests_running gauge\n"
        f"vllm:num_requests_running{labels} 2.0\n"
        f"vllm:num_requests_waiting{labels} 0.0\n"
        f"vllm:num_requests_waiting_by_reason{labels} 3.0\n"
        f"vllm:prefix_cache_queries_total{labels} {num_queried}.0\n"
        f"vllm:prefix_cache_hits_total{labels} {num_hit}.0\n"
        f"vllm:external_prefix_cache_hits_total{labels} 9.0\n"
    )
