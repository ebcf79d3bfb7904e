"""A teacher behind an OpenAI-compatible endpoint that can fail in every way that one fails.

Which way is decided by the record that is asked about, so a run can be foretold. It notes what it
was asked and what it answered in full, and serves from a thread of its own.
"""

from __future__ import annotations

import asyncio
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {"prompt_tokens": 100, "completion_tokens": 50}
_SLOT = re.compile(r"\[([A-Z]\d+)\] (.*): <score>/10 — ")
_FOOTER = "overall: 64\ntraining_recommendation: keep\ndomain_tag: notes\nbrief: A note."
_CHINESE = ("第{}点写得清楚", "命名规范", "示例充分", "结构合理")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as faults depend on it."""

    prompt: str  # of the user
    seed: int
    attempt: int  # how often this prompt was asked with this seed, from 1
    api_key: str

    @property
    def number(self) -> int:
        """Returns a number of the record's own."""
        return number_of(self.prompt)


def number_of(prompt: str) -> int:
    """Returns the number by which a record's fault is chosen."""
    return zlib.crc32(prompt.encode())


# What a request is answered with: the reply, given what a good teacher would have said.
Fault = Callable[[Asked, str], "web.Response | None"]  # None: no answer, ever


def completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> web.Response:
    """Returns a reply that says `text`."""
    choice = {"message": {"content": text, **message}, "finish_reason": finish_reason}
    return web.json_response({"choices": [choice], "usage": USAGE})


def good(asked: Asked, text: str) -> web.Response:
    """Answers as asked."""
    return completion(text)


def garbage(asked: Asked, text: str) -> web.Response:
    """Answers something else."""
    return completion("As a large language model I have thoughts about notes.\n" * 5)


def refusal(asked: Asked, text: str) -> web.Response:
    """Refuses, as OpenAI's models do."""
    return completion(None, refusal="I'm sorry, but I cannot help with that.")


def half(asked: Asked, text: str) -> web.Response:
    """Answers the first half, cut off in the middle of a line."""
    return completion(text[: len(text) // 2], finish_reason="length")


def chinese(asked: Asked, text: str) -> web.Response:
    """Answers in Chinese, with full-width colons and slashes, thinking aloud before."""
    lines = [
        f"[{slot}] {_CHINESE[number % 4].format(number)}：7／10 — 说明很详细，第{number}条理由。"
        for number, slot in enumerate(re.findall(r"(?m)^\[([A-Z]\d+)\]", text))
    ]
    footer = text[text.index("overall:") :] if "overall:" in text else ""
    return completion("\n".join([*lines, footer]), reasoning_content="[A1] x: 1/10 — 草稿")


def silence(asked: Asked, text: str) -> web.Response | None:
    """Never answers."""
    return None


def error(status: int, *, until_attempt: int | None = None, **headers: str) -> Fault:
    """Answers with an error, before it answers as asked at `until_attempt`, if ever."""

    def answer(asked: Asked, text: str) -> web.Response:
        if until_attempt is not None and asked.attempt >= until_attempt:
            return completion(text)
        return web.json_response({"error": {"message": "no"}}, status=status, headers=headers)

    return answer


def by_record(*faults: Fault) -> Fault:
    """Deals the faults out over the records."""
    return lambda asked, text: faults[asked.number % len(faults)](asked, text)


@dataclass(slots=True)
class FakeTeacher:
    """The server; its notes may be read when nothing is being asked."""

    fault: Fault = good
    seconds_per_answer: float = 0.0
    url: str = ""
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)  # (prompt, seed)
    api_keys: set[str] = field(default_factory=set)
    num_answered: int = 0
    most_open: int = 0
    _num_open: int = 0
    _is_closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt, seed = body["messages"][-1]["content"], body["seed"]
        self.asked[prompt, seed] += 1
        asked = Asked(
            prompt=prompt,
            seed=seed,
            attempt=self.asked[prompt, seed],
            api_key=request.headers.get("Authorization", "").removeprefix("Bearer "),
        )
        self.api_keys.add(asked.api_key)
        self._num_open += 1
        self.most_open = max(self.most_open, self._num_open)
        await asyncio.sleep(self.seconds_per_answer)
        answer = self.fault(asked, _good_text(asked))
        if answer is None:
            await self._is_closing.wait()
            answer = web.Response(status=503)
        self._num_open -= 1
        self.num_answered += answer.status == 200
        return answer


@contextmanager
def serving(teacher: FakeTeacher) -> Iterator[FakeTeacher]:
    """Serves until the block ends; `teacher.url` is where."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/chat/completions", teacher._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        teacher.url = f"http://{host}:{port}/v1"
        return runner

    async def stop(runner: web.AppRunner) -> None:
        teacher._is_closing.set()
        await runner.cleanup()

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield teacher
    finally:
        asyncio.run_coroutine_threadsafe(stop(runner), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def teacher_section(teacher: FakeTeacher, **settings: Any) -> dict[str, Any]:
    """Returns a recipe's section that asks this teacher, impatiently."""
    return {
        "engine": "endpoint",
        "model": "fake-teacher",
        "temperature": 0.7,
        "top_p": 0.95,
        "max_tokens": 2048,
        "endpoints": [teacher.url],
        "max_in_flight": 4,
        "max_retries": 1,
        "timeout_seconds": 20.0,
        "max_failed_fraction": 1.0,
        **settings,
    }


def _good_text(asked: Asked) -> str:
    """Returns a filled-in copy of the answer template that opens the prompt."""
    slots = [match for line in asked.prompt.split("\n") if (match := _SLOT.match(line))]
    lines = [
        f"[{slot[1]}] {_name(slot[2], asked, place)}: {(asked.number + place) % 11}/10 — "
        f"It says {asked.number % 97} things, of which {place} count."
        for place, slot in enumerate(slots)
    ]
    return "\n".join([*lines, _FOOTER] if "overall: <0-100>" in asked.prompt else lines)


def _name(name: str, asked: Asked, place: int) -> str:
    """Returns the name in the template, or one of the teacher's own where that is a blank."""
    return f"Quality {(asked.number + place) % 23}" if name == "<dimension>" else name
