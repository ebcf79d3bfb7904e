"""A chat completion server that does to each request what a test says: real HTTP, real faults.

It serves from a thread of its own, can be killed with everything in flight, and started again on
the same port. What it was asked and what it answered in full is counted; so a test can say that
nothing was lost and nothing was asked twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web

USAGE = {"prompt_tokens": 100, "completion_tokens": 50}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as faults depend on it."""

    prompt: str  # of the user
    number: int  # of all requests to this server, from 1
    attempt: int  # how often this prompt was asked here, from 1


# Answers one request, given what a good server would say.
Play = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


async def answer(request: web.Request, text: str) -> web.StreamResponse:
    """Answers as asked."""
    return web.Response(body=completion(text), content_type="application/json")


async def reset(request: web.Request, text: str) -> web.StreamResponse:
    """Breaks the connection off before it says anything."""
    _abort(request)
    return web.Response()


async def half_a_body(request: web.Request, text: str) -> web.StreamResponse:
    """Sends the headers and half of the body, and breaks the connection off."""
    body = completion(text)
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(0.005)  # so that it is on its way
    _abort(request)
    return response


async def hang(request: web.Request, text: str) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError("an event that nobody sets was set")


async def too_long(request: web.Request, text: str) -> web.StreamResponse:
    """Refuses a prompt in vLLM's words."""
    message = "This model's maximum context length is 4096 tokens. However, you requested 5000."
    return web.json_response({"error": {"message": message}}, status=400)


def status(code: int, **headers: str) -> Play:
    """Answers with an error; headers are written with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def play(request: web.Request, text: str) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=code, headers=named)

    return play


def killing(server: FaultServer, seconds_away: float | None) -> Play:
    """Kills the server with all that is in flight; it is back after some seconds, or never."""

    async def play(request: web.Request, text: str) -> web.StreamResponse:
        server.die(seconds_away)
        return await hang(request, text)

    return play


def saying(body: str) -> Play:
    """Answers with another text."""
    return lambda request, text: answer(request, body)


def completion(text: str) -> bytes:
    """Returns the body of a completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return orjson.dumps({"choices": [{**choice, "finish_reason": "stop"}], "usage": USAGE})


@dataclass(slots=True)
class FaultServer:
    """The server; `deal` chooses what is done to a request, `text_of` says the good answer."""

    deal: Callable[[Asked], Play] = lambda asked: answer
    text_of: Callable[[str], str] = lambda prompt: f"fine {prompt}"
    seconds_per_answer: float = 0.0
    places: int | None = None  # whoever comes while so many are open is refused at once; None: all
    refusal: Play = field(default_factory=lambda: status(429))
    metrics: str | None = None  # the page /metrics; None: there is none
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)  # by prompt
    # In full, by prompt; what was on its way when the server was killed may not have arrived.
    answered: Counter[str] = field(default_factory=Counter)
    num_looks: Counter[str] = field(default_factory=Counter)  # by path
    num_refused: int = 0  # for want of a place
    most_open: int = 0
    _num_open: int = 0
    _port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _runner: web.AppRunner | None = None
    _dying: asyncio.Task[None] | None = None

    def kill(self) -> None:
        """Breaks all connections off and listens no more, as a server that is killed."""
        asyncio.run_coroutine_threadsafe(self._kill(), self._loop).result(10)

    def restart(self) -> None:
        """Listens again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def die(self, seconds_away: float | None) -> None:
        """Kills the server from within, and starts it again after some seconds; None: never."""
        self._dying = self._loop.create_task(self._be_away(seconds_away))

    async def _be_away(self, seconds: float | None) -> None:
        await self._kill()
        if seconds is not None:
            await asyncio.sleep(seconds)
            await self._listen()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        self.asked[prompt] += 1
        asked = Asked(prompt, number=self.asked.total(), attempt=self.asked[prompt])
        if self.places is not None and self._num_open >= self.places:
            self.num_refused += 1
            return await self.refusal(request, "")
        self._num_open += 1
        self.most_open = max(self.most_open, self._num_open)
        try:
            await asyncio.sleep(self.seconds_per_answer)
            play = self.deal(asked)
            response = await play(request, self.text_of(prompt))
        finally:
            self._num_open -= 1
        is_whole = response.status == 200 and play not in (reset, half_a_body)
        self.answered[prompt] += is_whole and request.transport is not None
        return response

    async def _look(self, request: web.Request) -> web.Response:
        self.num_looks[request.path] += 1
        if request.path == "/health":
            return web.Response()
        if self.metrics is None:
            raise web.HTTPNotFound
        return web.Response(text=self.metrics)

    async def _listen(self) -> None:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_get("/health", self._look)
        app.router.add_get("/metrics", self._look)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}/v1"

    async def _kill(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            assert runner.server is not None
            for connection in runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()
        served = asyncio.all_tasks() - {asyncio.current_task()}
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


@contextmanager
def serving(*servers: FaultServer) -> Iterator[list[str]]:
    """Serves until the block ends; yields the base URLs."""
    threads = []
    for server in servers:
        thread = threading.Thread(target=server._loop.run_forever, daemon=True)
        thread.start()
        threads.append(thread)
        server.restart()
    try:
        yield [server.url for server in servers]
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.kill()
            server._loop.call_soon_threadsafe(server._loop.stop)
            thread.join(10)
            server._loop.close()


def _abort(request: web.Request) -> None:
    assert request.transport is not None
    transport = request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
