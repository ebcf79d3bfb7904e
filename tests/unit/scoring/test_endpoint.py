from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.endpoint import Endpoints, EndpointSettings, Request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SETTINGS = EndpointSettings(
    model="m",
    temperature=0.7,
    top_p=0.95,
    max_tokens=64,
    max_in_flight=4,
    timeout_seconds=20,
    max_retries=2,
    backoff_seconds=0.001,
)
_KEY = "sk-very-secret"
_FINE_BODY = b'{"choices": [{"message": {"content": "x"}}]}'


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


def _zipped(body: bytes) -> Handler:
    async def say(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})

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
        messages = [{"role": "user", "content": str(number)}]
        yield Request(key=f"r{number}", messages=messages, seed=7)


async def _collect(
    requests: Iterator[Request], urls: Sequence[str], settings: EndpointSettings
) -> list[Answer]:
    """Returns the answers as they finish, with as many requests in flight as there may be."""
    answers = []
    async with Endpoints(urls, settings) as endpoints:
        for request in requests:
            while not endpoints.has_room:
                answers.append(await endpoints.next_answer())
            endpoints.start(request)
        while endpoints.num_in_flight:
            answers.append(await endpoints.next_answer())
    return answers


def _ask_one(*handlers: Handler, **changes: Any) -> tuple[Answer, _Endpoint]:
    """Returns the answer to one request, and the endpoint that played the handlers."""

    async def ask() -> tuple[Answer, _Endpoint]:
        endpoint = _Endpoint(*handlers)
        async with endpoint.serving() as url:
            settings = dataclasses.replace(_SETTINGS, **changes)
            (answer,) = await _collect(_requests(1), [url], settings)
            return answer, endpoint

    return asyncio.run(ask())


def _ask_second(
    *handlers: Handler, on_lost: Callable[[Request], bool] = lambda request: True, **changes: Any
) -> tuple[Answer, _Endpoint]:
    """Returns the answer to a request that finds a connection which one before it has left."""

    async def ask() -> tuple[Answer, _Endpoint]:
        endpoint = _Endpoint(_fine, *handlers)
        settings = dataclasses.replace(_SETTINGS, **changes)
        async with (
            endpoint.serving() as url,
            Endpoints([url], settings, on_lost=on_lost) as endpoints,
        ):
            first, second = _requests(2)
            endpoints.start(first)
            assert (await endpoints.next_answer()).text == "fine"
            endpoints.start(second)
            answer = await endpoints.next_answer()
            assert endpoints.num_in_flight == 0
            return answer, endpoint

    return asyncio.run(asyncio.wait_for(ask(), 20))


def test_endpoints_good_endpoint_returns_text_and_counts() -> None:
    answer, endpoint = _ask_one(_fine)
    assert answer == Answer(
        key="r0",
        text="fine",
        finish_reason="stop",
        num_prompt_tokens=11,
        num_output_tokens=3,
        is_completion=True,
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


def test_endpoints_request_without_a_seed_sends_none() -> None:
    async def ask() -> list[dict[str, Any]]:
        endpoint = _Endpoint(_fine)
        request = Request(key="r0", messages=[{"role": "user", "content": "0"}])
        async with endpoint.serving() as url:
            await _collect(iter([request]), [url], _SETTINGS)
        return endpoint.bodies

    (body,) = asyncio.run(ask())
    assert "seed" not in body


def test_endpoints_request_fields_are_added_and_null_leaves_a_field_out() -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 64, "top_k": 20}
    _, endpoint = _ask_one(_fine, request_fields=fields)
    assert "max_tokens" not in endpoint.bodies[0]
    assert (endpoint.bodies[0]["max_completion_tokens"], endpoint.bodies[0]["top_k"]) == (64, 20)


@pytest.mark.parametrize("fault", [_refusing(503), _refusing(500), _refusing(429), _reset])
def test_endpoints_passing_fault_is_retried_unchanged(fault: Handler) -> None:
    answer, endpoint = _ask_one(fault, _fine)
    assert (answer.text, answer.failure) == ("fine", None)
    assert len(endpoint.bodies) == 2
    assert endpoint.bodies[0] == endpoint.bodies[1]


def test_endpoints_hanging_endpoint_is_a_timeout() -> None:
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
def test_endpoints_retry_after_is_waited_for(retry_after: str) -> None:
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
        (_saying(_FINE_BODY + b" " * (17 << 20)), "bad_body"),
        (_zipped(_FINE_BODY + b" " * (17 << 20)), "bad_body"),
    ],
)
def test_endpoints_lasting_fault_is_one_typed_failure(handler: Handler, failure: str) -> None:
    answer, endpoint = _ask_one(handler)
    assert (answer.text, answer.failure) == (None, failure)
    assert len(endpoint.bodies) == 1


def test_endpoints_zipped_completion_is_read() -> None:
    answer, _ = _ask_one(_zipped(_FINE_BODY))
    assert answer.text == "x"


def test_endpoints_completion_without_text_keeps_its_counts() -> None:
    async def empty(request: web.Request) -> web.Response:
        return _completion(None)

    answer, _ = _ask_one(empty)
    assert (answer.text, answer.failure, answer.num_output_tokens) == (None, "no_content", 3)


def test_endpoints_retries_end_with_the_last_failure() -> None:
    answer, endpoint = _ask_one(_refusing(500), max_retries=3)
    assert answer.failure == "http_500"
    assert len(endpoint.bodies) == 4


def test_endpoints_refusals_end_with_the_patience_and_cost_no_retry() -> None:
    answer, endpoint = _ask_one(_refusing(503), max_retries=0, patience_seconds=0.1)
    assert answer.failure == "http_503"
    # Ever later: 0.01 s, 0.02 s, 0.04 s, ...
    assert 3 <= len(endpoint.bodies) <= 20


def test_endpoints_invalid_unicode_fails_that_record_only() -> None:
    async def ask() -> list[Answer]:
        broken = Request(key="broken", messages=[{"role": "user", "content": "\ud800"}])
        async with _Endpoint(_fine).serving() as url:
            return await _collect(iter([broken, *_requests(1)]), [url], _SETTINGS)

    failures = {answer.key: answer.failure for answer in asyncio.run(ask())}
    assert failures == {"broken": "unencodable", "r0": None}


def test_endpoints_request_that_was_never_sent_gives_its_place_back() -> None:
    async def ask() -> list[Answer]:
        broken = (
            Request(key=f"broken {number}", messages=[{"role": "user", "content": "\ud800"}])
            for number in range(9)
        )
        async with _Endpoint(_fine).serving() as url:
            return await _collect(iter([*broken, *_requests(2)]), [url], _SETTINGS)

    answers = asyncio.run(ask())
    assert [answer.failure for answer in answers].count("unencodable") == 9
    assert len(answers) == 11


def test_endpoints_dead_endpoint_among_several_loses_nothing() -> None:
    async def ask() -> list[Answer]:
        dead = f"http://127.0.0.1:{unused_port()}/v1"
        async with _Endpoint(_fine).serving() as alive:
            return await _collect(_requests(20), [dead, alive], _SETTINGS)

    answers = asyncio.run(ask())
    assert {answer.key for answer in answers} == {f"r{number}" for number in range(20)}
    assert {answer.failure for answer in answers} == {None}


def test_endpoints_only_dead_endpoints_are_connection_failures() -> None:
    dead = f"http://127.0.0.1:{unused_port()}/v1"
    answers = asyncio.run(_collect(_requests(3), [dead], _SETTINGS))
    assert [answer.failure for answer in answers] == ["connection"] * 3


def test_endpoints_host_that_takes_no_connection_was_sent_nothing() -> None:
    lost: list[Request] = []

    def lost_one(request: Request) -> bool:
        lost.append(request)
        return True

    async def ask(url: str) -> Answer:
        settings = dataclasses.replace(_SETTINGS, timeout_seconds=0.4, max_retries=0)
        async with Endpoints([url], settings, on_lost=lost_one) as endpoints:
            endpoints.start(next(_requests(1)))
            return await endpoints.next_answer()

    with contextlib.ExitStack() as stack:
        # Nobody accepts: once its queue is full, the kernel drops what comes.
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        answer = asyncio.run(ask(f"http://127.0.0.1:{full.getsockname()[1]}/v1"))
    assert (answer.failure, lost) == ("connection", [])


def test_endpoints_answer_is_told_of_before_another_request_takes_its_place() -> None:
    endpoint = _Endpoint(_fine)
    num_sent_then = []

    async def ask() -> None:
        settings = dataclasses.replace(_SETTINGS, max_in_flight=1)
        async with (
            endpoint.serving() as url,
            Endpoints(
                [url], settings, on_answer=lambda answer: num_sent_then.append(len(endpoint.bodies))
            ) as endpoints,
        ):
            for request in _requests(3):  # two of them wait in line, not for `next_answer`
                endpoints.start(request)
            await endpoints.next_answer()
            while len(num_sent_then) < 3:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(ask(), 20))
    assert num_sent_then == [1, 2, 3]


def test_endpoints_slow_request_does_not_hold_up_the_others() -> None:
    async def ask() -> list[str]:
        release = asyncio.Event()

        async def slow_first(request: web.Request) -> web.Response:
            if (await request.json())["messages"][0]["content"] == "0":
                await release.wait()
            return _completion()

        finished = []
        async with (
            _Endpoint(slow_first).serving() as url,
            Endpoints([url], _SETTINGS) as endpoints,
        ):
            for request in _requests(4):
                endpoints.start(request)
            while endpoints.num_in_flight:
                finished.append((await endpoints.next_answer()).key)
                if len(finished) == 3:
                    release.set()
        return finished

    assert asyncio.run(ask())[-1] == "r0"


def test_endpoints_left_early_cancel_what_is_in_flight() -> None:
    async def ask() -> list[str]:
        endpoint = _Endpoint(_fine)
        endpoint.handlers = [endpoint.hang]
        async with endpoint.serving() as url:
            async with Endpoints([url], _SETTINGS) as endpoints:
                for request in _requests(3):
                    endpoints.start(request)
                await asyncio.sleep(0)
            return [repr(task.get_coro()) for task in asyncio.all_tasks()]

    assert not [task for task in asyncio.run(ask()) if "Endpoints" in task]


def test_endpoints_told_to_end_retry_no_more() -> None:
    async def ask() -> tuple[Answer, int]:
        endpoint = _Endpoint(_refusing(503))
        settings = dataclasses.replace(_SETTINGS, backoff_seconds=60, max_retries=9)
        async with endpoint.serving() as url, Endpoints([url], settings) as endpoints:
            endpoints.start(next(_requests(1)))
            endpoints.end()
            return await endpoints.next_answer(), len(endpoint.bodies)

    answer, num_attempts = asyncio.run(ask())
    assert (answer.failure, num_attempts) == ("http_503", 1)


@pytest.mark.parametrize(
    ("fault", "num_lost"),
    [(_refusing(503), 0), (_refusing(429), 0), (_refusing(504), 3), (_reset, 3)],
)
def test_endpoints_attempts_that_may_have_been_billed_are_told(
    fault: Handler, num_lost: int
) -> None:
    lost: list[str] = []

    def on_lost(request: Request) -> bool:
        lost.append(request.key)
        return True

    settings = dataclasses.replace(_SETTINGS, patience_seconds=0.01)

    async def ask() -> None:
        async with (
            _Endpoint(fault).serving() as url,
            Endpoints([url], settings, on_lost=on_lost) as endpoints,
        ):
            endpoints.start(next(_requests(1)))
            await endpoints.next_answer()

    asyncio.run(ask())
    assert lost == ["r0"] * num_lost


def test_endpoints_lost_attempt_that_may_not_be_repeated_is_the_last() -> None:
    async def ask() -> tuple[Answer, int]:
        endpoint = _Endpoint(_refusing(504))
        async with (
            endpoint.serving() as url,
            Endpoints([url], _SETTINGS, on_lost=lambda request: False) as endpoints,
        ):
            endpoints.start(next(_requests(1)))
            return await endpoints.next_answer(), len(endpoint.bodies)

    answer, num_attempts = asyncio.run(ask())
    assert (answer.failure, num_attempts) == ("http_504", 1)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://host/v1", "http://user:pw@host/v1", "http://host/v1?key=pw", ""],
)
def test_endpoints_impossible_endpoint_is_refused(url: str) -> None:
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


def test_api_key_in_a_cookie_that_cannot_be_read_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def with_cookie(request: web.Request) -> web.Response:
        response = _completion()
        response.headers.add("Set-Cookie", f"Bearer {_KEY}=1")
        return response

    async def ask() -> list[Answer]:
        settings = dataclasses.replace(_SETTINGS, api_key=_KEY)
        async with _Endpoint(with_cookie).serving() as url:
            # aiohttp takes no cookies from addresses, only from names.
            named = url.replace("127.0.0.1", "localhost")
            return await _collect(_requests(1), [named], settings)

    caplog.set_level("DEBUG")
    (answer,) = asyncio.run(ask())
    assert answer.text == "fine"
    assert _KEY not in caplog.text


@pytest.mark.parametrize("fault", [_refusing(503), _refusing(500), _reset])
def test_endpoints_fault_on_a_kept_connection_is_retried_unchanged(fault: Handler) -> None:
    answer, endpoint = _ask_second(fault, _fine)
    assert (answer.key, answer.text) == ("r1", "fine")
    assert endpoint.bodies[1] == endpoint.bodies[2]


def test_endpoints_lasting_fault_on_a_kept_connection_is_one_typed_failure() -> None:
    answer, endpoint = _ask_second(_refusing(404))
    assert (answer.failure, len(endpoint.bodies)) == ("http_404", 2)


def test_endpoints_hanging_endpoint_on_a_kept_connection_is_a_timeout() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(20)
        return _completion()

    answer, endpoint = _ask_second(hang, timeout_seconds=0.2, max_retries=1)
    assert (answer.failure, len(endpoint.bodies)) == ("timeout", 3)


def test_endpoints_retries_on_a_kept_connection_end_with_the_last_failure() -> None:
    lost: list[str] = []

    def on_lost(request: Request) -> bool:
        lost.append(request.key)
        return True

    answer, endpoint = _ask_second(_refusing(504), on_lost=on_lost)
    assert (answer.failure, len(endpoint.bodies)) == ("http_504", 1 + 3)
    assert lost == ["r1"] * 3


@pytest.mark.parametrize("num_before", [0, 1])
def test_endpoints_what_the_caller_raises_of_an_answer_reaches_who_takes_it(
    num_before: int,
) -> None:
    kept: list[str] = []

    def keep(answer: Answer) -> None:
        if len(kept) == num_before:
            raise OSError("disk full")
        kept.append(answer.key)

    async def ask() -> None:
        async with (
            _Endpoint(_fine).serving() as url,
            Endpoints([url], _SETTINGS, on_answer=keep) as endpoints,
        ):
            for request in _requests(num_before + 1):
                endpoints.start(request)
                answer = await endpoints.next_answer()
            pytest.fail(f"{answer} came though it could not be kept")

    with pytest.raises(OSError, match="disk full"):
        asyncio.run(asyncio.wait_for(ask(), 20))


def test_endpoints_left_early_tell_nobody_of_what_a_kept_connection_brings() -> None:
    told: list[str] = []

    async def ask() -> list[str]:
        async def leave(request: web.Request) -> web.Response:
            left.set()
            await asyncio.sleep(0.05)
            return _completion()

        left = asyncio.Event()
        endpoint = _Endpoint(_fine, leave)
        async with endpoint.serving() as url:
            async with Endpoints(
                [url], _SETTINGS, on_answer=lambda answer: told.append(answer.key)
            ) as endpoints:
                first, second = _requests(2)
                endpoints.start(first)
                await endpoints.next_answer()
                endpoints.start(second)
                await left.wait()
            await asyncio.sleep(0.1)
            return [repr(task.get_coro()) for task in asyncio.all_tasks()]

    assert not [task for task in asyncio.run(ask()) if "Endpoints" in task]
    assert told == ["r0"]
