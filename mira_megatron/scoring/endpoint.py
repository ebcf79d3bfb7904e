"""Asks OpenAI-compatible endpoints for many chat completions at once.

At most `max_in_flight` requests exist at any time, however many there are to come: the next one is
taken when one is finished, and answers come as they finish. A
request that fails becomes an answer with a typed failure; it never ends the run.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

_MAX_BODY_BYTES = 16 << 20  # no chat completion is larger; a longer body is not one
_READ_BYTES = 1 << 16
_MAX_DETAIL_CHARS = 300
_LONGEST_WAIT_SECONDS = 120.0  # also where a server asks for more


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointSettings:
    """What to ask for, and how patiently."""

    model: str
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None
    max_in_flight: int
    timeout_seconds: float  # of one attempt
    max_retries: int  # attempts after the first
    backoff_seconds: float = 0.5  # before the first retry; doubles each time
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_in_flight", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("max_retries", "backoff_seconds", "temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be in (0, 1]")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("the API key holds characters that no HTTP header can carry")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One chat completion to ask for."""

    key: str  # returned with the answer
    messages: Sequence[dict[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of one request: a text, or a failure.

    failure is one of timeout, connection, http_<status>, bad_body (not a chat completion),
    no_content (a completion without text), unencodable (messages that are not valid Unicode).
    """

    key: str
    text: str | None = None
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_output_tokens: int | None = None
    failure: str | None = None
    failure_detail: str | None = None  # the server's own words, shortened, without the API key


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    kind: str
    detail: str
    is_passing: bool  # worth another attempt
    wait_seconds: float = 0.0  # the server asked for this much patience


async def answer_all(
    requests: Iterable[Request], endpoints: Sequence[str], settings: EndpointSettings
) -> AsyncIterator[Answer]:
    """Yields one answer per request, in the order in which they finish.

    `endpoints` are base URLs such as http://127.0.0.1:8000/v1, used in turn; a retry goes to the
    next one. Raises ValueError for a URL that cannot be one.
    """
    urls = [_completions_url(endpoint) for endpoint in endpoints]
    if not urls:
        raise ValueError("no endpoint given: expected base URLs such as http://127.0.0.1:8000/v1")
    finished: asyncio.Queue[asyncio.Task[Answer]] = asyncio.Queue()
    in_flight: set[asyncio.Task[Answer]] = set()
    async with _session(settings) as session:
        try:
            for number, request in enumerate(requests):
                task = asyncio.create_task(_answer(session, urls, number, request, settings))
                in_flight.add(task)
                task.add_done_callback(finished.put_nowait)
                while len(in_flight) >= settings.max_in_flight or not finished.empty():
                    done = await finished.get()
                    in_flight.remove(done)
                    yield done.result()
            while in_flight:
                done = await finished.get()
                in_flight.remove(done)
                yield done.result()
        finally:  # the caller stopped early, or `requests` raised
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)


def _completions_url(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(
            f"endpoint {parts.hostname or endpoint!r}: expected a base URL such as "
            "http://127.0.0.1:8000/v1, without a user name or key in it"
        )
    return f"{endpoint.rstrip('/')}/chat/completions"


def _session(settings: EndpointSettings) -> aiohttp.ClientSession:
    headers = {"Content-Type": "application/json"}
    if settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
        connector=aiohttp.TCPConnector(limit=settings.max_in_flight),
    )


async def _answer(
    session: aiohttp.ClientSession,
    urls: Sequence[str],
    number: int,
    request: Request,
    settings: EndpointSettings,
) -> Answer:
    """Returns the answer to one request after as many attempts as it needs and may have."""
    try:
        body = orjson.dumps(_body(request, settings))
    except orjson.JSONEncodeError as error:
        return Answer(key=request.key, failure="unencodable", failure_detail=str(error))
    for attempt in count():
        url = urls[(number + attempt) % len(urls)]
        outcome = await _attempt(session, url, body, request.key)
        if isinstance(outcome, Answer):
            return outcome
        if not outcome.is_passing or attempt >= settings.max_retries:
            return Answer(
                key=request.key,
                failure=outcome.kind,
                failure_detail=_shown(outcome.detail, settings.api_key),
            )
        await asyncio.sleep(_wait_seconds(attempt, outcome, settings))
    raise AssertionError("count() does not end")


def _body(request: Request, settings: EndpointSettings) -> dict[str, Any]:
    body = {
        "model": settings.model,
        "messages": request.messages,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
    }
    return body if settings.seed is None else {**body, "seed": settings.seed}


async def _attempt(
    session: aiohttp.ClientSession, url: str, body: bytes, key: str
) -> Answer | _Failure:
    try:
        # A redirect would carry the API key to a place the user did not name.
        async with session.post(url, data=body, allow_redirects=False) as response:
            received = await _read(response)
            if received is None:
                return _Failure(kind="bad_body", detail="longer than 16 MiB", is_passing=False)
            if response.status == 200:
                return _read_completion(received, key)
            return _Failure(
                kind=f"http_{response.status}",
                detail=received.decode("utf-8", "replace"),
                is_passing=response.status == 429 or response.status >= 500,
                wait_seconds=_retry_after_seconds(response),
            )
    except TimeoutError:
        return _Failure(kind="timeout", detail="no answer in time", is_passing=True)
    except aiohttp.ClientResponseError as error:
        return _Failure(kind="bad_body", detail=error.message, is_passing=False)
    except (aiohttp.ClientError, OSError) as error:
        return _Failure(kind="connection", detail=str(error), is_passing=True)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Returns the body; None as soon as it is longer than any completion."""
    received = bytearray()
    async for chunk in response.content.iter_chunked(_READ_BYTES):
        received += chunk
        if len(received) > _MAX_BODY_BYTES:
            return None
    return bytes(received)


def _read_completion(received: bytes, key: str) -> Answer | _Failure:
    try:
        completion = orjson.loads(received)
        choice = completion["choices"][0]
        text, finish_reason = choice["message"].get("content"), choice.get("finish_reason")
        usage = completion.get("usage") or {}
        num_prompt_tokens = usage.get("prompt_tokens")
        num_output_tokens = usage.get("completion_tokens")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        detail = received[:_MAX_DETAIL_CHARS].decode("utf-8", "replace")
        return _Failure(kind="bad_body", detail=detail, is_passing=False)
    has_text = isinstance(text, str)
    return Answer(
        key=key,
        text=text if has_text else None,
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        num_prompt_tokens=num_prompt_tokens if isinstance(num_prompt_tokens, int) else None,
        num_output_tokens=num_output_tokens if isinstance(num_output_tokens, int) else None,
        failure=None if has_text else "no_content",
    )


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


def _wait_seconds(attempt: int, failure: _Failure, settings: EndpointSettings) -> float:
    backoff = settings.backoff_seconds * 2.0 ** min(attempt, 16)
    jittered = min(backoff, _LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1.0)
    return max(jittered, min(failure.wait_seconds, _LONGEST_WAIT_SECONDS))


def _shown(detail: str, api_key: str | None) -> str:
    # Some servers quote the key they refuse.
    redacted = detail.replace(api_key, "<api key>") if api_key else detail
    return redacted[:_MAX_DETAIL_CHARS]
