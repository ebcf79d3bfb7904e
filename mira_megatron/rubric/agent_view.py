"""The turns of a long agent trace that a judge is shown.

A turn is a message with the tool results that answer its calls. Shown are, in this order of
precedence, and each in its place in the trace:

1. the task: the first system and the first user message;
2. the last two turns;
3. turns with a failing tool call, from the latest backwards, until they no longer fit;
4. further turns from the last backwards, so that the oldest are left out first.

The turns of 1 to 3 are cut where they do not fit whole: the long messages, each to the same number
of tokens, by head and tail. Those of 4 are shown only where room is left, and a single message gets
no more than an eighth of it. Where turns are missing, a system message says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import orjson

from mira_megatron.corpus.renderers import TOOL_ROLES, Payload
from mira_megatron.rubric.agent_features import is_failure
from mira_megatron.rubric.token_cuts import (
    MeasuredText,
    TokenCounter,
    fair_shares,
    largest_fitting,
    left_out,
)

_NUM_LAST_TURNS = 2
# Turns that must be shown are added while each of their messages can have this share of the limit.
_MIN_SHARE_OF_MESSAGE = 1 / 32
_MAX_SHARE_OF_FURTHER_MESSAGE = 1 / 8
_MIN_CUT_CHARS = 100  # a shorter text is not worth its note
_MAX_DEPTH = 100  # texts nested deeper inside arguments are not cut
_LEAST = '{"messages":[{"content":"","role":"user"}]}'


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    indexes: tuple[int, ...]  # of its messages
    is_failing: bool


class _Message:
    """One message with its tokens, and what it looks like when cut."""

    def __init__(self, message: Payload, counter: TokenCounter) -> None:
        self._message = message
        self._counter = counter
        self.whole = _dumps(message)
        self.num_tokens = counter.count(self.whole) + 1  # for the comma

    def num_tokens_at(self, max_tokens: int) -> int:
        """Returns `max_tokens`, or less where the message is shorter, or the least it can have."""
        if self.num_tokens <= max_tokens:
            return self.num_tokens
        return max(max_tokens, self.least_tokens)

    @cached_property
    def least_tokens(self) -> int:
        """Returns the length of the shortest form of the message."""
        return min(self.num_tokens, self._counter.count(self._forms[-1](0)) + 1)

    def cut(self, max_tokens: int) -> str:
        """Returns the message in at most so many tokens, which are no less than the least.

        A cut message keeps what a model is trained on; other keys are left out. Arguments that
        are a JSON object stay one: the texts inside are cut, or else they give way to a note.
        """
        if self.num_tokens <= max_tokens:
            return self.whole
        for show in self._forms:
            fitting = largest_fitting(show, max_tokens - 1, self._counter)
            if fitting is not None:
                return fitting[0]
        return self._forms[-1](0)

    @cached_property
    def _forms(self) -> tuple[Callable[[int], str], ...]:
        bare = _without_arguments(self._message, self._counter)
        return tuple(
            partial(_show_texts, message, [self._counter.measure(text) for text in texts])
            for message in (self._message, bare)
            if (texts := _long_texts(message)) or message is bare
        )


class _Selection:
    """The messages shown so far, and what they and the notes between them cost."""

    def __init__(self, messages: Sequence[_Message], note_tokens: int, budget: int) -> None:
        self._messages = messages
        self._note_tokens = note_tokens
        self._budget = budget
        self.max_tokens_by_index: dict[int, int] = {}
        # One beyond each end counts as shown, so that every run of others is between two shown.
        self._is_shown = bytearray([1, *bytes(len(messages)), 1])
        self._num_gaps = 1
        self._num_tokens = 0

    @property
    def room(self) -> int:
        """Returns the tokens that are left for messages."""
        return self._budget - self._num_gaps * self._note_tokens - self._num_tokens

    def add(self, turn: _Turn, max_message_tokens: int) -> bool:
        """Returns whether the turn fits, each message in at most so many tokens; then it is shown.

        A turn that is shown already stays as it is.
        """
        new = [index for index in turn.indexes if index not in self.max_tokens_by_index]
        before = self._num_gaps, self._num_tokens
        for index in new:
            self._num_gaps += 1 - self._is_shown[index] - self._is_shown[index + 2]
            self._is_shown[index + 1] = 1
            self._num_tokens += self._messages[index].num_tokens_at(max_message_tokens)
        if self.room < 0:
            self._num_gaps, self._num_tokens = before
            for index in new:
                self._is_shown[index + 1] = 0
            return False
        self.max_tokens_by_index |= dict.fromkeys(new, max_message_tokens)
        return True

    def spread(self) -> None:
        """Gives what is left of the budget to the messages that are cut, as evenly as can be."""
        shown = {
            index: self._messages[index].num_tokens_at(max_tokens)
            for index, max_tokens in self.max_tokens_by_index.items()
        }
        wanted = [self._messages[index].num_tokens - num for index, num in shown.items()]
        shares = fair_shares(wanted, self.room)
        self._num_tokens += sum(shares)
        self.max_tokens_by_index = {
            index: num + share for (index, num), share in zip(shown.items(), shares, strict=True)
        }


def show_turns(messages: Sequence[Payload], counter: TokenCounter) -> Callable[[int], str]:
    """Returns what makes the JSON of a payload of these messages for a budget of tokens."""
    measured = [_Message(message, counter) for message in messages]
    turns = _turns(messages)
    task = _task(messages, turns)
    num_tokens = sum(message.num_tokens for message in measured)
    note_tokens = counter.count(_note(num_tokens, len(messages))) + 1

    def show(budget: int) -> str:
        if budget <= 0:
            return _LEAST
        selection = _Selection(measured, note_tokens, budget)
        least = max(int(budget * _MIN_SHARE_OF_MESSAGE), 2 * note_tokens)
        for turn in (*task, *reversed(turns[-_NUM_LAST_TURNS:])):
            selection.add(turn, least)
        failing = (turn for turn in reversed(turns) if turn.is_failing)
        _add_while_fitting(selection, failing, least)
        selection.spread()
        most = int(budget * _MAX_SHARE_OF_FURTHER_MESSAGE)
        _add_while_fitting(selection, reversed(turns), most)
        return _assemble(measured, selection.max_tokens_by_index)

    return show


def _add_while_fitting(selection: _Selection, turns: Iterator[_Turn], max_tokens: int) -> None:
    """Adds turns up to the first that does not fit: an older one instead would mislead."""
    for turn in turns:
        if not selection.add(turn, max_tokens):
            break


def _turns(messages: Sequence[Payload]) -> list[_Turn]:
    """Returns the turns in the order of their first messages.

    A result belongs to the latest call of its id, else to the latest message with calls.
    """
    turns: list[list[int]] = []
    turn_by_call_id: dict[object, list[int]] = {}
    calling: list[int] | None = None
    for index, message in enumerate(messages):
        is_result = message["role"] in TOOL_ROLES
        turn = turn_by_call_id.get(str(message.get("tool_call_id")), calling)
        if is_result and turn is not None:
            turn.append(index)
            continue
        turns.append([index])
        for call in message.get("tool_calls", ()):
            calling = turns[-1]
            turn_by_call_id[str(call.get("id"))] = turns[-1]
    return [
        _Turn(
            indexes=tuple(indexes),
            is_failing=any(_is_failing_result(messages[index]) for index in indexes),
        )
        for indexes in turns
    ]


def _is_failing_result(message: Payload) -> bool:
    return message["role"] in TOOL_ROLES and is_failure(message.get("content") or "")


def _task(messages: Sequence[Payload], turns: Sequence[_Turn]) -> list[_Turn]:
    """Returns the turns of the first system and the first user message, those there are."""
    first: dict[str, _Turn] = {}
    for turn in turns:
        role = messages[turn.indexes[0]]["role"]
        first.setdefault("system" if role == "developer" else role, turn)
    return [first[role] for role in ("user", "system") if role in first]


def _assemble(messages: Sequence[_Message], max_tokens_by_index: Mapping[int, int]) -> str:
    """Returns the payload's JSON, with a note wherever messages are missing."""
    written: list[str] = []
    for is_shown, run in groupby(range(len(messages)), key=max_tokens_by_index.__contains__):
        indexes = list(run)
        if is_shown:
            written += [messages[index].cut(max_tokens_by_index[index]) for index in indexes]
        else:
            tokens = sum(messages[index].num_tokens for index in indexes)
            written.append(_note(tokens, len(indexes)))
    return f'{{"messages":[{",".join(written)}]}}'


def _note(num_tokens: int, num_messages: int) -> str:
    return _dumps({"role": "system", "content": left_out(num_tokens, num_messages).strip()})


def _show_texts(message: Payload, texts: Sequence[MeasuredText], budget: int) -> str:
    shares = fair_shares([text.num_tokens for text in texts], budget)
    cut = iter([text.cut(share) for text, share in zip(texts, shares, strict=True)])
    return _dumps(_with_texts(message, lambda _: next(cut)))


def _without_arguments(message: Payload, counter: TokenCounter) -> Payload:
    """Returns the message with long arguments as a note: JSON if they were, and else not."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        written = call["function"]["arguments"]
        if len(written) >= _MIN_CUT_CHARS:
            note = left_out(counter.count(written)).strip()
            written = note if _object(written) is None else _dumps({"…": note})
        calls.append({**call, "function": {**call["function"], "arguments": written}})
    return {**message, "tool_calls": calls}


def _long_texts(message: Payload) -> list[str]:
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    _with_texts(message, collect)
    return texts


def _with_texts(message: Payload, change: Callable[[str], str]) -> Payload:
    """Returns what a model is trained on of a message, its long texts changed, always in order."""
    changed: Payload = {
        key: message[key] for key in ("role", "name", "tool_call_id") if key in message
    }
    for key in ("reasoning_content", "content"):
        if key in message:
            changed[key] = _change_texts(message[key], change)
    if "tool_calls" in message:
        changed["tool_calls"] = [_with_call_texts(call, change) for call in message["tool_calls"]]
    return changed


def _with_call_texts(call: Payload, change: Callable[[str], str]) -> Payload:
    function = call["function"]
    written = function["arguments"]
    arguments = _object(written)
    if arguments is None:
        written = _change_texts(written, change)
    else:
        written = _dumps(_change_texts(arguments, change))
    kept: Payload = {key: call[key] for key in ("id", "type") if key in call}
    return {**kept, "function": {"name": function["name"], "arguments": written}}


def _object(written: str) -> Payload | None:
    try:
        value = orjson.loads(written)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _change_texts(value: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    """Returns a JSON value with its long texts changed; keys, numbers and short texts stay."""
    match value:
        case str():
            return change(value) if len(value) >= _MIN_CUT_CHARS else value
        case dict() if depth < _MAX_DEPTH:
            return {key: _change_texts(each, change, depth + 1) for key, each in value.items()}
        case list() if depth < _MAX_DEPTH:
            return [_change_texts(each, change, depth + 1) for each in value]
        case _:
            return value


def _dumps(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
