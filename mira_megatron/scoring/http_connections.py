"""Kept connections to one URL that requests are posted to: asyncio's own, with little in between.

aiohttp's session is made for any request anywhere. Here all are alike but for their bodies, so the
head is written once. A whole request of ours then costs 44 us of CPU where a bare loop around the
session takes 114 (benchmarks/client_request.py). No proxy is asked, and no redirect followed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from yarl import URL

from mira_megatron.scoring.http_response import (
    BrokenBodyError,
    HttpResponse,
    NotHttpError,
    ResponseReader,
)

_CLOSED = "the server closed it"
_NEXT_ADDRESS_SECONDS = 0.25  # of a name with several: the next is tried beside the one before


Outcome: TypeAlias = HttpResponse | Exception
Tell = Callable[[Outcome], None]


class NotSentError(Exception):
    """There was no connection, so nothing was sent."""


class LostError(Exception):
    """The connection broke off before the whole response was there."""


class Deadlines:
    """When requests are given up, all after the same time: one timer for all of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        # In the order in which they were sent, so the first ends first.
        self._due: dict[Exchange, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, exchange: Exchange) -> None:
        """Gives a request the time that it has from here on."""
        self._due[exchange] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def remove(self, exchange: Exchange) -> None:
        """Forgets a request that has ended."""
        self._due.pop(exchange, None)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._due:
            exchange, due = next(iter(self._due.items()))
            if due > now:
                self._timer = self._loop.call_at(due, self._look)
                return
            del self._due[exchange]
            exchange.end(TimeoutError())


class Exchange:
    """One request, and who is told of its response, or of the error in place of one."""

    __slots__ = ("_connection", "_owner", "_tell", "is_over", "reader")

    def __init__(self, owner: HttpConnections, tell: Tell, max_body_bytes: int) -> None:
        self._owner = owner
        self._tell = tell
        self._connection: _Connection | None = None
        self.is_over = False
        self.reader = ResponseReader(max_body_bytes)

    def send(self, connection: _Connection, request: bytes) -> None:
        """Sends the request; one whose time is over lets the connection go."""
        if self.is_over:
            connection.abort()
        else:
            self._connection = connection
            connection.send(self, request)

    def end(self, outcome: Outcome) -> None:
        """Ends it, and tells of it."""
        assert not self.is_over, "an exchange ended twice"
        self.is_over = True
        self._owner.end(self, self._connection, outcome)
        self._tell(outcome)

    def drop(self) -> None:
        """Ends it, and tells nobody."""
        self.is_over = True
        self._owner.end(self, self._connection, None)


class HttpConnections:
    """Connections to one URL, one request at a time on each; made in a running event loop.

    `headers` go with every request. A connection that was idle for `keep_alive_seconds` is not used
    again. There are as many as requests are posted at once.
    """

    def __init__(
        self,
        url: URL,
        headers: Mapping[str, str],
        *,
        deadlines: Deadlines,
        connect_seconds: float,
        keep_alive_seconds: float,
        max_body_bytes: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._url = url
        self._head = _head(url, headers)
        self._deadlines = deadlines
        self._connect_seconds = connect_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._max_body_bytes = max_body_bytes
        self._tls = _tls() if url.scheme == "https" else None
        self._idle: deque[tuple[_Connection, float]] = deque()  # and since when, by age
        self._open: set[_Connection] = set()

    def send(self, body: bytes, tell: Tell) -> bool:
        """Posts at once, over a connection that is there; False, and nothing done, without one.

        `tell` gets the response, or the error that `post` would raise; it must not raise.
        """
        connection = self._idle_connection()
        if connection is None:
            return False
        exchange = Exchange(self, tell, self._max_body_bytes)
        self._deadlines.add(exchange)
        exchange.send(connection, self._request(body))
        return True

    async def post(self, body: bytes) -> HttpResponse:
        """Returns the response to a POST, over a new connection where none is there.

        Raises NotSentError without a connection, LostError where it broke off, TimeoutError after
        the time that the deadlines give, NotHttpError for what is no HTTP/1.1.
        """
        told: asyncio.Future[Outcome] = self._loop.create_future()

        def tell(outcome: Outcome) -> None:
            if not told.done():  # by being cancelled
                told.set_result(outcome)

        exchange = Exchange(self, tell, self._max_body_bytes)
        self._deadlines.add(exchange)
        try:
            connection = self._idle_connection() or await self._connect()
            exchange.send(connection, self._request(body))
            outcome = await told
        finally:
            if not exchange.is_over:
                exchange.drop()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def end(
        self, exchange: Exchange, connection: _Connection | None, outcome: Outcome | None
    ) -> None:
        """Keeps the connection of a request that has ended, if it can be used again."""
        self._deadlines.remove(exchange)
        if connection is None:
            return
        is_whole = isinstance(outcome, HttpResponse) and not outcome.is_last
        if is_whole and connection.is_reusable:
            self._idle.append((connection, self._loop.time()))
        else:
            connection.abort()

    def close(self) -> None:
        """Closes all connections."""
        for connection in list(self._open):
            connection.abort()

    def _request(self, body: bytes) -> bytes:
        return b"".join((self._head, b"%d\r\n\r\n" % len(body), body))

    def _idle_connection(self) -> _Connection | None:
        """Returns the connection that was used last, if it can be used again."""
        latest = self._loop.time() - self._keep_alive_seconds
        while self._idle and (self._idle[0][1] <= latest or not self._idle[0][0].is_reusable):
            self._idle.popleft()[0].abort()
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        host, port = self._url.raw_host or "", self._url.port or 0  # base_url refuses such URLs
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self._open),
                    host,
                    port,
                    ssl=self._tls,
                    server_hostname=host.rstrip(".") if self._tls else None,
                    happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
                )
        # A name that DNS cannot hold is a UnicodeError. Order: TimeoutError is an OSError, too.
        except TimeoutError as error:
            raise NotSentError(f"no connection to {host}:{port} in time") from error
        except (OSError, UnicodeError) as error:
            raise NotSentError(f"no connection to {host}:{port}: {error}") from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, and the request that is in work on it."""

    def __init__(self, opened: set[_Connection]) -> None:
        self._opened = opened
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_reusable(self) -> bool:
        """Returns whether another request may be sent: it is open, and all was sent."""
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    def send(self, exchange: Exchange, request: bytes) -> None:
        """Sends a request."""
        if self._transport is None or self._transport.is_closing():
            exchange.end(LostError("the connection was closed before the request was sent"))
            return
        self._exchange = exchange
        self._transport.write(request)

    def abort(self) -> None:
        """Closes the connection at once."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps where to write."""
        self._transport = cast(asyncio.Transport, transport)
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        """Reads on in the response."""
        exchange = self._exchange
        if exchange is None:  # nothing was asked
            self.abort()
            return
        try:
            response = exchange.reader.feed(data)
        except NotHttpError as error:
            self._end(error)
        except BrokenBodyError as error:
            self._end(LostError(f"a response that cannot be read: {error}"))
        else:
            if response is not None:
                self._end(response)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the response that ends with the connection; any other is lost."""
        self._opened.discard(self)
        self._transport = None
        exchange = self._exchange
        if exchange is None:
            return
        try:
            response = None if exc else exchange.reader.feed_end()
        except BrokenBodyError as error:
            exc, response = error, None
        self._end(response or LostError(f"the connection broke off: {exc or _CLOSED}"))

    def _end(self, outcome: Outcome) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.end(outcome)


def _head(url: URL, headers: Mapping[str, str]) -> bytes:
    """Returns a request's head up to the length of its body."""
    lines = {"Host": url.raw_authority, "Accept-Encoding": "gzip, deflate", **headers}
    if not all(value.isascii() and value.isprintable() for value in lines.values()):
        # Not which: it may be the API key.
        raise ValueError("a header holds characters that no HTTP header can carry")
    written = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {url.raw_path_qs} HTTP/1.1\r\n{written}Content-Length: ".encode("ascii")


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
