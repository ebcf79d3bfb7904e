"""Expected scores: what a judge's probabilities say where its answer has the digits of a score.

A judge answers greedily; at the place where a slot's score begins, the log-probabilities of the
likeliest tokens give a distribution over 0 to 10, renormalised over those values. Its mean is the
slot's score. Tokens may hold more than the digits (" 7", "7/"), and a score of 10 may be one token
or a 1 and a 0: of a "1" alone, the token after it tells. Where the greedy answer has another score,
that token is another question to the judge, which is worth asking where "1" is likely enough:
unasked, all of it counts as 1, an error of at most 9 times the share of "1".
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

TOP_LOGPROBS = 20  # as many as vLLM gives unless it is told otherwise
# So the score of a slot whose "1" is not looked into is off by at most 0.045.
LARGEST_OPEN_SHARE = 0.005

_VALUES = {str(value): value for value in range(11)}
_DIGITS = re.compile(r"[0-9]+")
_SLOT = re.compile(r"^\[A([0-9]{1,3})\][^\n]*?: ?([0-9]{1,2})/10[ \t]*(?=$| — )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token, and what else might have stood there."""

    text: str
    top: tuple[tuple[str, float], ...] = ()  # the likeliest: text, log-probability; may be unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotOdds:
    """What the judge gave for the score of one slot; weights are in proportion to probabilities."""

    slot: int  # from 0
    score: int  # what it wrote
    token: int  # number of the token, from 0, in which the score begins
    before: str  # what that token holds before the score
    weights: dict[str, float]  # "0" to "10", but for a "1" that may go on
    one: float  # the weight of that "1": of 1 and 10 together
    zero_after_one: float | None  # the probability that it goes on as 10; None: not asked

    @property
    def is_open(self) -> bool:
        """Returns whether what follows "1" is worth asking."""
        whole = self.one + sum(self.weights.values())
        return self.zero_after_one is None and self.one > LARGEST_OPEN_SHARE * whole

    def with_zero(self, probability: float) -> SlotOdds:
        """Returns the same with the probability that a 0 follows "1"."""
        return replace(self, zero_after_one=probability)


def answer_odds(tokens: Sequence[Token]) -> tuple[SlotOdds, ...]:
    """Returns the odds of every slot that an answer has a score for, as far as they are known.

    `tokens` are those of the whole answer, without the token that ends it.
    """
    starts = [0, *accumulate(len(token.text) for token in tokens)]
    found = []
    for place in _SLOT.finditer("".join(token.text for token in tokens)):
        number = bisect_right(starts, place.start(2), hi=len(tokens)) - 1
        before = tokens[number].text[: place.start(2) - starts[number]]
        odds = _odds(tokens, number, before, slot=int(place[1]) - 1, score=int(place[2]))
        if odds is not None:
            found.append(odds)
    return tuple(found)


def zero_probability(top: Sequence[tuple[str, float]]) -> float:
    """Returns how likely the token after "1" makes it 10; `top` as in Token."""
    zeros = [
        math.exp(logprob)
        for text, logprob in top
        if (digits := _DIGITS.match(text)) and digits[0] == "0"
    ]
    return min(1.0, math.fsum(zeros))


def text_before_score(text: str, slot: int) -> str:
    """Returns an answer's text up to the score of a slot (from 0), which answer_odds has found."""
    return next(
        text[: place.start(2)] for place in _SLOT.finditer(text) if int(place[1]) - 1 == slot
    )


def expected_score(odds: SlotOdds) -> float:
    """Returns the mean of the scores by their probability, 0 to 10."""
    goes_on = odds.zero_after_one or 0.0
    weights = [odds.weights.get(written, 0.0) for written in _VALUES]
    weights[1] += odds.one * (1.0 - goes_on)
    weights[10] += odds.one * goes_on
    mean = math.fsum(value * weight for value, weight in enumerate(weights)) / math.fsum(weights)
    return min(10.0, max(0.0, mean))


def expected_scores(
    greedy: Sequence[float | None], found: Sequence[SlotOdds]
) -> tuple[tuple[float | None, ...], list[str]]:
    """Returns the expected score of every slot, and what is wrong where one cannot be had.

    `greedy` is what was read from the answer's text; None there stays None.
    """
    by_slot: dict[int, SlotOdds] = {}
    for odds in found:
        by_slot.setdefault(odds.slot, odds)
    scores: list[float | None] = []
    faults = []
    for slot, score in enumerate(greedy):
        known = by_slot.get(slot)
        is_same = known is not None and known.score == score
        scores.append(expected_score(known) if known is not None and is_same else None)
        if score is not None and not is_same:
            faults.append(f"A{slot + 1}: no probabilities for its score")
    return tuple(scores), faults


def _odds(
    tokens: Sequence[Token], number: int, before: str, *, slot: int, score: int
) -> SlotOdds | None:
    """Returns the odds at one place; None where no value is among the likeliest tokens."""
    seen = [
        (digits, is_whole, logprob)
        for text, logprob in tokens[number].top
        if math.isfinite(logprob) and (digits := _score_in(text, before)) is not None
        for is_whole in (len(before) + len(digits) < len(text),)
    ]
    if not seen:
        return None
    most = max(logprob for _, _, logprob in seen)
    weights: dict[str, float] = {}
    one = 0.0
    for digits, is_whole, logprob in seen:
        weight = math.exp(logprob - most)
        if digits == "1" and not is_whole:
            one += weight
        else:
            weights[digits] = weights.get(digits, 0.0) + weight
    following = tokens[number + 1].top if number + 1 < len(tokens) else ()
    is_told = tokens[number].text == f"{before}1" and following
    return SlotOdds(
        slot=slot,
        score=score,
        token=number,
        before=before,
        weights=weights,
        one=one,
        zero_after_one=zero_probability(following) if is_told else None,
    )


def _score_in(text: str, before: str) -> str | None:
    """Returns the digits that a token has after `before`, where they are a score."""
    if not text.startswith(before):
        return None
    digits = _DIGITS.match(text, len(before))
    return digits[0] if digits is not None and digits[0] in _VALUES else None
