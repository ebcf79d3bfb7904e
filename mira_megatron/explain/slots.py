"""How a record's slots became its score: which were counted, which not, and why.

Computed here once more from the definition, not by the code that aggregates: so that a score which
its slots do not give is noticed.

Shape letters: A anchor slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor

import numpy as np

COUNTED, MISSING, MASKED = "counted", "missing", "masked"
TRIMMED_LOW, TRIMMED_HIGH = "trimmed_low", "trimmed_high"
_UNITS_PER_POINT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Arithmetic:
    """The trimmed mean of one record, step by step."""

    trim_fraction: float
    min_slots: int
    num_usable: int  # slots that have a score and are not masked
    num_trimmed_each_end: int
    num_counted: int  # 0 where there are fewer usable ones than min_slots
    score: float | None  # the mean of the counted, as float32; None where nothing is counted


def slot_roles(
    scores_A: Sequence[float | None],
    is_masked_A: Sequence[bool],
    *,
    trim_fraction: float,
    min_slots: int,
) -> tuple[list[str], Arithmetic]:
    """Returns each slot's part in the record's score, and the arithmetic.

    Of equal scores at the edge of what is trimmed, the first slots are cut at the low end and the
    last ones at the high end: which of them it is changes no mean.
    """
    roles = [
        MISSING if score is None else MASKED if is_masked else COUNTED
        for score, is_masked in zip(scores_A, is_masked_A, strict=True)
    ]
    units = {  # as docs/formats.md has it: whole thousandths, so that no order of addition matters
        slot: round(score * _UNITS_PER_POINT)
        for slot, score in enumerate(scores_A)
        if score is not None and roles[slot] == COUNTED
    }
    arithmetic = Arithmetic(
        trim_fraction=trim_fraction,
        min_slots=min_slots,
        num_usable=len(units),
        num_trimmed_each_end=0,
        num_counted=0,
        score=None,
    )
    if len(units) < max(min_slots, 1):
        return roles, arithmetic
    # The fraction as it is written in the recipe: in binary, 0.29 * 100 is 28.999…
    num_cut = floor(Fraction(str(trim_fraction)) * len(units))
    ranked = sorted(units, key=lambda slot: units[slot])  # stable: of equals the first slot first
    counted = ranked[num_cut : len(ranked) - num_cut]
    for slot in ranked[:num_cut]:
        roles[slot] = TRIMMED_LOW
    for slot in ranked[len(ranked) - num_cut :]:
        roles[slot] = TRIMMED_HIGH
    total = sum(units[slot] for slot in counted)
    return roles, replace(
        arithmetic,
        num_trimmed_each_end=num_cut,
        num_counted=len(counted),
        score=float(np.float32(total / (len(counted) * _UNITS_PER_POINT))),
    )
