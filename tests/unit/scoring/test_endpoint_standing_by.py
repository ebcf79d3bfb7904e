"""Requests that are ready before there is a place for them, against a server that answers late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.asking import ask_all
from mira_megatron.scoring.chat_request import EndpointSettings
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.endpoint import Endpoints, Request
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.questions import Question

_SETTINGS = EndpointSettings(
    model="m",
    temperature=0.0,
    top_p=1.0,
    max_tokens=8,
    max_in_flight=2,
    timeout_seconds=20,
    max_retries=0,
    backoff_seconds=0.01,
    patience_seconds=0.0,
)


@dataclass
class _LateServer:
    """Answers a request when it is let go, in the order of arrival."""

    asked: list[str] = field(default_factory=list)
    holding: list[asyncio.Future[int]] = field(default_factory=list)

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked.append((await request.json())["messages"][0]["content"])
        self.holding.append(asyncio.get_running_loop().create_future())
        status = await self.holding[-1]
        content = {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}
        return web.json_response(content, status=status)

    def let_go(self, status: int = 200) -> None:
        next(each for each in self.holding if not each.done()).set_result(status)

    async def wait_for(self, num_asked: int) -> None:
        while len(self.asked) < num_asked:
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        async with TestServer(app) as server:
            try:
                yield str(server.make_url("/v1"))
            finally:
                for each in self.holding:
                    each.cancel()


def _play(
    play: Callable[[_LateServer, Endpoints], Coroutine[Any, Any, None]], **changes: Any
) -> _LateServer:
    """Plays with endpoints whose two places are taken, and one request more that was started."""

    async def run() -> _LateServer:
        server = _LateServer()
        async with server.serving() as url, Endpoints([url], _SETTINGS, **changes) as endpoints:
            for number in range(3):
                endpoints.start(_request(number))
            await server.wait_for(2)
            await play(server, endpoints)
        return server

    return asyncio.run(asyncio.wait_for(run(), 20))


def _request(number: int) -> Request:
    return Request(key=str(number), messages=[{"role": "user", "content": str(number)}])


async def _all_answers(endpoints: Endpoints) -> dict[str, Answer]:
    answers = {}
    while endpoints.num_in_flight:
        answer = await endpoints.next_answer()
        answers[answer.key] = answer
    return answers


def test_request_that_stands_by_is_sent_when_a_place_is_free_before_the_answer_is_taken() -> None:
    async def play(server: _LateServer, endpoints: Endpoints) -> None:
        assert server.asked == ["0", "1"]
        server.let_go()
        await server.wait_for(3)
        assert server.asked == ["0", "1", "2"]
        assert endpoints.num_in_flight == 3
        server.let_go()
        server.let_go()
        answers = await _all_answers(endpoints)
        assert {key: answer.text for key, answer in answers.items()} == dict.fromkeys("012", "fine")

    _play(play)


def test_endpoints_welcome_half_as_many_more_as_are_in_flight() -> None:
    async def ask(**changes: Any) -> list[bool]:
        server = _LateServer()
        rooms = []
        async with server.serving() as url, Endpoints([url], _SETTINGS, **changes) as endpoints:
            for number in range(3):
                rooms.append(endpoints.has_room)
                endpoints.start(_request(number))
            rooms.append(endpoints.has_room)
        return rooms

    assert asyncio.run(ask()) == [True, True, True, False]
    assert asyncio.run(ask(stands_by=False)) == [True, True, False, False]


def test_request_that_stands_by_when_all_is_ended_is_never_sent_and_told_so() -> None:
    async def play(server: _LateServer, endpoints: Endpoints) -> None:
        endpoints.end()
        server.let_go()
        server.let_go()
        answers = await _all_answers(endpoints)
        assert [answers[key].is_unsent for key in "012"] == [False, False, True]

    assert _play(play).asked == ["0", "1"]


def test_request_that_stands_by_an_endpoint_that_takes_nothing_more_is_given_up() -> None:
    async def play(server: _LateServer, endpoints: Endpoints) -> None:
        server.let_go(429)
        server.let_go(429)
        answers = await _all_answers(endpoints)
        assert [answers[key].failure for key in "01"] == ["http_429", "http_429"]
        assert answers["2"].failure is not None

    _play(play)


def test_request_that_stands_by_is_not_lost_with_a_server_that_dies() -> None:
    async def run() -> dict[str, Answer]:
        server = _LateServer()
        async with server.serving() as url:
            endpoints = await Endpoints([url], _SETTINGS).__aenter__()
            for number in range(3):
                endpoints.start(_request(number))
            await server.wait_for(2)
        try:
            return await _all_answers(endpoints)
        finally:
            await endpoints.__aexit__(None, None, None)

    answers = asyncio.run(asyncio.wait_for(run(), 20))
    assert sorted(answers) == ["0", "1", "2"]
    assert all(answer.failure is not None for answer in answers.values())


def test_ask_all_under_a_ceiling_charges_nothing_that_was_not_sent(tmp_path: Path) -> None:
    async def run() -> int:
        server = _LateServer()
        async with server.serving() as url:
            asking = asyncio.create_task(_ask(tmp_path, url, output_token_ceiling=10_000))
            await server.wait_for(2)
            await asyncio.sleep(0.05)  # for a third to be noted, were it to stand by
            (journal,) = tmp_path.glob("*.jsonl")
            num_sent = journal.read_bytes().count(b'{"sent":')
            for _ in range(2):
                asking.cancel()
                await asyncio.sleep(0.01)
            with suppress(asyncio.CancelledError):
                await asking
        return num_sent

    assert asyncio.run(asyncio.wait_for(run(), 20)) == 2


def test_ask_all_that_will_not_end_well_counts_no_question_that_stood_by(tmp_path: Path) -> None:
    async def run() -> str:
        server = _LateServer()
        async with server.serving() as url:
            changes = {"max_in_flight": 4, "max_failed_fraction": 0.0}
            asking = asyncio.create_task(_ask(tmp_path, url, **changes))
            await server.wait_for(4)
            await asyncio.sleep(0.05)  # for two more to stand by
            server.let_go(400)
            await server.wait_for(5)  # one of the two that stood by
            for _ in range(4):
                server.let_go()
            with pytest.raises(ValueError, match=r"1 of 6 records got no usable answer") as caught:
                await asking
            return str(caught.value)

    assert "(failed: http_400 1)" in asyncio.run(asyncio.wait_for(run(), 20))


async def _ask(folder: Path, url: str, **changes: Any) -> None:
    judge = JudgeConfig(
        engine="endpoint",
        model="m",
        endpoints=[url],
        temperature=0.0,
        top_p=1.0,
        max_tokens=8,
        **{"max_in_flight": 2, **changes},
    )
    questions = [
        Question(key=str(n), record_id=str(n), messages=[{"role": "user", "content": str(n)}])
        for n in range(6)
    ]
    with AnswerStore(folder) as store:
        replies = ask_all(
            questions,
            judge,
            seed=0,
            api_key=None,
            store=store,
            read=lambda answer: SimpleNamespace(status="ok"),
            num_questions=6,
            title="t",
        )
        async with aclosing(replies):
            async for _ in replies:
                pass
