"""What a request costs the client: ours beside a bare loop of aiohttp and orjson, the same bodies.

Against a server in another process that answers at once: a group's prompt of 8 KB, records of 8 KB,
answers of 2.5 KB, 64 in flight. The peer encodes a body, posts it, reads the reply and decodes it,
and does nothing else: no retries, no timeouts of its own, no failures, no counting, no health.
CPU seconds of this process, in turn; the least of the rounds, for a neighbour only ever adds.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar. The bar
is a cost of at most 1.3 times the peer's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import orjson
from harness.asked import IN_FLIGHT, SETTINGS, SYSTEM
from harness.servers import instant_server, stats

from mira_megatron.scoring.endpoint import Endpoints, Request

NUM_REQUESTS = 2_500
ROUNDS = 8
BAR = round(1 / 1.3, 2)

RECORDS = [
    f'def number_{number}(path):\n    """Returns it."""\n    return "{number}"\n\n' * 128
    for number in range(IN_FLIGHT)
]
Ask = Callable[[str], Coroutine[Any, Any, int]]


def main() -> int:
    """Returns the exit code."""
    with instant_server() as url:
        # Also lets both import what they import late.
        if _seen(ask_ours, url) != _seen(ask_peer, url):
            sys.exit("the two sides sent or read something else: no speed is worth anything")
        pairs = [(_cpu_seconds(ask_ours, url), _cpu_seconds(ask_peer, url)) for _ in range(ROUNDS)]
    ours, peer = (min(side) / NUM_REQUESTS * 1e6 for side in zip(*pairs, strict=True))
    figure = {
        "name": "client_request",
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "unit": f"CPU us per request, least of {ROUNDS} rounds; peer: bare aiohttp and orjson",
        "ratio": round(peer / ours, 2),
        "bar": BAR,
    }
    print(json.dumps(figure))
    return int(peer / ours < BAR)


async def ask_ours(url: str) -> int:
    """Returns how many characters all answers have."""
    num_chars = 0
    async with Endpoints([url], SETTINGS) as endpoints:
        for number in range(NUM_REQUESTS):
            while not endpoints.has_room:
                num_chars += len((await endpoints.next_answer()).text or "")
            request = Request(key=str(number), messages=_messages(number), seed=number)
            endpoints.start(request)
        while endpoints.num_in_flight:
            num_chars += len((await endpoints.next_answer()).text or "")
    return num_chars


async def ask_peer(url: str) -> int:
    """Returns how many characters all answers have."""
    numbers = iter(range(NUM_REQUESTS))
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=IN_FLIGHT),
        headers={"Content-Type": "application/json"},
    )

    async def ask_some() -> int:
        num_chars = 0
        for number in numbers:
            body = {
                "model": SETTINGS.model,
                "messages": _messages(number),
                "temperature": SETTINGS.temperature,
                "top_p": SETTINGS.top_p,
                "max_tokens": SETTINGS.max_tokens,
                "seed": number,
            }
            async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as reply:
                completion = orjson.loads(await reply.read())
            num_chars += len(completion["choices"][0]["message"]["content"])
        return num_chars

    async with session:
        return sum(await asyncio.gather(*(ask_some() for _ in range(IN_FLIGHT))))


def _messages(number: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": RECORDS[number % len(RECORDS)]},
    ]


def _seen(ask: Ask, url: str) -> tuple[int, int, int]:
    """Returns the requests and bytes that the server got, and the characters that came back."""
    stats(url)
    num_chars = asyncio.run(ask(url))
    seen = stats(url)
    return seen["num_requests"], seen["num_body_bytes"], num_chars


def _cpu_seconds(ask: Ask, url: str) -> float:
    started = time.process_time()
    asyncio.run(ask(url))
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
