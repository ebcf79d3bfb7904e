from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mira_megatron.reliability import intervals
from mira_megatron.reliability.intervals import (
    Intervals,
    Resampling,
    bootstrap_intervals,
    cell_seed,
    mean_error,
)

RESAMPLING = Resampling(confidence=0.9, resamples=40, seed=0)
# Few values, so that resamples have ties and constants; quarters of a point are exact.
PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=12).map(
    lambda pairs: np.array(pairs, np.float64) / 4
)


def of(
    pairs: npt.NDArray[np.float64], resampling: Resampling = RESAMPLING, seed: int = 5
) -> Intervals:
    return bootstrap_intervals(pairs[:, 0], pairs[:, 1], resampling=resampling, seed=seed)


def one_by_one(pairs: npt.NDArray[np.float64], resampling: Resampling, seed: int) -> Intervals:
    """The definition: every resample drawn, ranked and correlated for itself."""
    generator = np.random.default_rng(seed)
    maes, lows, highs = [], [], []
    for rows in generator.integers(0, len(pairs), (resampling.resamples, len(pairs))):
        scorer, teacher = pairs[rows].T
        maes.append(np.abs(scorer - teacher).mean())
        is_open = len(set(scorer)) == 1 or len(set(teacher)) == 1
        rho = None if is_open else float(spearmanr(scorer, teacher).statistic)
        lows.append(-1.0 if rho is None else rho)
        highs.append(1.0 if rho is None else rho)
    tail = (1 - resampling.confidence) / 2
    has_rho = all(len(set(column)) > 1 for column in pairs.T)
    return Intervals(
        mae_low=float(np.quantile(maes, tail, method="lower")),
        mae_high=float(np.quantile(maes, 1 - tail, method="higher")),
        rho_low=float(np.quantile(lows, tail, method="lower")) if has_rho else None,
        rho_high=float(np.quantile(highs, 1 - tail, method="higher")) if has_rho else None,
    )


@given(pairs=PAIRS, seed=st.integers(0, 2**64 - 1))
def test_bootstrap_intervals_are_those_of_every_resample_done_for_itself(
    pairs: npt.NDArray[np.float64], seed: int
) -> None:
    found, expected = of(pairs, seed=seed), one_by_one(pairs, RESAMPLING, seed)
    # 1e-9: scipy adds in floating point what is added here in whole numbers.
    assert (found.mae_low, found.mae_high) == pytest.approx(
        (expected.mae_low, expected.mae_high), abs=1e-9
    )
    assert (found.rho_low, found.rho_high) == pytest.approx(
        (expected.rho_low, expected.rho_high), abs=1e-9
    )


@given(pairs=PAIRS, at_once=st.integers(1, 600))
def test_bootstrap_intervals_do_not_depend_on_how_many_resamples_are_held_at_once(
    pairs: npt.NDArray[np.float64], at_once: int
) -> None:
    expected = of(pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "_COUNTS_AT_ONCE", at_once)
        assert of(pairs) == expected


@given(pairs=PAIRS)
def test_bootstrap_intervals_of_equal_errors_are_that_error(
    pairs: npt.NDArray[np.float64],
) -> None:
    found = of(np.stack([pairs[:, 0] + 0.75, pairs[:, 0]], axis=1))
    assert (found.mae_low, found.mae_high) == (0.75, 0.75)
    assert found.rho_high in (None, 1.0)


def test_bootstrap_intervals_of_a_perfect_ranking_are_narrow_where_records_are_many() -> None:
    ranks = np.arange(50.0)
    found = of(np.stack([ranks, ranks], axis=1))
    assert (found.rho_low, found.rho_high) == (1.0, 1.0)


def test_bootstrap_intervals_without_a_rho_in_most_resamples_are_open() -> None:
    # One record of three differs: 8 of 27 resamples leave it out, and have no rho.
    found = of(np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]))
    assert (found.rho_low, found.rho_high) == (-1.0, 1.0)


def test_bootstrap_intervals_narrow_as_records_and_confidence_say() -> None:
    generator = np.random.default_rng(3)
    few = generator.integers(0, 11, (30, 2)).astype(np.float64)
    wide, narrow = of(few), of(few, Resampling(confidence=0.5, resamples=40, seed=0))
    many = of(np.tile(few, (30, 1)))
    assert wide.mae_high - wide.mae_low > narrow.mae_high - narrow.mae_low
    assert wide.mae_high - wide.mae_low > many.mae_high - many.mae_low


def test_cell_seed_is_a_cells_own() -> None:
    seeds = {cell_seed(s, name, a) for s in (1, 2) for name in "xy" for a in ("A1", "A2")}
    assert len(seeds) == 8
    assert cell_seed(1, "x", "A1") == cell_seed(1, "x", "A1")


def test_mean_error_counts_thousandths() -> None:
    assert mean_error(np.array([1.0004, 2.0]), np.array([1.0, 1.0])) == 0.5
