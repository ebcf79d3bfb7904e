"""What asking about many records takes, going by a sample of them: totals with 95 % intervals.

A total is the sample's mean times the number of records. Its interval is Student's t over the
sample, with the correction for a finite population: a sample of everything has no width. What is
measured on different samples is taken to be independent, so half widths add as squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student_t

INTERVAL = "95 %, Student's t over the sampled records, finite population corrected"

_LEVEL = 0.95
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """A sum over all records, and half the width of its 95 % interval."""

    value: float
    half_width: float | None = 0.0  # None: too few were looked at to tell
    is_most: bool = False  # an upper bound, not an estimate

    @property
    def low(self) -> float | None:
        """Returns the interval's lower end, which is never below nothing."""
        return None if self.half_width is None else max(0.0, self.value - self.half_width)

    @property
    def high(self) -> float | None:
        """Returns the interval's upper end."""
        return None if self.half_width is None else self.value + self.half_width


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """How many tokens one GPU reads and writes in a second."""

    prompt_tokens_per_second: float
    output_tokens_per_second: float


def total_of(sample: Sequence[float], num_records: int) -> Total:
    """Returns the total over `num_records` of what a sample of them has, at least one of them."""
    assert sample, "a total needs a sample"
    value = fmean(sample) * num_records
    if len(sample) >= num_records:
        return Total(value=value)
    if len(sample) == 1:
        return Total(value=value, half_width=None)
    quantile = float(student_t.ppf((1 + _LEVEL) / 2, len(sample) - 1))
    left_out = 1 - len(sample) / num_records
    half_width = quantile * stdev(sample) * math.sqrt(left_out / len(sample)) * num_records
    return Total(value=value, half_width=half_width)


def weighted(parts: Iterable[tuple[float, Total]]) -> Total:
    """Returns the sum of weight times total, its interval wide enough for all of them."""
    value, squares = 0.0, 0.0
    is_known, is_most = True, False
    for weight, total in parts:
        value += weight * total.value
        is_most = is_most or total.is_most
        if total.half_width is None:
            is_known = False
        else:
            squares += (weight * total.half_width) ** 2
    half_width = math.sqrt(squares) if is_known else None
    return Total(value=value, half_width=half_width, is_most=is_most)


def gpu_hours(prompt_tokens: Total, output_tokens: Total, rates: Rates) -> Total:
    """Returns the hours of one GPU: its prompts read, then its answers written."""
    return weighted(
        (
            (1 / rates.prompt_tokens_per_second / _SECONDS_PER_HOUR, prompt_tokens),
            (1 / rates.output_tokens_per_second / _SECONDS_PER_HOUR, output_tokens),
        )
    )


def money(
    prompt_tokens: Total,
    output_tokens: Total,
    *,
    per_million_prompt: float,
    per_million_output: float,
) -> Total:
    """Returns the cost in the currency of the prices."""
    return weighted(
        ((per_million_prompt / 1e6, prompt_tokens), (per_million_output / 1e6, output_tokens))
    )
