"""The trimmed mean over a record's slots, exact and the same everywhere.

Shape letters: R records, A anchor slots.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

# Scores are counted in thousandths, so that the sum is an integer whatever the order of addition.
_UNITS_PER_POINT = 1000


def trimmed_mean(
    scores_RA: npt.NDArray[np.float32],
    is_usable_RA: npt.NDArray[np.bool_],
    *,
    trim_fraction: float,
    min_slots: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Returns the mean (R,) of the usable slots without the outer ones, and which records have one.

    From each end of a record's n usable scores, floor(trim_fraction * n) are cut; what is left is
    summed as integers, divided once in float64, and rounded to float32. A record with fewer than
    `min_slots` usable slots has no mean; its entry is 0 and marked False.
    """
    num_slots = scores_RA.shape[1]
    beyond = np.iinfo(np.int64).max // (2 * num_slots)  # sorts last, and sums without overflow
    units_RA = np.full(scores_RA.shape, beyond, dtype=np.int64)
    units_RA[is_usable_RA] = np.rint(
        scores_RA[is_usable_RA].astype(np.float64) * _UNITS_PER_POINT
    ).astype(np.int64)
    units_RA.sort(axis=1)
    sums_RA = np.zeros((len(units_RA), num_slots + 1), dtype=np.int64)
    np.cumsum(units_RA, axis=1, out=sums_RA[:, 1:])
    num_usable_R = is_usable_RA.sum(axis=1)
    cut_by_count = np.array([_num_cut(trim_fraction, n) for n in range(num_slots + 1)])
    cut_R = cut_by_count[num_usable_R]
    rows = np.arange(len(units_RA))
    total_R = sums_RA[rows, num_usable_R - cut_R] - sums_RA[rows, cut_R]
    has_mean_R = num_usable_R >= max(min_slots, 1)
    divisor_R = np.where(has_mean_R, (num_usable_R - 2 * cut_R) * _UNITS_PER_POINT, 1)
    mean_R = np.where(has_mean_R, total_R / divisor_R, 0.0)
    return mean_R.astype(np.float32), has_mean_R


def _num_cut(trim_fraction: float, num_usable: int) -> int:
    # As written in the recipe: in binary, 0.29 * 100 is 28.999…
    return math.floor(Fraction(str(trim_fraction)) * num_usable)
