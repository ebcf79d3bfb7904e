from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from mira_megatron.scoring.endpoint import Answer, EndpointSettings, Request, answer_all

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SETTINGS = EndpointSettings(
    model="m",
    temperature=0.7,
    top_p=0.95,
    max_tokens=64,
    seed=7,
    max_in_flight=4,
    timeout_seconds=20,
    max_retries=2,
    backoff_seconds=0.001,
)
_KEY = "sk-very-secret"


def _completion(text: str | None = "fine") -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 11, "completion_tokens": 3}
    return web.json_response(
        {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage},
    )


async def _fine(request: web.Request) -> web.Response:
    return _completion()


def _refusing(status: int, headers: dict[str, str] | None = None) -> Handler:
    async def refuse(request: web.Request) -> web.Response:
        said = request.headers.get("Authorization", "no key")
        return web.Response(status=status, headers=headers, text=f"refused, you sent {said}")

    return refuse


def _saying(body: bytes) -> Handler:
    async def say(request: web.Request) -> web.Response:
        return web.Response(body=body)

    return say


async def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


class _Endpoint:
    """A server that plays one handler per request, the last one for ever."""

    def __init__(self, *handlers: Handler) -> None:
        self.handlers = list(handlers)
        self._closing = asyncio.Event()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str | None] = []

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(request.headers.get("Authorization"))
        handler = self.handlers[0] if len(self.handlers) == 1 else self.handlers.pop(0)
        return await handler(request)

    async def hang(self, request: web.Request) -> web.Response:
        await self._closing.wait()
        return _completion()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        async with TestServer(app) as server:
            try:
                yield str(server.make_url("/v1"))
            finally:
                self._closing.set()


def _requests(count: int) -> Iterator[Request]:
    for number in range(count):
        yield Request(key=f"r{number}", messages=[{"role": "user", "content": str(number)}])


async def _collect(
    requests: Iterator[Request], urls: Sequence[str], settings: EndpointSettings
) -> list[Answer]:
    return [answer async for answer in answer_all(requests, urls, settings)]


def _ask_one(*handlers: Handler, **changes: Any) -> tuple[Answer, _Endpoint]:
    """Returns the answer to one request, and the endpoint that played the handlers."""

    async def ask() -> tuple[Answer, _Endpoint]:
        endpoint = _Endpoint(*handlers)
        async with endpoint.serving() as url:
            settings = dataclasses.replace(_SETTINGS, **changes)
            (answer,) = await _collect(_requests(1), [url], settings)
            return answer, endpoint

    return asyncio.run(ask())


def test_answer_all_good_endpoint_returns_text_and_counts() -> None:
    answer, endpoint = _ask_one(_fine)
    assert answer == Answer(
        key="r0", text="fine", finish_reason="stop", num_prompt_tokens=11, num_output_tokens=3
    )
    assert endpoint.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "0"}],
            "temperature": 0.7,
            "top_p": 0.95,
            "max_tokens": 64,
            "seed": 7,
        }
    ]


def test_answer_all_without_a_seed_sends_none() -> None:
    _, endpoint = _ask_one(_fine, seed=None)
    assert "seed" not in endpoint.bodies[0]


@pytest.mark.parametrize("fault", [_refusing(503), _refusing(500), _refusing(429), _reset])
def test_answer_all_passing_fault_is_retried_unchanged(fault: Handler) -> None:
    answer, endpoint = _ask_one(fault, _fine)
    assert (answer.text, answer.failure) == ("fine", None)
    assert len(endpoint.bodies) == 2
    assert endpoint.bodies[0] == endpoint.bodies[1]


def test_answer_all_hanging_endpoint_is_a_timeout() -> None:
    async def ask() -> list[Answer]:
        endpoint = _Endpoint(_fine)
        endpoint.handlers = [endpoint.hang]
        settings = dataclasses.replace(_SETTINGS, timeout_seconds=0.1, max_retries=1)
        async with endpoint.serving() as url:
            answers = await _collect(_requests(1), [url], settings)
        assert len(endpoint.bodies) == 2
        return answers

    (answer,) = asyncio.run(ask())
    assert answer.failure == "timeout"


@pytest.mark.parametrize("retry_after", ["1", "Wed, 21 Oct 2015 07:28:01 GMT"])
def test_answer_all_retry_after_is_waited_for(retry_after: str) -> None:
    headers = {"Retry-After": retry_after, "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}

    async def ask() -> tuple[Answer, float]:
        loop = asyncio.get_running_loop()
        async with _Endpoint(_refusing(429, headers), _fine).serving() as url:
            started = loop.time()
            (answer,) = await _collect(_requests(1), [url], _SETTINGS)
            return answer, loop.time() - started

    answer, seconds = asyncio.run(ask())
    assert answer.text == "fine"
    assert seconds >= 1


@pytest.mark.parametrize(
    ("handler", "failure"),
    [
        (_refusing(400), "http_400"),
        (_refusing(401), "http_401"),
        (_refusing(307, {"Location": "/elsewhere"}), "http_307"),
        (_saying(b"<html>"), "bad_body"),
        (_saying(b'{"choices": []}'), "bad_body"),
        (_saying(b'{"choices": [{"message": "text"}]}'), "bad_body"),
        (_saying(b"[]"), "bad_body"),
        (_saying(b'{"choices": [{"message": {"content": "x"}}]}' + b" " * (17 << 20)), "bad_body"),
    ],
)
def test_answer_all_lasting_fault_is_one_typed_failure(handler: Handler, failure: str) -> None:
    answer, endpoint = _ask_one(handler)
    assert (answer.text, answer.failure) == (None, failure)
    assert len(endpoint.bodies) == 1


def test_answer_all_completion_without_text_keeps_its_counts() -> None:
    async def empty(request: web.Request) -> web.Response:
        return _completion(None)

    answer, _ = _ask_one(empty)
    assert (answer.text, answer.failure, answer.num_output_tokens) == (None, "no_content", 3)


def test_answer_all_retries_end_with_the_last_failure() -> None:
    answer, endpoint = _ask_one(_refusing(503), max_retries=3)
    assert answer.failure == "http_503"
    assert len(endpoint.bodies) == 4


def test_answer_all_invalid_unicode_fails_that_record_only() -> None:
    async def ask() -> list[Answer]:
        broken = Request(key="broken", messages=[{"role": "user", "content": "\ud800"}])
        async with _Endpoint(_fine).serving() as url:
            return await _collect(iter([broken, *_requests(1)]), [url], _SETTINGS)

    failures = {answer.key: answer.failure for answer in asyncio.run(ask())}
    assert failures == {"broken": "unencodable", "r0": None}


def test_answer_all_dead_endpoint_among_several_loses_nothing() -> None:
    async def ask() -> list[Answer]:
        dead = f"http://127.0.0.1:{unused_port()}/v1"
        async with _Endpoint(_fine).serving() as alive:
            return await _collect(_requests(20), [dead, alive], _SETTINGS)

    answers = asyncio.run(ask())
    assert {answer.key for answer in answers} == {f"r{number}" for number in range(20)}
    assert {answer.failure for answer in answers} == {None}


def test_answer_all_only_dead_endpoints_are_connection_failures() -> None:
    dead = f"http://127.0.0.1:{unused_port()}/v1"
    answers = asyncio.run(_collect(_requests(3), [dead], _SETTINGS))
    assert [answer.failure for answer in answers] == ["connection"] * 3


def test_answer_all_takes_requests_only_as_answers_finish() -> None:
    taken = answered = most = 0

    def counted() -> Iterator[Request]:
        nonlocal taken, most
        for request in _requests(100):
            taken += 1
            most = max(most, taken - answered)
            yield request

    async def ask() -> None:
        nonlocal answered
        async with _Endpoint(_fine).serving() as url:
            async for _ in answer_all(counted(), [url], _SETTINGS):
                answered += 1

    asyncio.run(ask())
    assert (taken, answered) == (100, 100)
    assert most == _SETTINGS.max_in_flight


def test_answer_all_slow_request_does_not_hold_up_the_others() -> None:
    async def ask() -> list[str]:
        release = asyncio.Event()

        async def slow_first(request: web.Request) -> web.Response:
            if (await request.json())["messages"][0]["content"] == "0":
                await release.wait()
            return _completion()

        finished = []
        async with _Endpoint(slow_first).serving() as url:
            async for answer in answer_all(_requests(20), [url], _SETTINGS):
                finished.append(answer.key)
                if len(finished) == 19:
                    release.set()
        return finished

    assert asyncio.run(ask())[-1] == "r0"


def test_answer_all_failing_request_source_raises_its_own_error() -> None:
    def broken() -> Iterator[Request]:
        yield from _requests(2)
        raise ValueError("part-00003 is damaged")

    async def ask() -> None:
        async with _Endpoint(_fine).serving() as url:
            await _collect(broken(), [url], _SETTINGS)

    with pytest.raises(ValueError, match="part-00003"):
        asyncio.run(ask())


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", "http://user:pw@host/v1", ""])
def test_answer_all_impossible_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected a base URL") as caught:
        asyncio.run(_collect(_requests(1), [url], _SETTINGS))
    assert "pw" not in str(caught.value)


def test_api_key_is_sent_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    answer, endpoint = _ask_one(_refusing(401), api_key=_KEY)
    assert endpoint.headers == [f"Bearer {_KEY}"]
    assert answer.failure_detail == "refused, you sent Bearer <api key>"
    assert _KEY not in repr(dataclasses.replace(_SETTINGS, api_key=_KEY))
    assert _KEY not in caplog.text


def test_settings_unusable_api_key_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        dataclasses.replace(_SETTINGS, api_key=f"{_KEY}\n")
    assert _KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("max_in_flight", 0), ("top_p", 1.5), ("timeout_seconds", -1)]
)
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(_SETTINGS, **{name: value})
