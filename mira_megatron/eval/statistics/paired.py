"""Tests of two checkpoints on the same tasks, and the correction for making many."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
import numpy.typing as npt


def mcnemar_p(num_gained: int, num_lost: int) -> float:
    """Returns the two-sided exact p of McNemar's test; 1 where no task changed.

    `num_gained` tasks went from wrong to right, `num_lost` from right to wrong; without a
    difference each change is a coin's throw. Raises ValueError for a negative number.
    """
    if num_gained < 0 or num_lost < 0:
        raise ValueError(f"num_gained={num_gained}, num_lost={num_lost}: expected counts")
    num_changed = num_gained + num_lost
    tail = sum(comb(num_changed, count) for count in range(min(num_gained, num_lost) + 1))
    # Whole numbers up to the last division: 2 ** 1140 is no float.
    return min(1.0, 2 * tail / (1 << num_changed)) if num_changed else 1.0


def resampled_p(differences_R: npt.NDArray[np.float64]) -> float:
    """Returns the two-sided p of no difference, from resampled differences; never 0.

    Twice the share of resamples on the other side of 0, which counts on neither side alone; the
    observed data count as one more resample, so p is at least 2 / (R + 1).
    """
    num_below = int(np.count_nonzero(differences_R <= 0))
    num_above = int(np.count_nonzero(differences_R >= 0))
    return min(1.0, 2 * (min(num_below, num_above) + 1) / (len(differences_R) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values adjusted by Holm's step-down method (Holm 1979), in the order given.

    Below a level, an adjusted p says that the difference stands with the chance of even one false
    find among all of them held to that level.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
