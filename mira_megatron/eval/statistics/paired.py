"""Tests of two checkpoints on the same tasks, and the correction for making many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import comb

import numpy as np
import numpy.typing as npt

from mira_megatron.eval.statistics.intervals import CONFIDENCE, Interval, normal_quantile


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


def paired_interval(num_gained: int, num_lost: int, num_tasks: int) -> Interval:
    """Returns the interval of (gained - lost) / tasks of Agresti and Min (Stat. Med. 2005).

    Wald's with half a task added to each of the four cells: with few changes Wald's own, and the
    bootstrap's, are far too narrow. Raises ValueError for fewer tasks than changes, or none.
    """
    if num_tasks < 1 or num_tasks < num_gained + num_lost:
        raise ValueError(f"num_tasks={num_tasks}, with {num_gained + num_lost} changed")
    total = num_tasks + 2.0
    gained, lost = num_gained + 0.5, num_lost + 0.5
    middle = (gained - lost) / total
    error = math.sqrt(gained + lost - (gained - lost) ** 2 / total) / total
    half = normal_quantile((1 + CONFIDENCE) / 2) * error
    return Interval(low=max(-1.0, middle - half), high=min(1.0, middle + half))


def flipped_p(observed: float, flipped_R: npt.NDArray[np.float64]) -> float:
    """Returns the two-sided p of a difference among those under random signs; never 0.

    The share that is at least as far from 0; the observed one counts among them, so p is at least
    1 / (R + 1), and valid for any number of draws.
    """
    # A sum in another order is the same difference: far below one sample of any benchmark.
    num_as_far = int(np.count_nonzero(np.abs(flipped_R) >= abs(observed) - 1e-9))
    return (num_as_far + 1) / (len(flipped_R) + 1)


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
