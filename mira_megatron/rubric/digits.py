"""The answer of `answer_mode: scores_only`: the scores of all slots and nothing else.

    7 8 10 0 5 5 6 7 9 3 4 8 8 2 7      whole numbers from 0 to 10, in slot order

Some 31 tokens where an answer with justifications has 600. Guided decoding by `SCORES_REGEX` lets
a model write nothing else, and ends the answer by itself. A scorer that learned another form never
practised this one: what its digits are worth is measured first (scoring/mode_agreement.py).

What tells a score's slot is its place alone. So an answer is read only where it has one number for
every slot: one that has fewer or more may have left out or repeated any of them, and is unparsed
as a whole. A number that is no score, at a place that is known, is null by itself.
"""

from __future__ import annotations

import re

from mira_megatron.records import NUM_SLOTS

_SCORE = "(?:10|[0-9])"
SCORES_REGEX = rf"{_SCORE}(?: {_SCORE}){{{NUM_SLOTS - 1}}}"
MOST_TOKENS = 3 * NUM_SLOTS  # of an answer: two digits and a space or the end, a token each

_SCORES = {str(score): float(score) for score in range(11)}
# What a server without guided decoding may put between numbers, and in place of one.
_BETWEEN = re.compile(r",?\s++")
_NUMBER = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?|[Nn]/[Aa]")


def read_scores(text: str, num_slots: int) -> tuple[tuple[float | None, ...], list[str]]:
    """Returns the score of every slot, None where it has none, and what is wrong; never raises."""
    words = _BETWEEN.split(text.strip()) if text.strip() else []
    scores = tuple(map(_SCORES.get, words))
    if len(scores) == num_slots and None not in scores:
        return scores, []
    nothing: tuple[float | None, ...] = (None,) * num_slots
    if not all(map(_NUMBER.fullmatch, words)):
        return nothing, [f"not {num_slots} numbers alone"]
    if len(words) != num_slots:
        return nothing, [f"{len(words)} numbers for {num_slots} slots"]
    return scores, [
        f"A{slot}: {word} is no whole number from 0 to 10"
        for slot, (word, score) in enumerate(zip(words, scores, strict=True), start=1)
        if score is None
    ]
