from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import unused_port
from yarl import URL

from mira_megatron.scoring.http_connections import (
    Deadlines,
    HttpConnections,
    LostError,
    NotSentError,
    Outcome,
)
from mira_megatron.scoring.http_response import HttpResponse, NotHttpError

_FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
_KEY = "sk-very-secret"
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class _Server:
    """Answers every request on a connection with bytes, or plays something else."""

    def __init__(self, reply: bytes = _FINE, play: Play | None = None) -> None:
        self.reply = reply
        self.play = play
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.clients: list[object] = []  # of each request
        self.num_left = 0  # connections that the client ended
        self.writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with (
            contextlib.suppress(ConnectionError, asyncio.IncompleteReadError),
            contextlib.closing(writer),
        ):
            if self.play is not None:
                return await self.play(reader, writer)
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(int(head.rsplit(b" ", 1)[1])))
                self.clients.append(writer.get_extra_info("peername"))
                writer.write(self.reply)
        self.num_left += 1

    @contextlib.asynccontextmanager
    async def serving(
        self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[URL]:
        server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        scheme, name = (
            ("https", "localhost") if tls else ("http", f"[{host}]" if ":" in host else host)
        )
        try:
            yield URL(f"{scheme}://{name}:{port}/v1/chat%20completions?a=b")
        finally:
            server.close()
            for writer in self.writers:
                writer.close()


@contextlib.asynccontextmanager
async def _connections(
    url: URL, *, seconds: float = 20, keep_alive_seconds: float = 4
) -> AsyncIterator[HttpConnections]:
    deadlines = Deadlines(seconds)
    connections = HttpConnections(
        url,
        {"Authorization": f"Bearer {_KEY}"},
        deadlines=deadlines,
        connect_seconds=seconds / 2,
        keep_alive_seconds=keep_alive_seconds,
        max_body_bytes=1_000,
    )
    try:
        yield connections
    finally:
        connections.close()
        deadlines.close()


def _run(ask: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(ask, 20))


def test_post_sends_what_it_should_and_keeps_the_connection() -> None:
    async def ask() -> None:
        server = _Server()
        async with server.serving() as url, _connections(url) as connections:
            for body in (b"one", b"\r\n\r\n"):
                response = await connections.post(body)
                headers = {b"content-length": b"4"}
                assert response == HttpResponse(200, headers, b"fine", False)
            assert server.bodies == [b"one", b"\r\n\r\n"]
            assert len(set(server.clients)) == 1
            assert server.heads[0].decode() == (
                "POST /v1/chat%20completions?a=b HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{url.port}\r\n"
                "Accept-Encoding: gzip, deflate\r\n"
                f"Authorization: Bearer {_KEY}\r\n"
                "Content-Length: 3\r\n\r\n"
            )

    _run(ask())


def test_post_many_at_once_have_each_a_connection_of_their_own() -> None:
    async def ask() -> None:
        server = _Server()
        async with server.serving() as url, _connections(url) as connections:
            for _ in range(2):
                await asyncio.gather(*(connections.post(b"%d" % each) for each in range(9)))
            assert len(set(server.clients)) == 9
            assert sorted(server.bodies) == sorted(2 * [b"%d" % each for each in range(9)])

    _run(ask())


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine",
        _FINE + b"and something that nobody asked for",
    ],
)
def test_post_connection_that_is_not_to_be_used_again_is_closed(reply: bytes) -> None:
    async def ask() -> None:
        server = _Server(reply)
        async with server.serving() as url, _connections(url) as connections:
            for _ in range(2):
                assert (await connections.post(b"x")).body == b"fine"
            assert len(set(server.clients)) == 2
            while server.num_left < 2:
                await asyncio.sleep(0.001)

    _run(ask())


@pytest.mark.parametrize("is_closed", [True, False])
def test_post_connection_that_ended_or_spoke_while_idle_costs_nothing(is_closed: bool) -> None:
    async def ask() -> None:
        server = _Server()
        async with server.serving() as url, _connections(url) as connections:
            await connections.post(b"x")
            server.writers[0].write(b"" if is_closed else _FINE)
            if is_closed:
                server.writers[0].close()
            await asyncio.sleep(0.05)
            assert (await connections.post(b"x")).body == b"fine"
            assert len(set(server.clients)) == 2

    _run(ask())


def test_post_connection_that_was_idle_for_too_long_is_closed() -> None:
    async def ask() -> None:
        server = _Server()
        async with (
            server.serving() as url,
            _connections(url, keep_alive_seconds=0.0) as connections,
        ):
            for _ in range(3):
                await connections.post(b"x")
            assert len(set(server.clients)) == 3
            while server.num_left < 2:
                await asyncio.sleep(0.001)

    _run(ask())


def test_post_answer_before_all_was_sent_is_read_and_ends_the_connection() -> None:
    num_bytes = 32 << 20
    answered, ended = asyncio.Event(), asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n")
            await answered.wait()
            try:
                await reader.readexactly(num_bytes)
            finally:
                ended.set()

    async def ask() -> None:
        server = _Server(play=refuse)
        async with server.serving() as url, _connections(url) as connections:
            for _ in range(2):
                assert (await connections.post(b"x" * num_bytes)).status == 413
                answered.set()
                await ended.wait()
                answered.clear()
                ended.clear()
            assert len(server.writers) == 2

    _run(ask())


def test_send_without_a_connection_does_nothing_and_with_one_tells_of_the_response() -> None:
    async def ask() -> None:
        server = _Server()
        async with server.serving() as url, _connections(url) as connections:
            told: asyncio.Queue[Outcome] = asyncio.Queue()
            assert not connections.send(b"one", told.put_nowait)
            await connections.post(b"two")
            for body in (b"three", b"four"):
                assert connections.send(body, told.put_nowait)
                assert not connections.send(b"no second connection", told.put_nowait)
                response = await told.get()
                assert isinstance(response, HttpResponse)
                assert response.body == b"fine"
            assert server.bodies == [b"two", b"three", b"four"]
            assert len(set(server.clients)) == 1

    _run(ask())


def test_send_tells_of_the_error_that_post_would_raise_and_closes_the_connection() -> None:
    async def ask() -> None:
        server = _Server()
        async with server.serving() as url, _connections(url, seconds=0.2) as connections:
            for reply, error in ((b"", TimeoutError), (b"SSH-2.0\r\n", NotHttpError)):
                server.reply = _FINE
                await connections.post(b"x")
                server.reply = reply
                told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
                assert connections.send(b"x", told.set_result)
                assert isinstance(await told, error)
                assert not connections.send(b"x", told.set_result)
            while server.num_left < 2:
                await asyncio.sleep(0.001)

    _run(ask())


def test_close_tells_nobody() -> None:
    async def ask() -> None:
        server = _Server()
        async with server.serving() as url, _connections(url) as connections:
            told: list[Outcome] = []
            await connections.post(b"x")
            server.reply = b""
            assert connections.send(b"x", told.append)
            connections.close()
            while not server.num_left:
                await asyncio.sleep(0.001)
            assert told == []

    _run(ask())


def test_deadlines_forget_what_has_ended() -> None:
    async def ask() -> None:
        deadlines = Deadlines(20)
        async with _Server().serving() as url:
            connections = HttpConnections(
                url,
                {},
                deadlines=deadlines,
                connect_seconds=5,
                keep_alive_seconds=4,
                max_body_bytes=9,
            )
            asking = asyncio.create_task(connections.post(b"x"))
            await asyncio.sleep(0)
            assert len(deadlines) == 1
            await asking
            assert len(deadlines) == 0
            connections.close()
            deadlines.close()

    _run(ask())


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", LostError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfi", LostError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", LostError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", NotHttpError),
    ],
)
def test_post_broken_response_is_a_typed_error(sent: bytes, error: type[Exception]) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)

    async def ask() -> None:
        async with _Server(play=break_off).serving() as url, _connections(url) as connections:
            with pytest.raises(error):
                await connections.post(b"x")

    _run(ask())


def test_post_body_that_ends_with_the_connection_is_whole() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nfi")
        await asyncio.sleep(0.02)
        writer.write(b"ne")

    async def ask() -> None:
        async with _Server(play=say).serving() as url, _connections(url) as connections:
            assert (await connections.post(b"x")).body == b"fine"

    _run(ask())


def test_post_each_request_has_the_whole_time_and_no_more() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        server = _Server(play=hang)
        async with server.serving() as url, _connections(url, seconds=0.2) as connections:

            async def time_out() -> float:
                started = loop.time()
                with pytest.raises(TimeoutError):
                    await connections.post(b"x")
                return loop.time() - started

            first = asyncio.create_task(time_out())
            await asyncio.sleep(0.1)
            assert min(await asyncio.gather(first, time_out())) >= 0.19
            assert await time_out() >= 0.19  # the timer starts anew

    _run(ask())


def test_post_cancelled_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()

    async def ask() -> None:
        async with _Server(play=hang).serving() as url, _connections(url) as connections:
            asking = asyncio.create_task(connections.post(b"x"))
            await asyncio.sleep(0.05)
            asking.cancel()
            await gone.wait()

    _run(ask())


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b", "no-such-host.invalid"])
def test_post_to_where_nobody_is_was_not_sent(host: str) -> None:
    async def ask() -> None:
        url = URL.build(scheme="http", host="h", port=unused_port()).with_path("/v1")
        url = URL(str(url).replace("//h:", f"//{host}:"), encoded=True)
        async with _connections(url) as connections:
            with pytest.raises(NotSentError, match="no connection to"):
                await connections.post(b"x")

    _run(ask())


def test_post_to_an_ipv6_address_names_it_in_brackets() -> None:
    async def ask() -> None:
        server = _Server()
        try:
            async with server.serving("::1") as url, _connections(url) as connections:
                assert (await connections.post(b"x")).body == b"fine"
                assert f"Host: [::1]:{url.port}\r\n".encode() in server.heads[0]
        except OSError:
            pytest.skip("this machine has no IPv6")

    _run(ask())


def test_post_over_tls_goes_to_whom_the_certificate_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None and os.environ.get("CI") != "true":
        pytest.skip("no openssl here to make a certificate with")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def ask() -> None:
        server = _Server()
        async with server.serving(tls=tls) as url:
            async with _connections(url) as connections:
                with pytest.raises(NotSentError, match="certificate"):
                    await connections.post(b"x")
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            async with _connections(url) as connections:
                for _ in range(2):
                    assert (await connections.post(b"x")).body == b"fine"
            async with _connections(url.with_host("127.0.0.1")) as connections:
                with pytest.raises(NotSentError, match="certificate"):
                    await connections.post(b"x")
        assert len(set(server.clients)) == 1

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of handshakes that fail
    _run(ask())


def test_key_that_would_break_the_head_is_refused_and_not_shown() -> None:
    async def ask() -> None:
        with pytest.raises(ValueError, match="no HTTP header can carry") as caught:
            HttpConnections(
                URL("http://h/v1"),
                {"Authorization": f"{_KEY}\r\nX: y"},
                deadlines=Deadlines(1),
                connect_seconds=1,
                keep_alive_seconds=1,
                max_body_bytes=1,
            )
        assert _KEY not in str(caught.value)

    _run(ask())
