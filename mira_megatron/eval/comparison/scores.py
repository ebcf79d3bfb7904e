"""Scores of one arm with intervals: every graded benchmark, and the averages of the table.

A benchmark's interval: Wilson's where each task is a draw of its own with one sample, else Wilson's
for as many draws as the clusters are worth. An average's interval: percentiles of the joint cluster
bootstrap. All in percent.

Shape letters: R resamples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from mira_megatron.eval.comparison.arms import Arm
from mira_megatron.eval.comparison.outputs import Outcome
from mira_megatron.eval.comparison.table import AVERAGES, leaves, title_of
from mira_megatron.eval.statistics.intervals import (
    Interval,
    clustered_interval,
    clustered_standard_error,
    standard_error,
    wilson,
)
from mira_megatron.eval.statistics.loss import LOST, LossBounds, loss_bounds
from mira_megatron.eval.statistics.pass_at_k import pass_at_k
from mira_megatron.eval.statistics.power import minimum_detectable_effect
from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Key,
    percentile_interval,
    resampled_error,
)
from mira_megatron.eval.verdicts import Status

PERCENT = 100.0
_KS = (1, 5, 10, 100)

Resamples = Mapping[Key, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded:
    """What a benchmark's score stands on beside the number; standard errors in points."""

    num_tasks: int
    num_clusters: int
    num_samples: int  # over all runs
    is_subset: bool
    statuses: Mapping[str, int]  # samples by status, of all runs
    pass_at: Mapping[int, float]  # by k, as far as every task has k samples
    bounds: LossBounds  # percent
    wilson: Interval | None  # tasks as independent draws; None: more than one sample of a task
    error_of_tasks: float | None  # standard error with tasks as independent draws
    fingerprint: str  # of the protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One number of one arm, in percent, or why there is none."""

    name: str
    title: str
    value: float | None
    reason: str | None  # why there is no value
    interval: Interval | None = None
    method: str = ""  # of the interval: wilson, clustered or bootstrap
    no_interval: str | None = None  # why a value has no interval
    error: float | None = None  # standard error, points
    resolves: float | None = None  # points by which another run must differ, both drawn anew
    highest: float | None = None  # with every lost sample right; the value has them all wrong
    by_run: tuple[float, ...] = ()
    deviation_of_runs: float | None = None  # standard deviation of the runs' values
    graded: Graded | None = None  # None: an average


def fractions(arm: Arm, benchmark: str) -> dict[str, float]:
    """Returns the share of right samples by task, the mean over an arm's runs."""
    by_run = [outcome.fractions for outcome in arm.outcomes(benchmark)]
    return {task: fmean(each[task] for each in by_run) for task in by_run[0]}


def clustered_scores(arm: Arm, benchmark: str) -> ClusteredScores:
    """Returns a benchmark's task scores as the bootstrap draws them."""
    outcome = arm.outcomes(benchmark)[0]
    by_task = fractions(arm, benchmark)
    return ClusteredScores(
        stratum=outcome.stratum,
        scores=list(by_task.values()),
        clusters=[outcome.clusters[task] for task in by_task],
    )


def missing_reason(arm: Arm, name: str) -> str | None:
    """Returns why an arm has no such number; None where it has."""
    if name not in AVERAGES or arm.outcomes(name):
        num_runs = len(arm.outcomes(name))
        if num_runs == 0:
            return "not graded: no results in " + ", ".join(str(run.folder) for run in arm.runs)
        if num_runs < len(arm.runs):
            return f"graded in {num_runs} of {len(arm.runs)} runs"
        return None
    missing = [member for member in AVERAGES[name] if missing_reason(arm, member) is not None]
    if not missing:
        return None
    return f"{len(missing)} of {len(AVERAGES[name])} missing: {', '.join(map(title_of, missing))}"


def scores_of(arm: Arm, resamples: Resamples) -> dict[str, Score]:
    """Returns every number of an arm by name: what was graded, then the table's averages."""
    found = {name: _benchmark_score(arm, name, resamples) for name in arm.benchmarks}
    for name, members in AVERAGES.items():
        for member in members:
            if member not in found and member not in AVERAGES:
                found[member] = _missing(arm, member)
        if name not in found:
            found[name] = _average_score(arm, name, found, resamples)
    return found


def averaged(name: str, values: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Returns what the values of graded benchmarks (R,) come to for a number of the table."""
    if name in values:
        return values[name]
    mean_R: npt.NDArray[np.float64] = np.mean(
        [averaged(member, values) for member in AVERAGES[name]], axis=0
    )
    return mean_R


def of_arm(label: str, resamples: Resamples) -> dict[str, npt.NDArray[np.float64]]:
    """Returns the resamples of one arm by benchmark."""
    return {name: values for (arm, name), values in resamples.items() if arm == label}


def _missing(arm: Arm, name: str) -> Score:
    return Score(name=name, title=title_of(name), value=None, reason=missing_reason(arm, name))


def _benchmark_score(arm: Arm, name: str, resamples: Resamples) -> Score:
    if not arm.is_whole(name):
        return _missing(arm, name)
    outcomes = arm.outcomes(name)
    scored = clustered_scores(arm, name)
    is_single = len(outcomes) == 1 and all(len(each) == 1 for each in outcomes[0].statuses.values())
    is_independent = len(set(scored.clusters)) == len(scored.clusters)
    value = math.fsum(scored.scores) / len(scored.scores)
    own_wilson = wilson(value, len(scored.scores)) if is_single else None
    interval, method = (
        (own_wilson, "wilson")
        if own_wilson is not None and is_independent
        else (clustered_interval(scored.scores, scored.clusters), "clustered")
    )
    error = clustered_standard_error(scored.scores, scored.clusters)
    bounds = _mean_bounds(outcomes)
    by_run = tuple(PERCENT * fmean(outcome.fractions.values()) for outcome in outcomes)
    return Score(
        name=name,
        title=title_of(name),
        value=PERCENT * value,
        reason=None,
        interval=None if interval is None else interval.scaled(PERCENT),
        method=method if interval is not None else "",
        no_interval="one cluster of tasks" if interval is None else None,
        error=None if error is None else PERCENT * error,
        resolves=_resolves(error),
        highest=bounds.highest,
        by_run=by_run,
        deviation_of_runs=stdev(by_run) if len(by_run) > 1 else None,
        graded=_graded(outcomes, scored, own_wilson, bounds),
    )


def _graded(
    outcomes: Sequence[Outcome],
    scored: ClusteredScores,
    own_wilson: Interval | None,
    bounds: LossBounds,
) -> Graded:
    samples = [status for each in outcomes for row in each.statuses.values() for status in row]
    counted = Counter(samples)
    error = standard_error(scored.scores)
    return Graded(
        num_tasks=len(scored.scores),
        num_clusters=len(set(scored.clusters)),
        num_samples=len(samples),
        is_subset=any(outcome.is_subset for outcome in outcomes),
        statuses={status.value: counted[status] for status in Status if counted[status]},
        pass_at=_pass_at(outcomes),
        bounds=bounds,
        wilson=None if own_wilson is None else own_wilson.scaled(PERCENT),
        error_of_tasks=None if error is None else PERCENT * error,
        fingerprint=outcomes[0].protocol.fingerprint,
    )


def _average_score(arm: Arm, name: str, found: Mapping[str, Score], resamples: Resamples) -> Score:
    members = [found[member] for member in AVERAGES[name]]
    values = [member.value for member in members if member.value is not None]
    if len(values) < len(members):
        return _missing(arm, name)
    if len(members) == 1:  # the same number under the category's name
        return replace(members[0], name=name, title=title_of(name), graded=None)
    lone = [title_of(leaf) for leaf in leaves(name) if _num_clusters(arm, leaf) < 2]
    drawn_R = averaged(name, of_arm(arm.label, resamples))
    interval = None if lone else _clipped(percentile_interval(drawn_R))
    error = None if lone else resampled_error(drawn_R)
    by_run = tuple(fmean(each) for each in zip(*(member.by_run for member in members), strict=True))
    no_interval = f"one cluster of tasks in {', '.join(lone)}" if lone else "too few tasks"
    return Score(
        name=name,
        title=title_of(name),
        value=fmean(values),
        reason=None,
        interval=None if interval is None else interval.scaled(PERCENT),
        method="bootstrap" if interval is not None else "",
        no_interval=no_interval if interval is None else None,
        error=None if error is None else PERCENT * error,
        resolves=_resolves(error),
        highest=fmean(member.highest for member in members if member.highest is not None),
        by_run=by_run,
        deviation_of_runs=stdev(by_run) if len(by_run) > 1 else None,
    )


def _clipped(interval: Interval | None) -> Interval | None:
    if interval is None:
        return None
    return Interval(low=max(0.0, interval.low), high=min(1.0, interval.high))


def _num_clusters(arm: Arm, benchmark: str) -> int:
    outcome = arm.outcomes(benchmark)[0]
    return len({outcome.clusters[task] for task in outcome.statuses})


def _resolves(error: float | None) -> float | None:
    """Returns the difference that two such runs resolve, whose tasks were drawn independently."""
    return None if error is None else PERCENT * minimum_detectable_effect(math.sqrt(2) * error)


def _pass_at(outcomes: Sequence[Outcome]) -> dict[int, float]:
    fewest = min(len(each) for outcome in outcomes for each in outcome.statuses.values())
    return {
        k: PERCENT
        * fmean(
            fmean(
                pass_at_k(len(each), sum(status is Status.PASS for status in each), k)
                for each in outcome.statuses.values()
            )
            for outcome in outcomes
        )
        for k in _KS
        if k <= fewest
    }


def _mean_bounds(outcomes: Sequence[Outcome]) -> LossBounds:
    each = [loss_bounds(outcome.statuses) for outcome in outcomes]
    answered = [bounds.of_answered for bounds in each if bounds.of_answered is not None]
    return LossBounds(
        lowest=PERCENT * fmean(bounds.lowest for bounds in each),
        highest=PERCENT * fmean(bounds.highest for bounds in each),
        highest_by_infra=PERCENT * fmean(bounds.highest_by_infra for bounds in each),
        of_answered=PERCENT * fmean(answered) if answered else None,
    )


def num_lost(statuses: Mapping[str, int]) -> int:
    """Returns how many samples were lost on the way to a verdict about code."""
    return sum(statuses.get(status.value, 0) for status in LOST)
