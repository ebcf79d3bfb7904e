"""What a judge says about one record: fifteen scores with reasons, and a summary."""

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
class Verdict:
    """A judge's whole answer about one record, slots in the order of the anchors asked for."""

    scores: tuple[int | None, ...]  # 0-10
    rationales: tuple[str, ...]
    overall: float | None  # 0-100
    training_recommendation: str  # one of RECOMMENDATIONS
    domain_tag: str
    brief: str


def unmeasurable(why: str) -> Finding:
    """Returns the finding of a dimension that does not apply to the record."""
    return Finding(score=None, reason=f"not measurable: {why}")


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
