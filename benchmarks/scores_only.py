"""Scores alone beside full answers: records a second of one real vLLM server, on this CPU.

Both sides ask about records of their own of 600 prompt tokens, 64 at a time, over one client. The
peer is the way a released scorer answers: 600 tokens of scores and justifications, fixed by
ignore_eos. Ours is answer_mode=scores_only: guided decoding, which ends by itself after 15 scores.
The model is tiny and its weights are random; what is compared is the work of an answer's length.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import orjson

from mira_megatron.records import NUM_SLOTS
from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.rubric.replies import parse_reply

# The server and its model are those of the integration tests.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "integration"))
from tiny_chat_model import write_tiny_chat_model
from vllm_server import VllmServer, running_vllm

PROMPT_TOKENS = 600
FULL_TOKENS = 600
NUM_RECORDS = 128  # of each side in each round
IN_FLIGHT = 64
ROUNDS = 3
BAR = 5.0

_BARE_DIGITS = PromptForm(prompt="bare", references=False, answers="digits")
_NAMES = tuple(f"name {slot}" for slot in range(NUM_SLOTS))
_OURS: dict[str, Any] = {"max_tokens": 64, "structured_outputs": {"regex": SCORES_REGEX}}
_PEER: dict[str, Any] = {
    "max_tokens": FULL_TOKENS,
    "min_tokens": FULL_TOKENS,
    "ignore_eos": True,
}


def main() -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_chat_model(Path(folder, "tiny-chat"))
        with running_vllm(model, max_model_len=2048, log_path=Path(folder, "vllm.log")) as server:
            records = prompts_of_one_length(server, (2 * ROUNDS + 2) * NUM_RECORDS)
            for fields in (_OURS, _PEER):  # the first answers compile the guide and warm the rest
                _timed(server, [records.pop() for _ in range(NUM_RECORDS)], fields)
            pairs = [
                tuple(
                    _timed(server, [records.pop() for _ in range(NUM_RECORDS)], fields)
                    for fields in (_OURS, _PEER)
                )
                for _ in range(ROUNDS)
            ]
    ours, peer = (median(side) for side in zip(*pairs, strict=True))
    ratio = median(one / other for one, other in pairs)
    figure = {
        "name": "scores_only_of_600_prompt_tokens",
        "ours": round(ours, 1),
        "peer": round(peer, 2),
        "unit": f"records per second, median of {ROUNDS}; peer: {FULL_TOKENS}-token answers",
        "ratio": round(ratio, 1),
        "bar": BAR,
    }
    print(json.dumps(figure))
    return int(ratio < BAR)


def prompts_of_one_length(server: VllmServer, num_records: int) -> list[str]:
    """Returns different records, each of which makes a prompt of PROMPT_TOKENS tokens."""
    generator = random.Random(0)
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-j]*.py"))
    words = " ".join(path.read_text(encoding="utf-8") for path in modules).split(" ")
    words = [word for word in words if word.isascii() and word.isalpha()]
    # A word after a space has as many tokens wherever it stands; one of one token fills up.
    fillers = [" if", " in", " is"]
    records = []
    while len(records) < num_records:
        text = " ".join(generator.choices(words, k=PROMPT_TOKENS // 2))
        missing = PROMPT_TOKENS - _num_tokens(server, text)
        assert missing > 0, "words of more than two tokens each"
        text += "".join(generator.choices(fillers, k=missing))
        assert _num_tokens(server, text) == PROMPT_TOKENS, "a filler is one token"
        records.append(text)
    return records


def _num_tokens(server: VllmServer, text: str) -> int:
    messages = [{"role": "user", "content": text}]
    reply = server.post("/tokenize", {"messages": messages, "add_generation_prompt": True})
    return int(reply["count"])


def _timed(server: VllmServer, records: Sequence[str], fields: dict[str, Any]) -> float:
    """Returns records per second; exits where an answer is not what was asked for."""
    started = time.perf_counter()
    replies = asyncio.run(_ask(server, records, fields))
    seconds = time.perf_counter() - started
    for reply in replies:
        usage, text = reply["usage"], reply["choices"][0]["message"]["content"]
        is_guided = "structured_outputs" in fields
        is_right = (
            parse_reply(text, _NAMES, _BARE_DIGITS).status == "ok"
            if is_guided
            else usage["completion_tokens"] == FULL_TOKENS
        )
        if not is_right or usage["prompt_tokens"] != PROMPT_TOKENS:
            sys.exit(f"not as asked for, so no speed is worth anything: {usage}, {text[:200]!r}")
    return len(records) / seconds


async def _ask(server: VllmServer, records: Sequence[str], fields: dict[str, Any]) -> list[Any]:
    gate = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:

        async def answer(record: str) -> Any:
            messages = [{"role": "user", "content": record}]
            body = {"model": server.model, "messages": messages, "temperature": 0, **fields}
            async with (
                gate,
                session.post(
                    f"{server.endpoint}/chat/completions",
                    data=orjson.dumps(body),
                    headers={"Content-Type": "application/json"},
                ) as response,
            ):
                return orjson.loads(await response.read())

        return await asyncio.gather(*map(answer, records))


if __name__ == "__main__":
    sys.exit(main())
