from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import openai
import pytest
from aiohttp.test_utils import TestServer

from mira_megatron.rubric.judge_server import answer, create_app
from mira_megatron.rubric.prompts import score_messages
from mira_megatron.rubric.replies import format_reply, parse_reply
from mira_megatron.rubric.rule_judge import MODEL_NAME, anchor_names, judge
from mira_megatron.scoring.endpoint import EndpointSettings, Request, answer_all

_NAMES = anchor_names("text")
_VIEW = "def add(a, b):\n    return a + b\n"
_MESSAGES = score_messages("text", _NAMES, _VIEW)
Result = TypeVar("Result")


def _with_server(use: Callable[[str], Awaitable[Result]]) -> Result:
    async def serve_and_use() -> Result:
        async with TestServer(create_app()) as server:
            return await use(str(server.make_url("/v1")))

    return asyncio.run(serve_and_use())


def _openai(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0)


def test_server_openai_client_gets_the_verdict() -> None:
    async def ask(url: str) -> openai.types.chat.ChatCompletion:
        async with _openai(url) as client:
            return await client.chat.completions.create(
                model=MODEL_NAME,
                messages=[
                    {"role": "system", "content": _MESSAGES[0]["content"]},
                    {"role": "user", "content": _MESSAGES[1]["content"]},
                ],
            )

    completion = _with_server(ask)
    assert completion.choices[0].message.content == format_reply(_NAMES, judge("text", _VIEW))
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0


def test_server_openai_client_lists_the_model() -> None:
    async def list_models(url: str) -> list[str]:
        async with _openai(url) as client:
            return [model.id async for model in client.models.list()]

    assert _with_server(list_models) == [MODEL_NAME]


def test_server_our_client_gets_a_whole_reply() -> None:
    settings = EndpointSettings(
        model=MODEL_NAME,
        temperature=0.7,
        top_p=0.95,
        max_tokens=2048,
        seed=1,
        max_in_flight=4,
        timeout_seconds=30,
        max_retries=0,
    )

    async def ask(url: str) -> list[str | None]:
        requests = (Request(key=str(number), messages=_MESSAGES) for number in range(20))
        return [answer.text async for answer in answer_all(requests, [url], settings)]

    texts = _with_server(ask)
    assert len(texts) == 20
    assert {parse_reply(text or "", _NAMES).status for text in texts} == {"ok"}


def test_server_bad_request_is_an_openai_error() -> None:
    async def ask(url: str) -> openai.APIStatusError:
        async with _openai(url) as client:
            with pytest.raises(openai.BadRequestError) as caught:
                await client.chat.completions.create(
                    model=MODEL_NAME, messages=[{"role": "user", "content": "hi"}]
                )
            return caught.value

    error = _with_server(ask)
    assert "fenced record" in error.message
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"model": "gpt"}', b"\xff"])
def test_server_malformed_body_is_400_with_a_message(body: bytes) -> None:
    async def post(url: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/chat/completions", data=body) as response,
        ):
            return response.status, (await response.json())["error"]["message"]

    status, message = _with_server(post)
    assert status == 400
    assert message


def test_server_unknown_path_is_a_json_404() -> None:
    async def get(url: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/nothing") as response:
            return response.status, (await response.json())["error"]["type"]

    assert _with_server(get) == (404, "invalid_request_error")


def test_answer_anchors_in_another_order_follow_their_names() -> None:
    names = ("Readability", "Substance", "Readability")
    reply = answer({"model": MODEL_NAME, "messages": list(score_messages("text", names, _VIEW))})
    scores = dict(zip(_NAMES, judge("text", _VIEW).scores, strict=True))
    assert parse_reply(reply, names).scores == tuple(scores[name] for name in names)


def test_answer_foreign_anchors_are_refused() -> None:
    messages = list(score_messages("text", ("Beauty",), _VIEW))
    with pytest.raises(ValueError, match="Beauty"):
        answer({"model": MODEL_NAME, "messages": messages})
