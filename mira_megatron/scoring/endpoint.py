"""Asks OpenAI-compatible endpoints for many chat completions at once.

The one transport of teachers and scorers. Requests are started one by one and answers are taken as
they finish. A request that fails becomes an answer with a typed failure; it never ends the run.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import count
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from mira_megatron.endpoints import base_url
from mira_megatron.scoring.completion import Answer, Failure, read_completion, read_error, shown
from mira_megatron.scoring.expected_scores import TOP_LOGPROBS

_MAX_BODY_BYTES = 16 << 20  # no chat completion is larger; a longer body is not one
_READ_BYTES = 1 << 16
_LONGEST_WAIT_SECONDS = 120.0  # also where a server asks for more


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointSettings:
    """What to ask for, and how patiently; JudgeConfig has checked it."""

    model: str
    temperature: float
    top_p: float
    max_tokens: int
    max_in_flight: int
    timeout_seconds: float  # of one attempt
    max_retries: int  # attempts after the first
    request_fields: Mapping[str, Any] = field(default_factory=dict)  # null leaves a field out
    has_logprobs: bool = False  # of the likeliest tokens in every place, which a reply must have
    backoff_seconds: float = 0.5  # before the first retry; doubles each time
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One chat completion to ask for."""

    key: str  # returned with the answer
    messages: Sequence[Mapping[str, str]]
    seed: int | None = None
    beginning: str | None = None  # of an answer, which is to be gone on from by one token


class Endpoints:
    """Endpoints, used in turn, and the requests in flight to them.

    `urls` are base URLs such as http://127.0.0.1:8000/v1; a retry goes to the next one. `on_lost`
    is told of every attempt that brought nothing but may have been billed, and says whether the
    request may be sent again. Raises ValueError for a URL that cannot be one. Leaving the context
    cancels what is in flight.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: EndpointSettings,
        on_lost: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        self._urls = [f"{base_url(url)}/chat/completions" for url in urls]
        if not self._urls:
            raise ValueError(
                "no endpoint given: expected base URLs such as http://127.0.0.1:8000/v1"
            )
        self._settings = settings
        self._on_lost = on_lost
        self._numbers = count()
        self._in_flight: set[asyncio.Task[Answer]] = set()
        self._finished: asyncio.Queue[asyncio.Task[Answer]] = asyncio.Queue()
        self._is_ending = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._session = _session(self._settings)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        await self._session.close()

    @property
    def num_in_flight(self) -> int:
        """Returns how many requests were started whose answers have not been taken."""
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """Returns whether another request may be started, with no answer waiting to be taken."""
        return self.num_in_flight < self._settings.max_in_flight and self._finished.empty()

    def start(self, request: Request) -> None:
        """Sends a request as soon as the event loop runs."""
        task = asyncio.create_task(self._answer(next(self._numbers), request))
        self._in_flight.add(task)
        task.add_done_callback(self._finished.put_nowait)

    async def next_answer(self) -> Answer:
        """Returns the next answer, in the order in which they finish; one must be in flight."""
        done = await self._finished.get()
        self._in_flight.remove(done)
        return done.result()

    def end(self) -> None:
        """Lets what is in flight finish without further retries: no more answers are wanted."""
        self._is_ending.set()

    async def _answer(self, number: int, request: Request) -> Answer:
        """Returns the answer to one request after as many attempts as it needs and may have."""
        try:
            body = orjson.dumps(_body(request, self._settings))
        except orjson.JSONEncodeError as error:
            return Answer(key=request.key, failure="unencodable", failure_detail=str(error))
        for attempt in count():
            url = self._urls[(number + attempt) % len(self._urls)]
            outcome = await self._attempt(url, body, request.key)
            if isinstance(outcome, Answer):
                return outcome
            may_repeat = not outcome.is_maybe_billed or self._on_lost(request)
            is_last = not outcome.is_passing or attempt >= self._settings.max_retries
            if is_last or not may_repeat or await self._is_ended_while_waiting(attempt, outcome):
                return Answer(key=request.key, failure=outcome.kind, failure_detail=outcome.detail)
        raise AssertionError("count() does not end")

    async def _is_ended_while_waiting(self, attempt: int, failure: Failure) -> bool:
        """Waits before a retry; returns whether retries came to their end meanwhile."""
        try:
            seconds = _wait_seconds(attempt, failure, self._settings)
            await asyncio.wait_for(self._is_ending.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _attempt(self, url: str, body: bytes, key: str) -> Answer | Failure:
        api_key = self._settings.api_key
        try:
            # A redirect would carry the API key to a place the user did not name.
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                received = await _read(response)
                if received is None:
                    detail = "longer than 16 MiB"
                    return Failure(kind="bad_body", detail=detail, is_maybe_billed=True)
                if response.status == 200:
                    needs_logprobs = self._settings.has_logprobs
                    return read_completion(received, key, api_key, needs_logprobs=needs_logprobs)
                wait_seconds = _retry_after_seconds(response)
                return read_error(response.status, received, wait_seconds, api_key)
        except TimeoutError:
            return Failure(
                kind="timeout", detail="no answer in time", is_passing=True, is_maybe_billed=True
            )
        except aiohttp.ClientResponseError as error:
            detail = shown(error.message, api_key)
            return Failure(kind="bad_body", detail=detail, is_maybe_billed=True)
        except (aiohttp.ClientError, OSError) as error:
            is_sent = not isinstance(error, aiohttp.ClientConnectorError)
            detail = shown(str(error), api_key)
            return Failure(
                kind="connection", detail=detail, is_passing=True, is_maybe_billed=is_sent
            )


def _session(settings: EndpointSettings) -> aiohttp.ClientSession:
    headers = {"Content-Type": "application/json"}
    if settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
        connector=aiohttp.TCPConnector(limit=settings.max_in_flight),
        # Cookies are of no use here, and aiohttp logs those that it cannot read.
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _body(request: Request, settings: EndpointSettings) -> dict[str, Any]:
    body = {
        "model": settings.model,
        "messages": request.messages,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": request.seed,
        **settings.request_fields,
    }
    if settings.has_logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    if request.beginning is not None:
        body |= _one_token_more(request, body)
    return {name: value for name, value in body.items() if value is not None}


def _one_token_more(request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that have vLLM and SGLang go on from the beginning of an answer."""
    bounds = ("max_tokens", "max_completion_tokens")
    return {
        "messages": [*request.messages, {"role": "assistant", "content": request.beginning}],
        "continue_final_message": True,
        "add_generation_prompt": False,
        **{name: 1 for name in bounds if body.get(name) is not None},
    }


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Returns the body; None as soon as it is longer than any completion."""
    received = bytearray()
    async for chunk in response.content.iter_chunked(_READ_BYTES):
        received += chunk
        if len(received) > _MAX_BODY_BYTES:
            return None
    return bytes(received)


def _retry_after_seconds(response: aiohttp.ClientResponse) -> float:
    """Returns the Retry-After header, seconds or an HTTP date, in seconds; 0 without one."""
    written = response.headers.get("Retry-After", "")
    if written.isascii() and written.isdigit():
        return float(written)
    try:
        until = parsedate_to_datetime(written)
        since = parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (until - since).total_seconds())
    except (ValueError, TypeError):  # no date, or only one of the two with a time zone
        return 0.0


def _wait_seconds(attempt: int, failure: Failure, settings: EndpointSettings) -> float:
    backoff = settings.backoff_seconds * 2.0 ** min(attempt, 16)
    jittered = min(backoff, _LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1.0)
    return max(jittered, min(failure.wait_seconds, _LONGEST_WAIT_SECONDS))
