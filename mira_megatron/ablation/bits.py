"""Bits per byte of arms with intervals, and differences to a reference with tests.

Two things are drawn anew in every resample, both with replacement: the held-out documents of each
source, which stand for all such documents, and the seeds, which stand for all trainings of an arm.
All arms get the same draws, so differences are paired by document and by seed.

A group's bits per byte is the bits of its documents over their bytes, a ratio of two sums; under a
resample it is taken linearly around its value (Cochran 1977, section 6.3), so that a draw with few
bytes cannot blow up. An arm's interval is the percentiles of its resamples. A difference to the
reference is held to Student's t with one degree of freedom less than seeds: documents are many, but
that two trainings of one arm differ is only known from the few seeds, and a test over documents
alone would call every two of them different. With one seed nothing is tested.

Shape letters: R resamples, D documents of a source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from mira_megatron.eval.statistics.intervals import Interval, t_interval
from mira_megatron.eval.statistics.paired import holm
from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Key,
    Resampling,
    percentile_interval,
    resampled_error,
    resampled_scores,
)

MEAN = "mean over groups"  # unweighted; a group is named without spaces
LEVEL = 0.05
_BYTES = ""  # in the place of a model's name, which is never empty
_ROUNDING = 1e-12  # bits per byte; sums in another order

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """The documents that all models were measured on, by source, and what each model lost."""

    record_ids: Mapping[str, Sequence[str]]  # by source
    bytes_D: Mapping[str, Values]  # by source
    nats_D: Mapping[str, Mapping[str, Values]]  # by model and source
    groups: Mapping[str, Sequence[str]]  # source group -> its sources

    @property
    def names(self) -> list[str]:
        """Returns the numbers that an arm has: one per source group, and their mean."""
        return [*self.groups, MEAN]

    def value(self, model: str, group: str) -> float:
        """Returns a model's bits per byte on a source group."""
        nats = sum(float(self.nats_D[model][source].sum()) for source in self.groups[group])
        return nats / math.log(2) / self.num_bytes(group)

    def num_bytes(self, group: str) -> float:
        """Returns the bytes of a group's documents."""
        return sum(float(self.bytes_D[source].sum()) for source in self.groups[group])

    def num_documents(self, group: str) -> int:
        """Returns the documents of a source group."""
        return sum(len(self.record_ids[source]) for source in self.groups[group])


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Bits per byte, the mean over seeds."""

    value: float
    interval: Interval | None  # None: a source has fewer than two documents
    by_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """An arm's bits per byte minus the reference's; below 0 is better."""

    value: float
    interval: Interval | None
    error: float | None  # standard error
    p: float | None  # two-sided; None: one seed, or no spread to test against
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """Returns in words what the difference comes to at the level of 5 %, after correction."""
        if self.p_holm is None:
            return "not tested"
        if self.p_holm >= LEVEL:
            return "no significant difference"
        return "better" if self.value < 0 else "worse"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmBits:
    """All numbers of one arm, by name: source groups, then their mean."""

    bits: Mapping[str, Estimate]
    gaps: Mapping[str, Gap]  # to the reference; empty for the reference, and without one


def arms_bits(
    held_out: HeldOut,
    arms: Mapping[str, Mapping[int, str]],
    *,
    reference: str | None,
    resampling: Resampling,
) -> dict[str, ArmBits]:
    """Returns the numbers of every arm; `arms` names the model of each seed.

    Holm's correction covers all arms in two families: the mean over groups, and the groups.
    """
    seeds = list(next(iter(arms.values())))
    assert all(list(models) == seeds for models in arms.values()), "every arm has every seed"
    drawn_R = _drawn_models(held_out, resampling)
    weights_R = _drawn_seeds(seeds, resampling)
    bits: dict[str, dict[str, Estimate]] = {}
    of_arm_R: dict[str, dict[str, Values]] = {}
    for arm, models in arms.items():
        bits[arm], of_arm_R[arm] = {}, {}
        for name in held_out.names:
            by_seed = [_value(held_out, models[seed], name) for seed in seeds]
            summed_R = sum(
                (weights_R[seed] * drawn_R[models[seed]][name] for seed in seeds),
                start=np.zeros(resampling.num_resamples),
            )
            of_arm_R[arm][name] = summed_R
            bits[arm][name] = Estimate(
                value=math.fsum(by_seed) / len(seeds),
                interval=percentile_interval(summed_R) if _has_spread(held_out, name) else None,
                by_seed=tuple(by_seed),
            )
    gaps = {
        arm: {
            name: _gap(
                bits[arm][name].value - bits[reference][name].value,
                of_arm_R[arm][name] - of_arm_R[reference][name],
                len(seeds),
                has_spread=_has_spread(held_out, name),
            )
            for name in held_out.names
        }
        for arm in arms
        if reference is not None and arm != reference
    }
    adjusted = _adjusted(gaps, [[MEAN], list(held_out.groups)])
    return {arm: ArmBits(bits=bits[arm], gaps=adjusted.get(arm, {})) for arm in arms}


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


def _value(held_out: HeldOut, model: str, name: str) -> float:
    if name != MEAN:
        return held_out.value(model, name)
    return math.fsum(held_out.value(model, group) for group in held_out.groups) / len(
        held_out.groups
    )


def _has_spread(held_out: HeldOut, name: str) -> bool:
    groups = list(held_out.groups) if name == MEAN else [name]
    return all(
        len(held_out.record_ids[source]) > 1
        for group in groups
        for source in held_out.groups[group]
    )


def _drawn_models(held_out: HeldOut, resampling: Resampling) -> dict[str, dict[str, Values]]:
    """Returns every model's numbers (R,) under the same draws of documents."""
    scored: dict[Key, ClusteredScores] = {}
    for source, record_ids in held_out.record_ids.items():
        columns = {model: nats[source] / math.log(2) for model, nats in held_out.nats_D.items()}
        for model, scores in {**columns, _BYTES: held_out.bytes_D[source]}.items():
            scored[model, source] = ClusteredScores(
                stratum=f"documents of {source}", scores=scores.tolist(), clusters=record_ids
            )
    means_R = resampled_scores(scored, resampling)
    found: dict[str, dict[str, Values]] = {}
    for model in held_out.nats_D:
        found[model] = {}
        for group, sources in held_out.groups.items():
            value = held_out.value(model, group)
            off_R = sum(
                (
                    len(held_out.record_ids[source])
                    * (means_R[model, source] - value * means_R[_BYTES, source])
                    for source in sources
                ),
                start=np.zeros(resampling.num_resamples),
            )
            found[model][group] = value + off_R / held_out.num_bytes(group)
        found[model][MEAN] = np.mean([found[model][group] for group in held_out.groups], axis=0)
    return found


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
    gaps: Mapping[str, Mapping[str, Gap]], families: Sequence[Sequence[str]]
) -> dict[str, dict[str, Gap]]:
    found = {arm: dict(of_arm) for arm, of_arm in gaps.items()}
    for names in families:
        tested = [
            (arm, name, p)
            for arm, of_arm in gaps.items()
            for name in names
            if (p := of_arm[name].p) is not None
        ]
        for (arm, name, _), p_holm in zip(tested, holm([p for *_, p in tested]), strict=True):
            found[arm][name] = replace(found[arm][name], p_holm=p_holm)
    return found
