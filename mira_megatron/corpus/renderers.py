"""Turn one row's fields into a checked payload, and a payload into the text that is trained on.

Questions, answers and agent messages are written as Qwen's chat template writes them (ChatML). The
renderer remembers which characters are its own control tokens: the same strings inside untrusted
content get no span, so the tokenizer encodes them as ordinary text and no false document end or
turn can be smuggled in.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

# A payload is JSON, so its values have no narrower type than Any.
Payload = dict[str, Any]

FIELDS_BY_FAMILY: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "qa": ("question", "answer"),
    "qa_with_think": ("question", "think", "answer"),
    "agent": ("messages",),
}

# Qwen's template knows three speakers: it shows tool results to the model in a user turn, and has
# no turn for OpenAI's newer name of the system role.
SPEAKER_BY_ROLE: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}
TOOL_ROLES = ("tool", "function")


class ControlToken(StrEnum):
    """The strings a tokenizer must encode as one control token when the renderer wrote them."""

    IM_START = "<|im_start|>"
    IM_END = "<|im_end|>"
    THINK = "<think>"
    END_THINK = "</think>"
    TOOL_CALL = "<tool_call>"
    END_TOOL_CALL = "</tool_call>"
    TOOL_RESPONSE = "<tool_response>"
    END_TOOL_RESPONSE = "</tool_response>"


class RowError(ValueError):
    """One row cannot become a record: a short reason for counting, a detail without row text."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """The text of one record and which of its characters are control tokens."""

    text: str
    control_spans: tuple[int, ...]  # start, end, start, end …: ascending character offsets


def payload_from_fields(family: str, fields: Mapping[str, object]) -> Payload:
    """The payload of one record, checked; RowError where a field is missing or of a wrong type.

    Agent messages come back in one form: `content` is a string or None, an old `function_call` has
    become `tool_calls`, and `arguments` is the string the model wrote, valid JSON or not. All other
    keys of a message are kept, except those that are null.
    """
    if family == "agent":
        messages = _typed(fields.get("messages"), list, "messages")
        return {"messages": [_message(m, f"messages.{i}") for i, m in enumerate(messages)]}
    return {name: _typed(fields.get(name), str, name) for name in FIELDS_BY_FAMILY[family]}


def render(family: str, payload: Mapping[str, Any]) -> Rendered:
    """The text of a payload that `payload_from_fields` made, with the spans of control tokens."""
    match family:
        case "text":
            return Rendered(text=payload["text"], control_spans=())
        case "qa":
            answer = iter([payload["answer"]])
        case "qa_with_think":
            answer = itertools.chain(_think(payload["think"]), [payload["answer"]])
        case "agent":
            return _assemble(_conversation(payload["messages"]))
        case _:
            raise ValueError(f"family={family!r} has no renderer; one of {list(FIELDS_BY_FAMILY)}")
    return _assemble([*_turn("user", [payload["question"]]), *_turn("assistant", answer)])


def _typed(value: object, expected: type, where: str) -> Any:
    if value is None:
        raise RowError("missing_field", f"{where} is absent or null")
    if not isinstance(value, expected):
        found = type(value).__name__
        raise RowError("wrong_type", f"{where}: expected {expected.__name__}, found {found}")
    return value


def _without_nulls(value: object, where: str) -> Payload:
    """A copy of an object without its null entries: Parquet writes every absent key as null."""
    return {k: v for k, v in _typed(value, dict, where).items() if v is not None}


def _message(value: object, where: str) -> Payload:
    message = _without_nulls(value, where)
    role = _typed(message.get("role"), str, f"{where}.role")
    if role not in SPEAKER_BY_ROLE:
        raise RowError("wrong_type", f"{where}.role is none of {', '.join(SPEAKER_BY_ROLE)}")
    calls = list(_typed(message.pop("tool_calls", []), list, f"{where}.tool_calls"))
    if "function_call" in message:
        calls.append({"function": message.pop("function_call")})
    if calls:
        message["tool_calls"] = [
            _tool_call(call, f"{where}.tool_calls.{i}") for i, call in enumerate(calls)
        ]
    if "reasoning_content" in message:
        _typed(message["reasoning_content"], str, f"{where}.reasoning_content")
    return {**message, "content": _content(message.get("content"), f"{where}.content")}


def _content(value: object, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    parts = [_typed(part, dict, where) for part in _typed(value, list, where)]
    return "".join(_typed(part.get("text"), str, f"{where}.text") for part in parts)


def _tool_call(value: object, where: str) -> Payload:
    call = _without_nulls(value, where)
    # Hugging Face datasets also write a call flat: {name, arguments} without `function`.
    function = call.pop("function", None)
    if function is None:
        function = {key: call.pop(key) for key in ("name", "arguments") if key in call}
    function = _without_nulls(function, f"{where}.function")
    _typed(function.get("name"), str, f"{where}.function.name")
    if not isinstance(function.setdefault("arguments", ""), str):
        function["arguments"] = _json(function["arguments"])
    return {"type": "function", **call, "function": function}


def _json(value: object) -> str:
    """JSON as chat templates write it: readable separators, keys in the order given."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError("invalid_json", "tool arguments cannot be written as JSON") from error


def _arguments(written: str) -> str:
    """A tool call's arguments as JSON: those that parse as an object verbatim, others quoted.

    Broken arguments are a quality signal, so nothing is repaired.
    """
    try:
        is_object = isinstance(orjson.loads(written), dict)
    except orjson.JSONDecodeError:
        is_object = False
    return written.strip() if is_object else _json(written)


def _conversation(messages: Iterable[Payload]) -> Iterator[str]:
    """Turns in order; neighbouring tool results share one turn, as in Qwen's template."""
    for is_tool, neighbours in itertools.groupby(messages, key=lambda m: m["role"] in TOOL_ROLES):
        if is_tool:
            yield from _turn("user", _tool_responses(neighbours))
            continue
        for message in neighbours:
            yield from _turn(SPEAKER_BY_ROLE[message["role"]], _message_body(message))


def _message_body(message: Payload) -> Iterator[str]:
    if "reasoning_content" in message:
        yield from _think(message["reasoning_content"])
    content = message["content"] or ""
    yield content
    for i, call in enumerate(message.get("tool_calls", ())):
        if i > 0 or content:
            yield "\n"
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield ControlToken.TOOL_CALL
        yield f'\n{{"name": {_json(name)}, "arguments": {_arguments(arguments)}}}\n'
        yield ControlToken.END_TOOL_CALL


def _tool_responses(messages: Iterable[Payload]) -> Iterator[str]:
    for i, message in enumerate(messages):
        if i > 0:
            yield "\n"
        yield ControlToken.TOOL_RESPONSE
        yield f"\n{message['content'] or ''}\n"
        yield ControlToken.END_TOOL_RESPONSE


def _turn(speaker: str, body: Iterable[str]) -> Iterator[str]:
    yield ControlToken.IM_START
    yield f"{speaker}\n"
    yield from body
    yield ControlToken.IM_END
    yield "\n"


def _think(thought: str) -> Iterator[str]:
    yield ControlToken.THINK
    yield f"\n{thought}\n"
    yield ControlToken.END_THINK
    yield "\n\n"


def _assemble(pieces: Iterable[str]) -> Rendered:
    """Join the pieces; the spans are those of the pieces that are ControlTokens."""
    parts = list(pieces)
    spans: list[int] = []
    position = 0
    for part in parts:
        end = position + len(part)
        if isinstance(part, ControlToken):
            spans += (position, end)
        position = end
    return Rendered(text="".join(parts), control_spans=tuple(spans))
