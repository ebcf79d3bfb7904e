"""What a suite can resolve: the smallest difference it would likely find, and how likely."""

from __future__ import annotations

from statistics import NormalDist

from mira_megatron.eval.statistics.intervals import normal_quantile

LEVEL = 0.05  # two-sided
POWER = 0.8


def minimum_detectable_effect(standard_error: float) -> float:
    """Returns the difference that a two-sided test at LEVEL finds in POWER of cases.

    `standard_error` is of the difference, in the unit of the result; normal approximation.
    """
    return standard_error * (normal_quantile(1 - LEVEL / 2) + normal_quantile(POWER))


def power(difference: float, standard_error: float) -> float:
    """Returns how likely a two-sided test at LEVEL finds a true difference."""
    if standard_error <= 0:
        raise ValueError(f"standard_error={standard_error} must be above 0")
    critical, shift = normal_quantile(1 - LEVEL / 2), difference / standard_error
    normal = NormalDist()
    return normal.cdf(shift - critical) + normal.cdf(-shift - critical)
