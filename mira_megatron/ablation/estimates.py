"""Numbers of arms with intervals, and differences to a reference with tests.

Two things are drawn anew in every resample, both with replacement: what models were measured on
(documents, tasks), which stands for all of its kind, and the seeds, which stand for all trainings
of an arm. All arms get the same draws, so differences are paired by document or task, and by seed.

An arm's interval is the percentiles of its resamples. A difference to the reference is held to
Student's t with one degree of freedom less than seeds: documents are many, but that two trainings
of one arm differ is only known from the few seeds, and a test over documents alone would call every
two of them different. With one seed nothing is tested.

Shape letters: R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from mira_megatron.eval.statistics.intervals import Interval, t_interval
from mira_megatron.eval.statistics.paired import holm
from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Resampling,
    percentile_interval,
    resampled_error,
    resampled_scores,
)

LEVEL = 0.05
BETTER, WORSE, ALIKE, NOT_TESTED = "better", "worse", "no significant difference", "not tested"
_ROUNDING = 1e-12  # bits per byte or points; sums in another order

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number of one arm, the mean over its seeds."""

    value: float
    interval: Interval | None  # None: too little was measured to say how much it varies
    by_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A number of an arm minus the reference's."""

    value: float
    interval: Interval | None
    error: float | None  # standard error
    p: float | None  # two-sided; None: one seed, or no spread to test against
    p_holm: float | None = None
    verdict: str = NOT_TESTED  # in words what it comes to at the level of 5 %, after correction


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmNumbers:
    """All numbers of one arm, by name."""

    values: Mapping[str, Estimate]
    gaps: Mapping[str, Gap]  # to the reference; empty for the reference, and without one


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What all models came to, each number by name."""

    names: Sequence[str]  # of all numbers, in order
    values: Mapping[str, Mapping[str, float]]  # by model and name
    drawn_R: Mapping[str, Mapping[str, Values]]  # the same under every resample
    without_spread: AbstractSet[str]  # names of which too little was measured for an interval
    is_lower_better: bool
    families: Sequence[Sequence[str]]  # of names that are corrected together


def arms_numbers(
    measured: Measured,
    arms: Mapping[str, Mapping[int, str]],
    *,
    reference: str | None,
    resampling: Resampling,
) -> dict[str, ArmNumbers]:
    """Returns the numbers of every arm; `arms` names the model of each seed.

    Holm's correction covers all arms, each family of names for itself.
    """
    seeds = list(next(iter(arms.values())))
    assert all(list(models) == seeds for models in arms.values()), "every arm has every seed"
    weights_R = _drawn_seeds(seeds, resampling)
    values: dict[str, dict[str, Estimate]] = {}
    of_arm_R: dict[str, dict[str, Values]] = {}
    for arm, models in arms.items():
        values[arm], of_arm_R[arm] = {}, {}
        for name in measured.names:
            by_seed = [measured.values[models[seed]][name] for seed in seeds]
            summed_R = sum(
                (weights_R[seed] * measured.drawn_R[models[seed]][name] for seed in seeds),
                start=np.zeros(resampling.num_resamples),
            )
            has_spread = name not in measured.without_spread
            of_arm_R[arm][name] = summed_R
            values[arm][name] = Estimate(
                value=math.fsum(by_seed) / len(seeds),
                interval=percentile_interval(summed_R) if has_spread else None,
                by_seed=tuple(by_seed),
            )
    gaps = {
        arm: {
            name: _gap(
                values[arm][name].value - values[reference][name].value,
                of_arm_R[arm][name] - of_arm_R[reference][name],
                len(seeds),
                has_spread=name not in measured.without_spread,
            )
            for name in measured.names
        }
        for arm in arms
        if reference is not None and arm != reference
    }
    adjusted = _adjusted(gaps, measured)
    return {arm: ArmNumbers(values=values[arm], gaps=adjusted.get(arm, {})) for arm in arms}


def student_p(value: float, error: float, num_draws: int) -> float | None:
    """Returns the two-sided p of a mean of independent draws; None where nothing varies.

    By Student's t with one degree of freedom less than draws. A difference of nothing is never
    found, whatever the error.
    """
    if num_draws < 2:
        return None
    if abs(value) < _ROUNDING:
        return 1.0
    if error < _ROUNDING:
        return None
    return float(2 * student_t.sf(abs(value) / error, num_draws - 1))


def _gap(value: float, drawn_R: Values, num_seeds: int, *, has_spread: bool) -> Gap:
    error = resampled_error(drawn_R) if has_spread else None
    if error is None:
        return Gap(value=value, interval=None, error=None, p=None)
    if num_seeds < 2:
        return Gap(value=value, interval=percentile_interval(drawn_R), error=error, p=None)
    return Gap(
        value=value,
        interval=t_interval(value, error, num_seeds),
        error=error,
        p=student_p(value, error, num_seeds),
    )


def _drawn_seeds(seeds: Sequence[int], resampling: Resampling) -> dict[int, Values]:
    """Returns the weight of each seed (R,), which add up to 1.

    One that counts 1 for its own seed and 0 for the others is a score whose resampled mean is the
    seed's weight, spread as the means of so few draws are to be.
    """
    names = [str(seed) for seed in seeds]
    scored = {
        (name, "seeds"): ClusteredScores(
            stratum="seeds", scores=[float(other == name) for other in names], clusters=names
        )
        for name in names
    }
    drawn = resampled_scores(scored, resampling)
    return {seed: drawn[str(seed), "seeds"] for seed in seeds}


def _adjusted(
    gaps: Mapping[str, Mapping[str, Gap]], measured: Measured
) -> dict[str, dict[str, Gap]]:
    found = {arm: dict(of_arm) for arm, of_arm in gaps.items()}
    for names in measured.families:
        tested = [
            (arm, name, p)
            for arm, of_arm in gaps.items()
            for name in names
            if (p := of_arm[name].p) is not None
        ]
        for (arm, name, _), p_holm in zip(tested, holm([p for *_, p in tested]), strict=True):
            gap = found[arm][name]
            is_better = (gap.value < 0) == measured.is_lower_better
            verdict = ALIKE if p_holm >= LEVEL else BETTER if is_better else WORSE
            found[arm][name] = replace(gap, p_holm=p_holm, verdict=verdict)
    return found
