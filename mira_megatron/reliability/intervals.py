"""How sure an agreement is: percentile-bootstrap intervals of mean absolute error and Spearman's.

Records are drawn with replacement, as many as there are. Counts, errors and ranks are whole
numbers, so that a resample's figures do not depend on the order of addition.

Shape letters: R records, B resamples, V distinct values. A rank is counted as twice its distance
from the mean rank, which is whole where ties have their mean rank, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

UNITS_PER_POINT = 1000  # errors are counted in thousandths of a point, as aggregate counts scores
_COUNTS_AT_ONCE = 1 << 20  # of records in resamples: bounds the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How intervals are made."""

    confidence: float  # of an interval, in (0, 1)
    resamples: int
    seed: int  # of the recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """Both ends of both intervals; rho's are None where the scores have no rho themselves."""

    mae_low: float
    mae_high: float
    rho_low: float | None
    rho_high: float | None


def cell_seed(seed: int, source: str, anchor_id: str) -> int:
    """Returns what a cell's resamples are drawn with: its own, whatever other cells there are."""
    return xxhash.xxh3_64_intdigest(f"{seed}:{source}:{anchor_id}".encode())


def mean_error(scorer_R: npt.NDArray[np.float64], teacher_R: npt.NDArray[np.float64]) -> float:
    """Returns the mean absolute difference, each counted in whole thousandths."""
    units_R = _error_units(scorer_R, teacher_R)
    return float(units_R.sum() / (len(units_R) * UNITS_PER_POINT))


def _error_units(
    scorer_R: npt.NDArray[np.float64], teacher_R: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    units_R: npt.NDArray[np.float64] = np.rint(np.abs(scorer_R - teacher_R) * UNITS_PER_POINT)
    return units_R.astype(np.int64)


def bootstrap_intervals(
    scorer_R: npt.NDArray[np.float64],
    teacher_R: npt.NDArray[np.float64],
    *,
    resampling: Resampling,
    seed: int,
) -> Intervals:
    """Returns the intervals of one cell, its scores given record by record, none missing.

    The ends are the quantiles (1 - confidence) / 2 and (1 + confidence) / 2 of the resamples'
    figures, each the next figure outwards. A resample in which either gave one score throughout has
    no rho: it counts as -1 at the lower end and as 1 at the upper, so that not knowing widens the
    interval.
    """
    scorer, teacher = _ValueOrder(scorer_R), _ValueOrder(teacher_R)
    units_R = _error_units(scorer_R, teacher_R)
    maes, rhos = [], []
    for counts_BR in _drawn(len(units_R), resampling.resamples, seed):
        maes.append(counts_BR @ units_R / (len(units_R) * UNITS_PER_POINT))
        rhos.append(_rhos(counts_BR, scorer, teacher))
    mae_B, rho_B = np.concatenate(maes), np.concatenate(rhos)
    is_open_B = np.isnan(rho_B)
    has_rho = scorer.num_values > 1 and teacher.num_values > 1
    mae_low, mae_high = _ends(mae_B, mae_B, resampling.confidence)
    rho_low, rho_high = _ends(
        np.where(is_open_B, -1.0, rho_B), np.where(is_open_B, 1.0, rho_B), resampling.confidence
    )
    return Intervals(
        mae_low=mae_low,
        mae_high=mae_high,
        rho_low=rho_low if has_rho else None,
        rho_high=rho_high if has_rho else None,
    )


def _ends(
    low_B: npt.NDArray[np.float64], high_B: npt.NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low = np.quantile(low_B, tail, method="lower")
    return float(low), float(np.quantile(high_B, 1 - tail, method="higher"))


def _drawn(num_records: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yields how often each record is in each resample (B, R), some resamples at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // num_records)
    for start in range(0, resamples, at_once):
        shape = (min(at_once, resamples - start), num_records)
        drawn_BR = generator.integers(0, num_records, shape)
        drawn_BR += np.arange(shape[0])[:, np.newaxis] * num_records
        yield np.bincount(drawn_BR.ravel(), minlength=drawn_BR.size).reshape(shape)


class _ValueOrder:
    """One judge's scores by value, so that a resample's ranks are found without sorting it."""

    def __init__(self, scores_R: npt.NDArray[np.float64]) -> None:
        self._order_R = np.argsort(scores_R, kind="stable")
        _, self._starts_V, self._value_of_R = np.unique(
            scores_R[self._order_R], return_index=True, return_inverse=True
        )

    @property
    def num_values(self) -> int:
        return len(self._starts_V)

    def ranks(
        self, counts_BR: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns each record's rank (B, R), and the sum of all squares (B,)."""
        times_BV = np.add.reduceat(counts_BR[:, self._order_R], self._starts_V, axis=1)
        upto_BV = np.cumsum(times_BV, axis=1)
        # Mean rank of a value: (those below) + (its times + 1) / 2; of all: (R + 1) / 2.
        rank_BV = 2 * upto_BV - times_BV - counts_BR.shape[1]
        rank_BR = np.empty_like(counts_BR)
        rank_BR[:, self._order_R] = rank_BV[:, self._value_of_R]
        return rank_BR, (times_BV * rank_BV * rank_BV).sum(axis=1)


def _rhos(
    counts_BR: npt.NDArray[np.int64], scorer: _ValueOrder, teacher: _ValueOrder
) -> npt.NDArray[np.float64]:
    """Returns Spearman's of each resample (B,), NaN where it has none."""
    scorer_BR, scorer_squares_B = scorer.ranks(counts_BR)
    teacher_BR, teacher_squares_B = teacher.ranks(counts_BR)
    products_B = (counts_BR * scorer_BR * teacher_BR).sum(axis=1)
    size_B = np.sqrt(scorer_squares_B.astype(np.float64) * teacher_squares_B)
    rho_B = np.full(len(counts_BR), np.nan)
    np.divide(products_B, size_B, out=rho_B, where=size_B > 0)
    return rho_B.clip(-1.0, 1.0)
