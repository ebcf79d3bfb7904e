"""One HTTP request to one endpoint, and what came of it; the only module here that uses aiohttp.

Chat completions go over connections of our own (http_connections), the few looks at a server's
pages through aiohttp. One attempt at a chat completion is an answer or a typed failure. The API key
is sent to paths below the base URL alone, and no redirect is followed: it would carry the key to a
place the user did not name.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from mira_megatron.scoring.chat_request import EndpointSettings
from mira_megatron.scoring.completion import Answer, Failure, read_completion, read_error, shown
from mira_megatron.scoring.http_connections import (
    Deadlines,
    HttpConnections,
    LostError,
    NotSentError,
    Outcome,
)
from mira_megatron.scoring.http_response import HttpResponse, NotHttpError
from mira_megatron.scoring.prompt_losses import read_losses

_MAX_BODY_BYTES = 16 << 20  # no chat completion is larger; a longer body is not one
_READ_BYTES = 1 << 16
_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "mira-megatron",  # some gateways refuse requests without one
}
_CONNECT_SECONDS = 20.0  # a host that drops packets would else cost a whole attempt's timeout
_LOOK_SECONDS = 10.0  # for a page that a server that is well gives at once
# uvicorn, and so vLLM and SGLang, closes a connection that was idle for 5 s. A request that is just
# then sent on it is lost, and may have been billed.
_KEEP_ALIVE_SECONDS = 4.0


class EndpointClient:
    """A session with any number of endpoints; made in a running event loop, to be closed."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._api_key = settings.api_key
        self._needs_logprobs = settings.has_logprobs
        self._losses = settings.losses
        self._with_key = (
            {} if settings.api_key is None else {"Authorization": f"Bearer {settings.api_key}"}
        )
        self._headers = {**_HEADERS, **self._with_key}
        self._connect_seconds = min(_CONNECT_SECONDS, settings.timeout_seconds / 2)
        self._deadlines = Deadlines(settings.timeout_seconds)
        self._connections: dict[URL, HttpConnections] = {}
        self._pages = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_LOOK_SECONDS),
            # Cookies are of no use here, and aiohttp logs those that it cannot read.
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Closes the connections."""
        self.break_off()
        await self._pages.close()

    def break_off(self) -> None:
        """Ends all requests that were sent; nobody is told of them any more."""
        self._deadlines.close()
        for connections in self._connections.values():
            connections.close()

    async def attempt(self, url: URL, body: bytes, key: str) -> Answer | Failure:
        """Returns what came of one request for a chat completion."""
        try:
            outcome: Outcome = await self._connections_to(url).post(body)
        except (NotSentError, LostError, TimeoutError, NotHttpError) as error:
            outcome = error
        return self._read(outcome, key, body)

    def send(
        self, url: URL, body: bytes, key: str, tell: Callable[[Answer | Failure], None]
    ) -> bool:
        """Sends a request at once and tells later what came of it; `tell` must not raise.

        False, and nothing done, where that takes a new connection.
        """
        sent = b"" if self._losses is None else body  # else it need not wait for its reply
        return self._connections_to(url).send(
            body, lambda outcome: tell(self._read(outcome, key, sent))
        )

    def _read(self, outcome: Outcome, key: str, sent: bytes) -> Answer | Failure:
        """Returns what a response to the body `sent` says, or the failure in place of one."""
        api_key = self._api_key
        if isinstance(outcome, HttpResponse):
            received = outcome.body
            if received is None:
                return Failure(kind="bad_body", detail="longer than 16 MiB", is_maybe_billed=True)
            if outcome.status == 200 and self._losses is not None:
                return read_losses(received, sent, key, api_key, self._losses)
            if outcome.status == 200:
                return read_completion(received, key, api_key, needs_logprobs=self._needs_logprobs)
            return read_error(outcome.status, received, _retry_after_seconds(outcome), api_key)
        if isinstance(outcome, TimeoutError):
            detail = "no answer in time"
            return Failure(kind="timeout", detail=detail, is_passing=True, is_maybe_billed=True)
        if isinstance(outcome, NotHttpError):
            detail = shown(f"no HTTP response: {outcome}", api_key)
            return Failure(kind="bad_body", detail=detail, is_maybe_billed=True)
        return Failure(
            kind="connection",
            detail=shown(str(outcome), api_key),
            is_passing=True,
            is_maybe_billed=isinstance(outcome, LostError),
        )

    def _connections_to(self, url: URL) -> HttpConnections:
        connections = self._connections.get(url)
        if connections is None:
            connections = self._connections[url] = HttpConnections(
                url,
                self._headers,
                deadlines=self._deadlines,
                connect_seconds=self._connect_seconds,
                keep_alive_seconds=_KEEP_ALIVE_SECONDS,
                max_body_bytes=_MAX_BODY_BYTES,
            )
        return connections

    async def is_well(self, health_url: URL, models_url: URL) -> bool:
        """Returns whether a server says that it is well: at /health, or else where its models are.

        A server without such a page says so, and is well.
        """
        status, _ = await self._look(health_url, None)
        if status >= 500:
            status, _ = await self._look(models_url, self._with_key)
            return status == 200
        return status > 0

    async def models(self, models_url: URL) -> tuple[int, bytes]:
        """Returns the status and the bytes of the list of models, which may ask for the key."""
        return await self._look(models_url, self._with_key)

    async def page(self, url: URL) -> tuple[int, bytes]:
        """Returns the status of a page and its bytes; status 0 where the server did not answer."""
        return await self._look(url, None)

    async def _look(self, url: URL, headers: dict[str, str] | None) -> tuple[int, bytes]:
        try:
            async with self._pages.get(url, headers=headers, allow_redirects=False) as response:
                return response.status, await _read(response) or b""
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, b""


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Returns a page; None as soon as it is longer than any should be."""
    received = bytearray()
    async for chunk in response.content.iter_chunked(_READ_BYTES):
        received += chunk
        if len(received) > _MAX_BODY_BYTES:
            return None
    return bytes(received)


def _retry_after_seconds(response: HttpResponse) -> float:
    """Returns the Retry-After header, seconds or an HTTP date, in seconds; 0 without one."""
    written = response.headers.get(b"retry-after", b"").decode("latin-1")
    if written.isascii() and written.isdigit():
        return float(written)
    try:
        until = parsedate_to_datetime(written)
        since = parsedate_to_datetime(response.headers.get(b"date", b"").decode("latin-1"))
        return max(0.0, (until - since).total_seconds())
    except (
        ValueError,
        TypeError,
        OverflowError,
    ):  # no date, or only one of the two with a time zone
        return 0.0
