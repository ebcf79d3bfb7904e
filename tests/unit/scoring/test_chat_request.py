from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mira_megatron.scoring.chat_request import EndpointSettings, Request, RequestBodies

_SETTINGS = EndpointSettings(
    model='a "model"',
    temperature=0.7,
    top_p=0.95,
    max_tokens=64,
    max_in_flight=4,
    timeout_seconds=20,
    max_retries=2,
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": _TEXTS}),
        st.fixed_dictionaries({"content": _TEXTS, "role": st.just("system")}),
        st.fixed_dictionaries({"role": st.just("user"), "content": _TEXTS, "name": _TEXTS}),
    ),
    min_size=1,
    max_size=4,
)
_FIELDS = st.dictionaries(
    st.sampled_from(["temperature", "max_tokens", "seed", "top_k", "structured_outputs", "stop"]),
    st.one_of(st.none(), st.integers(-5, 5), st.lists(_TEXTS, max_size=2)),
)


def _body(request: Request, settings: EndpointSettings) -> dict[str, Any]:
    """Returns what a body is to say, written down as a whole."""
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": request.messages,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": request.seed,
        **settings.request_fields,
    }
    if settings.has_logprobs:
        body |= {"logprobs": True, "top_logprobs": 20}
    return {name: value for name, value in body.items() if value is not None}


@examples(max_examples=60, deadline=None)
@given(
    all_messages=st.lists(_MESSAGES, max_size=4),
    seed=st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    fields=_FIELDS,
    has_logprobs=st.booleans(),
    is_encoded=st.booleans(),
)
def test_request_bodies_equal_the_whole_body_encoded_at_once(
    all_messages: list[list[dict[str, str]]],
    seed: int | None,
    fields: dict[str, Any],
    has_logprobs: bool,
    is_encoded: bool,
) -> None:
    settings = dataclasses.replace(_SETTINGS, request_fields=fields, has_logprobs=has_logprobs)
    bodies = RequestBodies(settings)
    for messages in [*all_messages, *all_messages]:
        request = Request(
            key="r",
            messages=messages,
            seed=seed,
            encoded=orjson.dumps(messages) if is_encoded else None,
        )
        assert bodies.encode(request) == orjson.dumps(_body(request, settings))


def test_request_bodies_first_message_of_another_text_or_role_is_encoded_anew() -> None:
    bodies = RequestBodies(_SETTINGS)
    group = "You judge notes."
    for role, text in [("system", group), ("system", group), ("user", group), ("user", "other")]:
        messages = [{"role": role, "content": text}, {"role": "user", "content": "a record"}]
        body = orjson.loads(bodies.encode(Request(key="r", messages=messages)))
        assert body["messages"] == messages


def test_request_bodies_messages_encoded_by_the_caller_are_taken_as_they_are() -> None:
    messages = [{"role": "user", "content": "a record"}]
    encoded = b'[ {"role":"user",   "content":"a record"} ]'
    body = RequestBodies(_SETTINGS).encode(Request(key="r", messages=messages, encoded=encoded))
    assert encoded in body
    assert orjson.loads(body)["messages"] == messages


def test_request_bodies_beginning_is_gone_on_from_by_one_token() -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 64}
    settings = dataclasses.replace(_SETTINGS, request_fields=fields, has_logprobs=True)
    messages = [{"role": "user", "content": "a record"}]
    request = Request(key="r", messages=messages, seed=3, beginning="[A1] 1", encoded=b"[]")
    assert orjson.loads(RequestBodies(settings).encode(request)) == {
        "model": 'a "model"',
        "messages": [*messages, {"role": "assistant", "content": "[A1] 1"}],
        "temperature": 0.7,
        "top_p": 0.95,
        "seed": 3,
        "max_completion_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


@pytest.mark.parametrize("place", [0, 1])
def test_request_bodies_half_a_character_is_refused_and_the_next_request_is_not(place: int) -> None:
    bodies = RequestBodies(_SETTINGS)
    messages = [{"role": "system", "content": "ok"}, {"role": "user", "content": "ok"}]
    broken = [dict(message) for message in messages]
    broken[place]["content"] = "\ud800"
    for _ in range(2):
        with pytest.raises(orjson.JSONEncodeError):
            bodies.encode(Request(key="r", messages=broken))
        body = bodies.encode(Request(key="r", messages=messages))
        assert orjson.loads(body)["messages"] == messages
