"""A chat completion request: what it asks for, and its body as the bytes that are sent.

A body is joined from bytes. What all requests have in common is encoded once, so is the first
message where it is the same text as in the request before (a group's system message), and messages
that the caller has encoded are taken as they are. The bytes equal those of the whole body encoded
at once: fields in the same order, values in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from mira_megatron.scoring.expected_scores import TOP_LOGPROBS
from mira_megatron.scoring.prompt_losses import PromptLosses


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointSettings:
    """What to ask for, and how patiently; JudgeConfig has checked it."""

    model: str
    temperature: float
    top_p: float
    max_tokens: int
    max_in_flight: int  # at each endpoint
    timeout_seconds: float  # of one attempt
    max_retries: int  # attempts after the first; one that no server took (429, 503) is none
    request_fields: Mapping[str, Any] = field(default_factory=dict)  # null leaves a field out
    is_text: bool = False  # a prompt to go on from, at /completions, in place of messages
    losses: PromptLosses | None = None  # of the prompt are asked for, which is windows of tokens
    has_logprobs: bool = False  # of the likeliest tokens in every place, which a reply must have
    backoff_seconds: float = 0.5  # before the first retry; doubles each time
    # While no endpoint can be reached that could be before, or all say "later" (429, 503): a server
    # that loads a large model anew takes minutes.
    patience_seconds: float = 600.0
    probe_seconds: float = 5.0  # before an endpoint that failed is looked at; doubles each time
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One chat completion to ask for."""

    key: str  # returned with the answer
    messages: Sequence[Mapping[str, str]]
    seed: int | None = None
    beginning: str | None = None  # of an answer, which is to be gone on from by one token
    # `messages` as JSON, from a caller that has made it already; with settings.is_text the prompt.
    encoded: bytes | None = None


class RequestBodies:
    """Makes the bodies of requests with the same settings."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        fields = {**_fields(settings), **settings.request_fields}
        if settings.has_logprobs:
            fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        names = list(fields)
        place = names.index("seed")
        self._has_seed = "seed" not in settings.request_fields
        before = {name: fields[name] for name in names[:place]}
        after = {name: fields[name] for name in names[place:]}
        asked = b"prompt" if settings.is_text else b"messages"
        self._head = b'{"model":%b,"%b":' % (orjson.dumps(settings.model), asked)
        self._middle, self._tail = _members(before), _members(after) + b"}"
        self._first: tuple[str, str] = ("", "")  # role and content
        self._encoded_first = b""

    def encode(self, request: Request) -> bytes:
        """Returns the body; raises orjson.JSONEncodeError for text that is not valid Unicode."""
        if request.beginning is not None:
            return orjson.dumps(_going_on(request, request.beginning, self._settings))
        messages = request.encoded
        if messages is None:
            messages = self._encoded(request.messages)
        if request.seed is None or not self._has_seed:
            return b"".join((self._head, messages, self._middle, self._tail))
        seed = orjson.dumps(request.seed)
        return b"".join((self._head, messages, self._middle, b',"seed":', seed, self._tail))

    def _encoded(self, messages: Sequence[Mapping[str, str]]) -> bytes:
        first = messages[0]
        if len(messages) < 2 or list(first) != ["role", "content"]:
            return orjson.dumps(messages)
        role, content = first["role"], first["content"]
        # `is`: comparing the text itself is not worth it where it differs from record to record.
        if content is not self._first[1] or role != self._first[0]:
            self._encoded_first = orjson.dumps(first)
            self._first = role, content
        return b"[%b,%b" % (self._encoded_first, orjson.dumps(messages[1:])[1:])


def _fields(settings: EndpointSettings) -> dict[str, Any]:
    """Returns what follows the messages, in order; `seed` is each request's own."""
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": None,
    }


def _members(fields: Mapping[str, Any]) -> bytes:
    """Returns the fields that are not null as members of a JSON object, each after a comma."""
    given = {name: value for name, value in fields.items() if value is not None}
    return b"," + orjson.dumps(given)[1:-1] if given else b""


def _going_on(request: Request, beginning: str, settings: EndpointSettings) -> dict[str, Any]:
    """Returns the body that has vLLM and SGLang go on from the beginning of an answer."""
    fields = {**_fields(settings), "seed": request.seed, **settings.request_fields}
    if settings.has_logprobs:
        fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    bounds = ("max_tokens", "max_completion_tokens")
    fields |= {name: 1 for name in bounds if fields.get(name) is not None}
    body = {
        "model": settings.model,
        "messages": [*request.messages, {"role": "assistant", "content": beginning}],
        **fields,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    return {name: value for name, value in body.items() if value is not None}
