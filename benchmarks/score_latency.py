"""Whether a server's latency costs anything: 64 places, 50 ms, against 64 / 50 ms = 1,280 a second.

Through the scheduler with its slow start, the whole run counted, from the first request to the
last answer: 10,240 requests with prompts of 16 KB. The server is a process of its own.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from harness.asked import IN_FLIGHT, SETTINGS, SYSTEM
from harness.servers import instant_server, stats

from mira_megatron.scoring.endpoint import Endpoints, Request
from mira_megatron.scoring.garbage import rare_collections

LATENCY_MS = 50.0
NUM_REQUESTS = 10_240
ROUNDS = 3
BAR = 0.95
IDEAL = IN_FLIGHT / (LATENCY_MS / 1000)

RECORD = 'def number(path):\n    """Returns it."""\n    return "number"\n\n' * 128


def main() -> int:
    """Returns the exit code."""
    # As the stage asks.
    with rare_collections(), instant_server(latency_ms=LATENCY_MS) as url:
        seconds = min(asyncio.run(_ask(url)) for _ in range(ROUNDS))
        seen = stats(url)
    if seen["num_requests"] != ROUNDS * NUM_REQUESTS or seen["most_open"] != IN_FLIGHT:
        sys.exit(f"expected {NUM_REQUESTS:,} requests a round, {IN_FLIGHT} at once; got {seen}")
    speed = NUM_REQUESTS / seconds
    figure = {
        "name": "score_latency_50ms",
        "ours": round(speed),
        "peer": round(IDEAL),
        "unit": f"requests per second, 64 in flight, best of {ROUNDS}; peer: 64 / 50 ms",
        "ratio": round(speed / IDEAL, 3),
        "bar": BAR,
    }
    print(json.dumps(figure))
    return int(speed / IDEAL < BAR)


async def _ask(url: str) -> float:
    """Returns the seconds that all requests take; exits where one is not answered."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": RECORD}]
    num_answered = 0
    started = time.perf_counter()
    async with Endpoints([url], SETTINGS) as endpoints:
        for number in range(NUM_REQUESTS):
            while not endpoints.has_room:
                num_answered += (await endpoints.next_answer()).failure is None
            endpoints.start(Request(key=str(number), messages=messages, seed=number))
        while endpoints.num_in_flight:
            num_answered += (await endpoints.next_answer()).failure is None
        seconds = time.perf_counter() - started
    if num_answered != NUM_REQUESTS:
        sys.exit(f"{num_answered:,} of {NUM_REQUESTS:,} requests were answered")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
