"""A tool-calling trace as its calls, each with the result it got, and what was said.

Accepts what public agent data holds: a message list or {"messages": [...]}, content as a string,
null or parts, arguments as a JSON string or an object, and call ids that are missing or used twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from mira_megatron.rubric.text_features import word_list

_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One tool call as it was written."""

    name: str
    arguments: str  # canonical JSON where they are one JSON object, else as written
    text: str  # the values in the arguments
    num_values: int  # JSON values found one after the other; 0 = not JSON
    is_valid: bool  # exactly one JSON object
    has_text: bool  # the calling message also says something
    num_argument_words: int
    num_grounded_words: int  # … of these, seen earlier in a message or result
    num_resulting_words: int  # … of these, seen first in the result of an earlier call
    num_new_words: int  # … of these, in no earlier call


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What happened, in order."""

    calls: tuple[Call, ...]
    results: tuple[str | None, ...]  # of each call; None = no result came
    num_orphan_results: int  # results without a call
    num_early_messages: int  # assistant texts before the results of earlier calls had come
    context: str  # system and developer messages
    users: tuple[str, ...]
    spoken: tuple[str, ...]  # assistant texts that are not blank
    last_role: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message:
    role: str
    text: str
    calls: tuple[object, ...]
    call_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _SeenWords:
    """What a call can build on; grows while the trace is read."""

    told: set[str]  # by messages
    resulting: set[str]  # from tools
    called: set[str]  # in arguments of calls


def read_trace(payload: object) -> Trace:
    """Returns the trace of a parsed payload.

    Raises ValueError where it is not a list of messages with roles, naming the message.
    """
    messages = _messages(payload)
    calls: list[Call] = []
    results: list[str | None] = []
    waiting: list[tuple[str, int]] = []  # call id and index of calls without a result
    num_orphan_results = num_early_messages = 0
    seen = _SeenWords(told=set(), resulting=set(), called=set())
    for message in messages:
        if message.role in ("tool", "function"):
            index = _take_waiting(waiting, message.call_id)
            if index is None:
                num_orphan_results += 1
            else:
                results[index] = message.text
        elif message.role == "assistant":
            num_early_messages += bool(waiting)
            for call in message.calls:
                waiting.append((_text_of(call, "id"), len(calls)))
                calls.append(_call(call, bool(message.text.strip()), seen))
                results.append(None)
        words = word_list(message.text)
        if message.role in ("tool", "function"):
            seen.resulting.update(words)
        else:
            seen.told.update(words)
    return Trace(
        calls=tuple(calls),
        results=tuple(results),
        num_orphan_results=num_orphan_results,
        num_early_messages=num_early_messages,
        context="\n".join(_texts(messages, "system", "developer")),
        users=tuple(_texts(messages, "user")),
        spoken=tuple(text for text in _texts(messages, "assistant") if text.strip()),
        last_role=messages[-1].role,
    )


def _texts(messages: Sequence[_Message], *roles: str) -> list[str]:
    return [message.text for message in messages if message.role in roles]


def _take_waiting(waiting: list[tuple[str, int]], call_id: str) -> int | None:
    """Removes and returns the call a result belongs to: by its id, else the earliest waiting."""
    if not waiting:
        return None
    matches = (position for position, (key, _) in enumerate(waiting) if key == call_id)
    return waiting.pop(next(matches, 0))[1]


def _messages(payload: object) -> list[_Message]:
    entries = payload.get("messages") if isinstance(payload, Mapping) else payload
    if not isinstance(entries, list) or not entries:
        raise ValueError("the payload is neither a list of messages nor an object with one")
    messages = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("role"), str):
            raise ValueError(f"message {number} is not an object with a role")
        calls = entry.get("tool_calls")
        messages.append(
            _Message(
                role=entry["role"],
                text=_content_text(entry.get("content")),
                calls=tuple(calls) if isinstance(calls, list) else (),
                call_id=_text_of(entry, "tool_call_id"),
            )
        )
    return messages


def _content_text(content: object) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "\n".join(_text_of(part, "text") or _as_text(part) for part in content)
        case _:
            return _as_text(content)


def _as_text(content: object) -> str:
    return content if isinstance(content, str) else _json(content)


def _text_of(entry: object, key: str) -> str:
    value = entry.get(key) if isinstance(entry, Mapping) else None
    return value if isinstance(value, str) else ""


def _call(entry: object, has_text: bool, seen: _SeenWords) -> Call:
    """Returns the call, and adds its words to those seen."""
    function = entry.get("function") if isinstance(entry, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    written = "" if arguments is None else _as_text(arguments)
    num_values, parsed = _values(written)
    is_valid = num_values == 1 and isinstance(parsed, dict)
    text = "\n".join(_leaves(parsed)) if is_valid else written
    words = word_list(text)
    num_resulting = sum(word in seen.resulting and word not in seen.told for word in words)
    num_new = sum(word not in seen.called for word in words)
    seen.called.update(words)
    return Call(
        name=_text_of(function, "name"),
        arguments=_json(parsed) if is_valid else written,
        text=text,
        num_values=num_values,
        is_valid=is_valid,
        has_text=has_text,
        num_argument_words=len(words),
        num_grounded_words=sum(word in seen.told for word in words) + num_resulting,
        num_resulting_words=num_resulting,
        num_new_words=num_new,
    )


def _values(written: str) -> tuple[int, object]:
    """Returns how many JSON values stand one after the other, and the value where it is one."""
    try:
        return 1, orjson.loads(written)
    except orjson.JSONDecodeError:
        pass
    decoder, position, count = json.JSONDecoder(), _skip_space(written, 0), 0
    try:
        while position < len(written):
            _, position = decoder.raw_decode(written, position)
            position = _skip_space(written, position)
            count += 1
    except (ValueError, RecursionError):
        return 0, None
    return count, None


def _skip_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _json(value: object) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError("a value is nested too deeply to be written as JSON") from error


def _leaves(value: object) -> list[str]:
    """Returns the scalars inside a JSON value as text, keys left out."""
    leaves: list[str] = []
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as mapping:
                waiting.extend(mapping[key] for key in sorted(mapping))
            case list() as items:
                waiting.extend(items)
            case str() as text:
                leaves.append(text)
            case bool() | None:
                pass
            case number:
                leaves.append(str(number))
    return leaves
