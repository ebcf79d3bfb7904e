"""How a record's slots became its score: which were counted, which not, and why.

Shape letters: A anchor slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np

from mira_megatron.reliability.trimmed_mean import trimmed_mean

COUNTED, MISSING, MASKED = "counted", "missing", "masked"
TRIMMED_LOW, TRIMMED_HIGH = "trimmed_low", "trimmed_high"


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
    is_usable_A = [
        score is not None and not is_masked
        for score, is_masked in zip(scores_A, is_masked_A, strict=True)
    ]
    given_A = np.array([[0.0 if score is None else score for score in scores_A]], np.float32)
    mean, has_mean = trimmed_mean(
        given_A, np.array([is_usable_A]), trim_fraction=trim_fraction, min_slots=min_slots
    )
    usable = [slot for slot, is_usable in enumerate(is_usable_A) if is_usable]
    ranked = sorted(usable, key=lambda slot: float(given_A[0, slot]))  # stable: slots in order
    # As trimmed_mean counts: the fraction as it is written, not as it is in binary.
    num_cut = floor(Fraction(str(trim_fraction)) * len(usable)) if has_mean[0] else 0
    roles = [
        MISSING if score is None else MASKED if is_masked else COUNTED
        for score, is_masked in zip(scores_A, is_masked_A, strict=True)
    ]
    for slot in ranked[:num_cut]:
        roles[slot] = TRIMMED_LOW
    for slot in ranked[len(ranked) - num_cut :]:
        roles[slot] = TRIMMED_HIGH
    return roles, Arithmetic(
        trim_fraction=trim_fraction,
        min_slots=min_slots,
        num_usable=len(usable),
        num_trimmed_each_end=num_cut,
        num_counted=len(usable) - 2 * num_cut if has_mean[0] else 0,
        score=float(mean[0]) if has_mean[0] else None,
    )
