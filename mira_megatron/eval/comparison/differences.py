"""One arm's numbers minus another's on the same tasks: intervals, tests, and what changed.

A benchmark whose tasks are draws of their own, answered once each, is tested by McNemar's exact
test, with the interval of Agresti and Min. Any other benchmark, and every average, is tested by
random signs of clusters; the interval is Student's with the paired bootstrap's standard error for a
benchmark, the paired bootstrap's percentiles for an average.

Shape letters: R resamples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mira_megatron.eval.comparison.arms import Arm
from mira_megatron.eval.comparison.scores import PERCENT, Score, averaged, fractions
from mira_megatron.eval.comparison.subsets import Subscore
from mira_megatron.eval.comparison.table import AVERAGES, leaves, title_of
from mira_megatron.eval.statistics.intervals import Interval, t_interval
from mira_megatron.eval.statistics.paired import flipped_p, mcnemar_p, paired_interval
from mira_megatron.eval.statistics.power import minimum_detectable_effect
from mira_megatron.eval.statistics.resampling import percentile_interval, resampled_error

MCNEMAR, SIGN_FLIPS = "mcnemar", "sign flips"
_ROUNDING = 1e-12  # of sums in another order; far below one sample of any benchmark

Drawn = Mapping[str, npt.NDArray[np.float64]]  # by graded benchmark (R,), fractions


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredArm:
    """An arm with its numbers."""

    arm: Arm
    scores: Mapping[str, Score]
    subscores: tuple[Subscore, ...] = ()

    def has(self, name: str) -> bool:
        """Returns whether there is a value of that name."""
        return name in self.scores and self.scores[name].value is not None

    def lacks(self, name: str) -> str:
        """Returns why there is none, with whose it would be."""
        reason = self.scores[name].reason if name in self.scores else "not graded"
        return f"{self.arm.label}: {reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One number of `other` minus that of `baseline`, in points; p values two-sided."""

    name: str
    title: str
    value: float | None
    reason: str | None  # why there is none
    interval: Interval | None = None
    error: float | None = None  # standard error, of the paired bootstrap
    resolves: float | None = None  # the smallest true difference that is found in 80 % of cases
    method: str = ""  # of p: MCNEMAR or SIGN_FLIPS
    p: float | None = None
    p_holm: float | None = None  # None: in no family; languages and other protocols
    num_gained: int | None = None  # tasks with a higher share of right samples; None: an average
    num_lost: int | None = None
    is_unlike: bool = False  # the two are not of one protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """A task that one arm gets right more often than the other."""

    benchmark: str
    task_id: str
    cluster: str
    baseline: float  # share of right samples, 0 to 1
    other: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Two:
    """Two arms, with what was drawn for both."""

    baseline: ScoredArm
    other: ScoredArm
    resampled_baseline: Drawn
    resampled_other: Drawn
    flipped: Drawn  # differences under random signs
    unlike: Collection[str]  # benchmarks that are not of one protocol

    def difference(self, name: str) -> Difference:
        """Returns the difference of one number, or why there is none."""
        lacking = [each for each in (self.baseline, self.other) if not each.has(name)]
        if lacking:
            reason = "; ".join(each.lacks(name) for each in lacking)
            return Difference(name=name, title=title_of(name), value=None, reason=reason)
        members = AVERAGES.get(name, ())
        if len(members) == 1:  # a category of one benchmark is that benchmark
            return replace(self.difference(members[0]), name=name, title=title_of(name))
        one, other = self.baseline.scores[name], self.other.scores[name]
        assert one.value is not None
        assert other.value is not None
        value = other.value - one.value
        found = Difference(
            name=name,
            title=title_of(name),
            value=value,
            reason=None,
            is_unlike=any(leaf in self.unlike for leaf in leaves(name)),
        )
        drawn_R = averaged(name, self.resampled_other) - averaged(name, self.resampled_baseline)
        error = resampled_error(drawn_R)
        if one.error is not None and other.error is not None and error is not None:
            found = replace(
                found,
                interval=_scaled(percentile_interval(drawn_R)),
                error=PERCENT * error,
                resolves=PERCENT * minimum_detectable_effect(error),
                method=SIGN_FLIPS,
                p=flipped_p(value / PERCENT, averaged(name, self.flipped)),
            )
        return found if name in AVERAGES else self._of_benchmark(found)

    def _of_benchmark(self, found: Difference) -> Difference:
        """Returns the difference of one benchmark with the tests that its tasks allow."""
        flips = self.flips(found.name)
        num_gained = sum(flip.other > flip.baseline for flip in flips)
        num_lost = len(flips) - num_gained
        found = replace(found, num_gained=num_gained, num_lost=num_lost)
        if all(_is_answered_once(each.arm, found.name) for each in (self.baseline, self.other)):
            interval = paired_interval(num_gained, num_lost, self._num_common(found.name))
            return replace(
                found,
                interval=_scaled(interval),
                method=MCNEMAR,
                p=mcnemar_p(num_gained, num_lost),
            )
        if found.error is None or found.value is None:
            return found
        num_clusters = min(
            graded.num_clusters
            for each in (self.baseline, self.other)
            if (graded := each.scores[found.name].graded) is not None
        )
        return replace(found, interval=t_interval(found.value, found.error, num_clusters))

    def flips(self, benchmark: str) -> list[Flip]:
        """Returns the tasks in common whose share of right samples is not the same."""
        if not (self.baseline.has(benchmark) and self.other.has(benchmark)):
            return []
        before = fractions(self.baseline.arm, benchmark)
        after = fractions(self.other.arm, benchmark)
        clusters = self.baseline.arm.outcomes(benchmark)[0].clusters
        return [
            Flip(
                benchmark=benchmark,
                task_id=task,
                cluster=clusters[task],
                baseline=before[task],
                other=after[task],
            )
            for task in before
            if task in after and abs(after[task] - before[task]) > _ROUNDING
        ]

    def _num_common(self, benchmark: str) -> int:
        first, second = (
            each.arm.outcomes(benchmark)[0].statuses for each in (self.baseline, self.other)
        )
        return len(first.keys() & second.keys())


def _scaled(interval: Interval | None) -> Interval | None:
    return None if interval is None else interval.scaled(PERCENT)


def _is_answered_once(arm: Arm, benchmark: str) -> bool:
    """Returns whether every task is a draw of its own, answered once by one run."""
    outcomes = arm.outcomes(benchmark)
    clusters = [outcomes[0].clusters[task] for task in outcomes[0].statuses]
    return (
        len(outcomes) == 1
        and len(set(clusters)) == len(clusters)
        and all(len(each) == 1 for each in outcomes[0].statuses.values())
    )
