"""What a judge says about one record: scores with reasons, and a summary."""

from __future__ import annotations

import math
from dataclasses import dataclass

RECOMMENDATIONS = ("keep", "downsample", "drop")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One dimension's score, and the measurement behind it."""

    score: int | None  # 0-10, or None …
    reason: str  # … and then why nothing could be measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A dimension that a judge names of itself for one record, with its score and reason."""

    part: str | None  # one of records.PARTS_OF_THINK for qa_with_think, else None
    dimension: str
    score: float  # 0-10
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A judge's whole answer about one record, slots in the order of the anchors asked for."""

    scores: tuple[float | None, ...]  # 0-10
    rationales: tuple[str, ...]
    overall: float | None  # 0-100
    training_recommendation: str  # one of RECOMMENDATIONS
    domain_tag: str
    brief: str


def unmeasurable(why: str) -> Finding:
    """Returns the finding of a dimension that does not apply to the record."""
    return Finding(score=None, reason=f"not measurable: {why}")


def quantified(num: int, total: int, what: str) -> str:
    """Returns a share in words and numbers: "few calls repeat an earlier one: 2 of 14"."""
    return f"{_quantifier(num, total)} {what}: {num} of {total}"


def _quantifier(num: int, total: int) -> str:
    share = num / total if total else 0.0
    if share in (0, 1):
        return "all" if share else "no"
    if share <= 0.5:
        return "few" if share < 0.25 else "some"
    return "most" if share < 0.9 else "nearly all"


def placed(value: float, *, low: float, high: float, words: tuple[str, str, str]) -> str:
    """Returns the word for a value below `low`, from there to `high`, or above it."""
    return words[0] if value < low else words[1] if value <= high else words[2]


def scaled(value: float, *, worst: float, best: float) -> int:
    """Returns 0 at `worst`, 10 at `best`, linear between them and clipped outside; halves go up."""
    share = (value - worst) / (best - worst)
    return int(10 * min(1.0, max(0.0, share)) + 0.5)


def scaled_log(value: float, *, worst: float, best: float) -> int:
    """Returns `scaled` on a logarithmic axis, for counts that spread over orders of magnitude."""
    return scaled(math.log(max(value, worst)), worst=math.log(worst), best=math.log(best))


def balanced(value: float, *, least: float, low: float, high: float, most: float) -> int:
    """Returns 10 from `low` to `high`, linear down to 0 at `least` and at `most`."""
    return min(scaled(value, worst=least, best=low), scaled(value, worst=most, best=high))
