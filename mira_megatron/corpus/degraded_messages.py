"""Conversations spoiled in the ways of degradation.py; what comes back is a conversation again.

truncated      the messages after some point are lost; a tool result there is cut as well
shuffled       roles and tool calls stay, what is said changes places among messages of one role
duplicated     a turn of the assistant with its tool results is gone through again and again
machine_made   what assistant and tools say is what a chain over the whole conversation writes
"""

from __future__ import annotations

from collections.abc import Sequence

from mira_megatron.corpus.degradation import (
    RUNS_IN_WHOLE,
    Draws,
    machine_made,
    middle,
    times_for_half,
    truncated,
)
from mira_megatron.corpus.renderers import TOOL_ROLES, Payload, render

_ASSISTANT = "assistant"


def degraded_messages(messages: Sequence[Payload], way: str, draws: Draws) -> list[Payload] | None:
    """Returns the messages spoiled in one way; None where they are too few or too uniform."""
    match way:
        case "truncated":
            return _truncated(messages, draws)
        case "shuffled":
            return _shuffled(messages, draws)
        case "duplicated":
            return _duplicated(messages, draws)
        case "machine_made":
            return _machine_made(messages, draws)
    raise ValueError(f"way={way!r} is none of degradation.WAYS")


def _truncated(messages: Sequence[Payload], draws: Draws) -> list[Payload] | None:
    num_kept = middle(len(messages), draws)
    if num_kept is None:
        return None
    *before, last = messages[:num_kept]
    cut = truncated(last["content"] or "", draws) if last["role"] in TOOL_ROLES else None
    return [*before, last if cut is None else {**last, "content": cut}]


def _shuffled(messages: Sequence[Payload], draws: Draws) -> list[Payload] | None:
    shuffled = list(messages)
    for role in sorted({message["role"] for message in messages}):
        places = [i for i, message in enumerate(messages) if message["role"] == role]
        said = draws.other_order([messages[place]["content"] for place in places])
        for place, content in zip(places, said, strict=True):
            shuffled[place] = {**messages[place], "content": content}
    return None if shuffled == list(messages) else shuffled


def _duplicated(messages: Sequence[Payload], draws: Draws) -> list[Payload] | None:
    turns = _assistant_turns(messages)
    if not turns:
        return None
    total = _num_chars(messages)
    most = total // RUNS_IN_WHOLE
    short = [turn for turn in turns if _num_chars(messages[slice(*turn)]) <= most] or turns
    start, end = short[draws.below(len(short))]
    run = messages[start:end]
    times = times_for_half(total, _num_chars(run))
    return [*messages[:end], *(message for _ in range(times) for message in run), *messages[end:]]


def _machine_made(messages: Sequence[Payload], draws: Draws) -> list[Payload] | None:
    all_said = "\n".join(message["content"] or "" for message in messages)
    written = [
        {**message, "content": machine_made(all_said, len(message["content"]), draws)}
        if message["content"] and message["role"] in (_ASSISTANT, *TOOL_ROLES)
        else message
        for message in messages
    ]
    return None if written == list(messages) else written


def _assistant_turns(messages: Sequence[Payload]) -> list[tuple[int, int]]:
    """Returns where each message of the assistant begins, and where its tool results end."""
    turns = []
    for start, message in enumerate(messages):
        if message["role"] == _ASSISTANT:
            end = start + 1
            while end < len(messages) and messages[end]["role"] in TOOL_ROLES:
                end += 1
            turns.append((start, end))
    return turns


def _num_chars(messages: Sequence[Payload]) -> int:
    return len(render("agent", {"messages": messages}).text)
