"""The trimmed mean over a record's slots, exact and the same everywhere.

Scores are thousandths of a point in columns, one per slot, few enough records at a time to stay in
the cache. A sorting network orders all records at once by minima and maxima of whole columns; what
is cut is then the same columns for all records that have as many scores.

Shape letters: R records, A anchor slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

UNITS_PER_POINT = 1000  # so that the sum is a whole number whatever the order of addition
NO_SCORE = 65_535  # of a slot; sorts last, as 10 points are 10,000


def trimmed_mean(
    units_AR: Sequence[npt.NDArray[np.uint16]], *, trim_fraction: float, min_slots: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Returns the mean (R,) in points of the scores without the outer ones, and who has one.

    From each end of a record's n scores, floor(trim_fraction * n) are cut; what is left is summed
    as whole numbers, divided once in float64, and rounded to float32. A record with fewer than
    `min_slots` scores has no mean; its entry is 0 and marked False. At least one column is needed;
    its entries are at most 10,000, or NO_SCORE.
    """
    num_scores_R = np.zeros(len(units_AR[0]), np.uint8)
    for units_R in units_AR:
        num_scores_R += units_R != NO_SCORE
    counted = _counted(len(units_AR), trim_fraction)
    total_R = _sums(_sorted(units_AR), num_scores_R, counted)
    has_mean_R = num_scores_R >= max(min_slots, 1)
    divisors = np.maximum(counted.sum(axis=1), 1).astype(np.float64) * UNITS_PER_POINT
    mean_R = (total_R / np.take(divisors, num_scores_R)).astype(np.float32)
    mean_R[~has_mean_R] = 0
    return mean_R, has_mean_R


def _sums(
    ranked_AR: Sequence[npt.NDArray[np.uint16]],
    num_scores_R: npt.NDArray[np.uint8],
    counted: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint32]:
    """Returns the sum (R,) of the ranks that count, given how many scores a record has."""
    is_present = np.bincount(num_scores_R, minlength=len(counted)) > 0
    total_R = np.zeros(len(num_scores_R), np.uint32)
    for rank, units_R in enumerate(ranked_AR):
        by_number = counted[:, rank]
        if by_number[is_present].all():
            total_R += units_R
        elif by_number[is_present].any():
            all_bits = np.where(by_number, NO_SCORE, 0).astype(np.uint16)
            total_R += np.take(all_bits, num_scores_R) & units_R
    return total_R


def _sorted(units_AR: Sequence[npt.NDArray[np.uint16]]) -> list[npt.NDArray[np.uint16]]:
    """Returns the columns with every record's scores in order, lowest first."""
    columns = [units_R.copy() for units_R in units_AR]
    spare = np.empty_like(columns[0])
    for low, high in sorting_network(len(columns)):
        np.minimum(columns[low], columns[high], out=spare)
        np.maximum(columns[low], columns[high], out=columns[high])
        columns[low], spare = spare, columns[low]
    return columns


@lru_cache(maxsize=256)
def sorting_network(num_values: int) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of places to be put in order, one after another, so that all are sorted.

    Batcher's odd-even merge sort of the next power of two; the places that are not there would hold
    what sorts last, and a pair that names one changes nothing.
    """
    size = 1 << max(num_values - 1, 0).bit_length()
    pairs: list[tuple[int, int]] = []
    run = 1
    while run < size:  # runs of this length are sorted, and are merged two by two
        distance = run
        while distance:
            for start in range(distance % run, size - distance, 2 * distance):
                for low in range(start, min(start + distance, size - distance)):
                    if low // (2 * run) == (low + distance) // (2 * run):
                        pairs.append((low, low + distance))
            distance //= 2
        run *= 2
    return tuple((low, high) for low, high in pairs if high < num_values)


@lru_cache(maxsize=256)
def _counted(num_slots: int, trim_fraction: float) -> npt.NDArray[np.bool_]:
    """Returns for each number of scores which ranks are counted (num_slots + 1, num_slots)."""
    counted = np.zeros((num_slots + 1, num_slots), np.bool_)
    for num_scores in range(num_slots + 1):
        # As written in the recipe: in binary, 0.29 * 100 is 28.999…
        num_cut = math.floor(Fraction(str(trim_fraction)) * num_scores)
        counted[num_scores, num_cut : num_scores - num_cut] = True
    return counted
