from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp
import openai
import pytest
from aiohttp.test_utils import TestServer

from mira_megatron.records import FAMILIES, NUM_SLOTS, Anchor
from mira_megatron.rubric.discovery_prompts import discover_messages
from mira_megatron.rubric.discovery_replies import parse_proposals
from mira_megatron.rubric.judge_server import answer, create_app
from mira_megatron.rubric.prompts import score_messages
from mira_megatron.rubric.replies import format_reply, parse_reply
from mira_megatron.rubric.rule_judge import MODEL_NAME, dimension_names, propose, rate
from mira_megatron.scoring.endpoint import Endpoints, EndpointSettings, Request

_NAMES = dimension_names("text")[:NUM_SLOTS]
_VIEW = "def add(a, b):\n    return a + b\n"
Result = TypeVar("Result")


def _anchors(names: Sequence[str]) -> list[Anchor]:
    return [
        Anchor(
            anchor_id=f"A{slot}",
            name=name,
            description=None,
            part=None,
            cluster_size=None,
            aliases=(),
            medoid=None,
            references=(),
            rubric_version="test",
        )
        for slot, name in enumerate(names, start=1)
    ]


_MESSAGES = score_messages("text", _anchors(_NAMES), _VIEW)


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
    assert completion.choices[0].message.content == format_reply(
        _NAMES, rate("text", _VIEW, _NAMES)
    )
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
        max_in_flight=20,
        timeout_seconds=30,
        max_retries=0,
    )

    async def ask(url: str) -> list[str | None]:
        async with Endpoints([url], settings) as endpoints:
            for number in range(20):
                endpoints.start(Request(key=str(number), messages=_MESSAGES))
            return [(await endpoints.next_answer()).text for _ in range(20)]

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
    messages = list(score_messages("text", _anchors(names), _VIEW))
    reply = answer({"model": MODEL_NAME, "messages": messages})
    assert parse_reply(reply, names).scores == rate("text", _VIEW, names).scores


def test_answer_foreign_anchors_are_refused_with_the_known_ones() -> None:
    messages = list(score_messages("text", _anchors(("Beauty",)), _VIEW))
    with pytest.raises(ValueError, match=r"'Beauty'.*Readability"):
        answer({"model": MODEL_NAME, "messages": messages})


_VIEWS = {
    "text": _VIEW,
    "qa": '{"question": "What is 4 + 5?", "answer": "4 + 5 = 9"}',
    "qa_with_think": '{"question": "4 + 5?", "think": "Wait: 4 + 5 = 9.", "answer": "It is 9."}',
    "agent": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello you."}]',
}


@pytest.mark.parametrize("family", FAMILIES)
def test_answer_discovery_request_gets_the_proposals(family: str) -> None:
    messages = list(discover_messages(family, _VIEWS[family]))
    parsed = parse_proposals(answer({"model": MODEL_NAME, "messages": messages}), family)
    assert parsed.proposals == propose(family, _VIEWS[family])
    assert len(parsed.proposals) > 0


def test_answer_record_that_asks_for_scores_is_still_only_a_record() -> None:
    attack = _MESSAGES[1]["content"]
    messages = list(discover_messages("text", attack))
    parsed = parse_proposals(answer({"model": MODEL_NAME, "messages": messages}), "text")
    assert parsed.proposals == propose("text", attack)


def test_server_foreign_anchor_is_a_400_naming_the_known_ones() -> None:
    async def ask(url: str) -> openai.APIStatusError:
        messages = score_messages("text", _anchors(("Beauty",)), _VIEW)
        async with _openai(url) as client:
            with pytest.raises(openai.BadRequestError) as caught:
                await client.chat.completions.create(
                    model=MODEL_NAME,
                    messages=[{"role": "user", "content": messages[1]["content"]}],
                )
            return caught.value

    error = _with_server(ask)
    assert "'Beauty'" in error.message
    assert "Readability" in error.message
