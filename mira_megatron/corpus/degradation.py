"""Ways to spoil a record, so that an ablation has something to find: synthetic defects.

    truncated      its end is lost: 30 to 70 % are left, cut in mid-word where there is a word
    shuffled       its lines in another order, or its words where it has one line
    duplicated     a run of its lines stands there again and again: half of its length is added
    machine_made   what a Markov chain of order 1 over its own tokens writes, of the same length

Of a question only the answer is spoiled, of one with a thought the thought or the answer; messages
are spoiled as a conversation (degraded_messages.py). Such defects are easier to see than those that
a corpus comes with: who tells them apart has shown little, who does not has shown much.

Every choice is drawn from a hash, never from Python's `random`, whose streams are not promised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import TypeVar

import xxhash

TRUNCATED, SHUFFLED, DUPLICATED, MACHINE_MADE = WAYS = (
    "truncated",
    "shuffled",
    "duplicated",
    "machine_made",
)
# What is spoiled of a payload without messages, one of these.
PARTS_BY_FAMILY: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "qa": ("answer",),
    "qa_with_think": ("think", "answer"),
}
_MAX_RUN_UNITS = 8  # lines (or words, or characters) that are repeated together
RUNS_IN_WHOLE = 3  # what is repeated is at most a third: else half could not be added, about
_TOKEN = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")  # of the chain; together they are the text

Item = TypeVar("Item")


class Draws:
    """A sequence of choices that a key decides, the same on every machine."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._num_drawn = 0

    def below(self, end: int) -> int:
        """Returns a number in [0, end)."""
        return self._next() % end

    def order(self, items: Sequence[Item]) -> list[Item]:
        """Returns the items in any order."""
        keyed = sorted((self._next(), place) for place in range(len(items)))
        return [items[place] for _, place in keyed]

    def other_order(self, items: Sequence[Item]) -> list[Item]:
        """Returns the items in an order in which they read unlike now, if there is one."""
        order = self.order(items)
        return [*items[1:], *items[:1]] if order == list(items) else order

    def _next(self) -> int:
        self._num_drawn += 1
        return xxhash.xxh3_64_intdigest(self._key, seed=self._num_drawn)


def degraded_text(text: str, way: str, draws: Draws) -> str | None:
    """Returns the text spoiled in one way; None where it is too short or too uniform for that."""
    match way:
        case "truncated":
            return truncated(text, draws)
        case "shuffled":
            return _shuffled(text, draws)
        case "duplicated":
            return _duplicated(text, draws)
        case "machine_made":
            return machine_made(text, len(text), draws) if text else None
    raise ValueError(f"way={way!r} is none of {', '.join(WAYS)}")


def middle(num: int, draws: Draws) -> int | None:
    """Returns a number from 30 to 70 % of `num`, at least 1 and below it; None if there is none."""
    low, high = _middle(num)
    return None if low > high else low + draws.below(high - low + 1)


def truncated(text: str, draws: Draws) -> str | None:
    """Returns 30 to 70 % of a text; None for a single character."""
    cut = middle(len(text), draws)
    if cut is None:
        return None
    low, high = _middle(len(text))
    nearby = chain(range(cut, high + 1), range(cut - 1, low - 1, -1))
    in_word = (place for place in nearby if text[place - 1 : place + 1].isalnum())
    return text[: next(in_word, cut)]


def machine_made(model_text: str, num_chars: int, draws: Draws) -> str:
    """Returns as many characters as asked for, from a chain that has read `model_text`."""
    tokens = _TOKEN.findall(model_text)
    following: dict[str, list[str]] = {}
    for token, after in pairwise(tokens):
        following.setdefault(token, []).append(after)
    written: list[str] = []
    num_written = 0
    options = tokens
    while num_written < num_chars:
        token = options[draws.below(len(options))]
        written.append(token)
        num_written += len(token)
        options = following.get(token, tokens)
    return "".join(written)[:num_chars]


def times_for_half(num_chars: int, num_repeated: int) -> int:
    """Returns how often something is to be repeated to add half of a length, at least once."""
    return max(1, (num_chars + num_repeated) // (2 * num_repeated))


def _middle(num: int) -> tuple[int, int]:
    return max(1, -(-3 * num // 10)), min(num - 1, 7 * num // 10)


def _shuffled(text: str, draws: Draws) -> str | None:
    body = text.rstrip("\n")
    for joint in ("\n", " "):
        units = body.split(joint)
        if len(set(units)) > 1:
            return joint.join(draws.other_order(units)) + text[len(body) :]
    return None


def _duplicated(text: str, draws: Draws) -> str | None:
    most = len(text) // RUNS_IN_WHOLE
    for joint in ("\n", " ", ""):
        units = text.split(joint) if joint else list(text)
        starts = [i for i, unit in enumerate(units) if unit.strip() and len(unit) <= most]
        if starts:
            start = starts[draws.below(len(starts))]
            num_units = 1 + draws.below(_MAX_RUN_UNITS)
            while num_units > 1 and len(joint.join(units[start : start + num_units])) > most:
                num_units -= 1
            end = start + num_units
            run = units[start:end]
            times = times_for_half(len(text), len(joint.join(run)) + len(joint))
            return joint.join([*units[:end], *(run * times), *units[end:]])
    return None
