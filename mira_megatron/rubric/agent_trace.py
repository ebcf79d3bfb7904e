"""A tool-calling trace as its calls, each with the result it got, and what was said.

Accepts what public agent data holds: a message list or {"messages": [...]}, content as a string,
null or parts, arguments as a JSON string or an object, and call ids that are missing or used twice.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from mira_megatron.rubric.text_features import word_list

_SPACE = re.compile(r"\s*")
_FIGURE = re.compile(r"[^\W\d_]{0,20}\d[^\W_]{1,40}")  # one digit alone says little
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_CLOSING_CHARS = 200  # of a message, where it says what comes next
# What the assistant does itself and now; an offer ("would you like me to") or a question is none.
_ANNOUNCEMENT = re.compile(
    r"\b(?:i'?ll (?:now|proceed|go ahead)|i will (?:now|proceed|go ahead)|let me(?! know)|"
    r"i'?m going to|i am going to|(?:one|just a) moment|please (?:hold|wait|bear with me)|"
    r"give me a (?:moment|second))\b(?![^?]{0,200}\?)|我现在|请稍等"
)
# What waits for the user is an offer, too.
_CONDITION = re.compile(
    r"\b(?:once|if|when|after|confirm|please (?!hold|wait|bear)\w+|would you|could you)\b"
)
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")


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
    num_users: int  # user messages before it


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What happened, in order."""

    calls: tuple[Call, ...]
    results: tuple[str | None, ...]  # of each call; None = no result came
    num_orphan_results: int  # results without a call
    num_announcements: int  # assistant texts that end on a step about to be taken
    num_idle_announcements: int  # … of these, without a tool call in or right after the message
    num_early_messages: int  # assistant texts before the results of earlier calls had come
    context: str  # system and developer messages
    users: tuple[str, ...]
    spoken: tuple[str, ...]  # assistant texts that are not blank
    num_figures: int  # different numbers and codes with digits in assistant texts
    num_grounded_figures: int  # … of these, seen before in another's message or a result
    last_role: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message:
    role: str
    text: str
    calls: tuple[object, ...]
    call_id: str


@dataclass(kw_only=True, slots=True)
class _Seen:
    """What a call or a message can build on; grows while the trace is read."""

    told: set[str] = field(default_factory=set)  # by messages
    resulting: set[str] = field(default_factory=set)  # from tools
    called: set[str] = field(default_factory=set)  # in arguments of calls
    # Numbers and codes with digits, in messages of others and in results.
    figures: set[str] = field(default_factory=set)
    num_users: int = 0


@dataclass(kw_only=True, slots=True)
class _Waiting:
    """Calls without a result; every step takes constant time, however many there are."""

    open: OrderedDict[int, None] = field(default_factory=OrderedDict)  # indices, earliest first
    by_id: defaultdict[str, deque[int]] = field(default_factory=lambda: defaultdict(deque))

    def add(self, call_id: str, index: int) -> None:
        self.open[index] = None
        self.by_id[call_id].append(index)

    def take(self, call_id: str) -> int | None:
        """Removes and returns the call a result belongs to: by its id, else the earliest."""
        if not self.open:
            return None
        same_id = self.by_id.get(call_id, deque())
        while same_id:
            index = same_id.popleft()
            if index in self.open:
                del self.open[index]
                return index
        return self.open.popitem(last=False)[0]


def read_trace(payload: object) -> Trace:
    """Returns the trace of a parsed payload.

    Raises ValueError where it is not a list of messages with roles, naming the message.
    """
    messages = _messages(payload)
    calls: list[Call] = []
    results: list[str | None] = []
    waiting = _Waiting()
    num_orphan_results = num_early_messages = 0
    seen = _Seen()
    figures: dict[str, bool] = {}  # of the assistant -> whether it was seen before
    for message in messages:
        if message.role in ("tool", "function"):
            index = waiting.take(message.call_id)
            if index is None:
                num_orphan_results += 1
            else:
                results[index] = message.text
        elif message.role == "assistant":
            num_early_messages += bool(waiting.open)
            for figure in _figures(message.text):
                figures.setdefault(figure, figure in seen.figures)
            for call in message.calls:
                waiting.add(_text_of(call, "id"), len(calls))
                calls.append(_call(call, bool(message.text.strip()), seen))
                results.append(None)
        _remember(message, seen)
    announced = _announcements(messages)
    return Trace(
        calls=tuple(calls),
        results=tuple(results),
        num_orphan_results=num_orphan_results,
        num_announcements=len(announced),
        num_idle_announcements=sum(announced),
        num_early_messages=num_early_messages,
        context="\n".join(_texts(messages, "system", "developer")),
        users=tuple(_texts(messages, "user")),
        spoken=tuple(text for text in _texts(messages, "assistant") if text.strip()),
        num_figures=len(figures),
        num_grounded_figures=sum(figures.values()),
        last_role=messages[-1].role,
    )


def _announcements(messages: Sequence[_Message]) -> list[bool]:
    """Returns of each announced step whether no tool call follows it."""
    following: Sequence[_Message | None] = [*messages[1:], None]
    return [
        not message.calls and not (after and after.role == "assistant" and after.calls)
        for message, after in zip(messages, following, strict=True)
        if message.role == "assistant"
        and _announces(message.text[-_CLOSING_CHARS:].lower().replace("’", "'"))
    ]


def _announces(closing: str) -> bool:
    return _ANNOUNCEMENT.search(closing) is not None and _CONDITION.search(closing) is None


def _remember(message: _Message, seen: _Seen) -> None:
    words = word_list(message.text)
    if message.role in ("tool", "function"):
        seen.resulting.update(words)
    else:
        seen.told.update(words)
    if message.role != "assistant":
        seen.figures.update(_figures(message.text))
    seen.num_users += message.role == "user"


def _figures(text: str) -> set[str]:
    """Returns the numbers and codes of two and more characters; 1,200 is 1200 and 20th is 20."""
    return set(_FIGURE.findall(_ORDINAL.sub("", _THOUSANDS.sub("", text.lower()))))


def _texts(messages: Sequence[_Message], *roles: str) -> list[str]:
    return [message.text for message in messages if message.role in roles]


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


def _call(entry: object, has_text: bool, seen: _Seen) -> Call:
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
        num_users=seen.num_users,
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
