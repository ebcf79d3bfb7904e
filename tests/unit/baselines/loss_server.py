"""A completion server that says the log-probabilities of a prompt's tokens, as vLLM words them.

Real HTTP, and real losses: a model on this machine has them. What is done to a request is dealt by
the test.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from mira_megatron.baselines.reference_model import ReferenceModel
from mira_megatron.baselines.token_windows import Window

# Answers a request's body, given how often this prompt was asked for and the good reply.
Deal = Callable[[dict[str, Any], int, dict[str, Any]], "web.Response | None"]


def well(body: dict[str, Any], attempt: int, reply: dict[str, Any]) -> web.Response | None:
    """Answers as asked."""
    return None


def error(status: int, *, until_attempt: int | None = None, message: str = "no") -> Deal:
    """Answers with an error, before it answers as asked at `until_attempt`, if ever."""

    def deal(body: dict[str, Any], attempt: int, reply: dict[str, Any]) -> web.Response | None:
        if until_attempt is not None and attempt >= until_attempt:
            return None
        return web.json_response({"error": {"message": message}}, status=status)

    return deal


def saying(change: Callable[[dict[str, Any]], Any]) -> Deal:
    """Answers with what is made of the good reply."""
    return lambda body, attempt, reply: web.json_response(body=orjson.dumps(change(reply)))


@dataclass(slots=True)
class LossServer:
    """The server; its notes may be read when nothing is being asked."""

    model: Path
    deal: Deal = well
    deal_of: dict[int, Deal] = field(default_factory=dict)  # by the prompt's number of tokens
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[bytes] = field(default_factory=Counter)  # by prompt
    reference: ReferenceModel = field(init=False)

    def __post_init__(self) -> None:
        self.reference = ReferenceModel(self.model, "float32")

    async def handle(self, request: web.Request) -> web.Response:
        """Answers one request."""
        body = await request.json()
        prompt = orjson.dumps(body["prompt"])
        self.bodies.append(body)
        self.asked[prompt] += 1
        num_tokens = sum(map(len, body["prompt"]))
        reply = self._reply(body["prompt"])
        deal = self.deal_of.get(num_tokens, self.deal)
        dealt = deal(body, self.asked[prompt], reply)
        return web.json_response(body=orjson.dumps(reply)) if dealt is None else dealt

    def _reply(self, prompts: list[list[int]]) -> dict[str, Any]:
        windows = [Window(ids=ids, first_target=1) for ids in prompts]
        choices = [
            {
                "index": number,
                "text": "x",
                "finish_reason": "length",
                "prompt_logprobs": [
                    None,
                    *(
                        {str(token): {"logprob": -float(loss), "rank": 1, "decoded_token": "?"}}
                        for token, loss in zip(window.ids[1:], losses, strict=True)
                    ),
                ],
            }
            for number, (window, losses) in enumerate(
                zip(windows, self.reference.losses(windows), strict=True)
            )
        ]
        usage = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": len(prompts)}
        return {"choices": choices[::-1], "usage": usage}


@contextmanager
def serving(server: LossServer) -> Iterator[LossServer]:
    """Serves until the block ends; `server.url` is where."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/completions", server.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/v1"
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
