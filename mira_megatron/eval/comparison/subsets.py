"""Scores over parts of the tasks: what a corpus did not have, and what this machine can grade.

    clean       tasks that `mira decontaminate` did not find in the corpus; those that it could not
                measure are among them
    dirty       tasks that it found
    controlled  tasks whose gold program passes on the machine that graded, where some fails

An average over a subset takes each benchmark's part of it; a benchmark without failing gold counts
whole in `controlled`. An average is missing where a part is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from mira_megatron.eval.comparison.arms import Arm
from mira_megatron.eval.comparison.scores import PERCENT, Score, fractions
from mira_megatron.eval.comparison.table import AVERAGES, leaves, title_of
from mira_megatron.eval.contamination.item_records import dirty_tasks
from mira_megatron.eval.statistics.intervals import Interval, clustered_interval

CLEAN, DIRTY, CONTROLLED = "clean", "dirty", "controlled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscore:
    """One number over a subset of its tasks, in percent, or why there is none."""

    name: str
    title: str
    subset: str
    value: float | None
    reason: str | None
    num_tasks: int | None  # None: an average
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contamination:
    """The tasks found in a corpus, by entry; or why nothing is known of an entry."""

    dirty: Mapping[str, frozenset[str]]
    unknown: Mapping[str, str]


def read_contamination(path: Path, entries: Collection[str]) -> Contamination:
    """Returns what a scan says of a suite's entries.

    Raises ValueError or FileNotFoundError where it says nothing of any.
    """
    dirty, unknown = {}, {}
    for entry in entries:
        try:
            dirty[entry] = dirty_tasks(path, entry)
        except ValueError as error:
            unknown[entry] = str(error)
    if not dirty and unknown:
        raise ValueError(next(iter(unknown.values())))
    return Contamination(dirty=dirty, unknown=unknown)


def subscores_of(
    arm: Arm, scores: Mapping[str, Score], contamination: Contamination | None
) -> tuple[Subscore, ...]:
    """Returns an arm's numbers over every subset that is known, benchmarks before averages."""
    found: list[Subscore] = []
    for subset in (CLEAN, DIRTY, CONTROLLED):
        graded = {
            name: each
            for name in arm.benchmarks
            if scores[name].value is not None
            and (each := _subscore(arm, name, subset, contamination)) is not None
        }
        found += graded.values()
        found += _averages(subset, graded, scores) if graded else []
    return tuple(found)


def _subscore(
    arm: Arm, name: str, subset: str, contamination: Contamination | None
) -> Subscore | None:
    outcome = arm.outcomes(name)[0]
    if subset == CONTROLLED:
        failing = {task for each in arm.outcomes(name) for task in each.failing}
        kept = [task for task in outcome.statuses if task not in failing]
        return _over(arm, name, subset, kept) if failing else None
    if contamination is None:
        return None
    dirty = contamination.dirty.get(outcome.entry)
    if dirty is None:
        reason = contamination.unknown.get(outcome.entry, "was not looked for")
        return _without(name, subset, reason)
    return _over(
        arm, name, subset, [t for t in outcome.statuses if (t in dirty) == (subset == DIRTY)]
    )


def _over(arm: Arm, name: str, subset: str, tasks: Sequence[str]) -> Subscore:
    if not tasks:
        return _without(name, subset, "no such task")
    by_task = fractions(arm, name)
    clusters = arm.outcomes(name)[0].clusters
    shares = [by_task[task] for task in tasks]
    interval = clustered_interval(shares, [clusters[task] for task in tasks])
    return Subscore(
        name=name,
        title=title_of(name),
        subset=subset,
        value=PERCENT * fmean(shares),
        reason=None,
        num_tasks=len(tasks),
        interval=None if interval is None else interval.scaled(PERCENT),
    )


def _without(name: str, subset: str, reason: str, num_tasks: int | None = 0) -> Subscore:
    return Subscore(
        name=name,
        title=title_of(name),
        subset=subset,
        value=None,
        reason=reason,
        num_tasks=num_tasks,
    )


def _averages(
    subset: str, graded: Mapping[str, Subscore], scores: Mapping[str, Score]
) -> list[Subscore]:
    found: dict[str, Subscore] = {}
    values = {name: each.value for name, each in graded.items()}
    if subset == CONTROLLED:
        values = {name: score.value for name, score in scores.items()} | values
    for name, members in AVERAGES.items():
        if not any(leaf in graded for leaf in leaves(name)):
            continue
        parts = {
            member: found[member].value if member in found else values.get(member)
            for member in members
        }
        lacking = [title_of(member) for member, value in parts.items() if value is None]
        if lacking:
            reason = f"{len(lacking)} of {len(members)} missing: {', '.join(lacking)}"
            found[name] = _without(name, subset, reason, None)
        else:
            found[name] = Subscore(
                name=name,
                title=title_of(name),
                subset=subset,
                value=fmean(value for value in parts.values() if value is not None),
                reason=None,
                num_tasks=None,
            )
    return list(found.values())
