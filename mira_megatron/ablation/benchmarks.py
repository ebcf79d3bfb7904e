"""pass@1 of arms on the benchmarks of the recipe's suite, in percent.

Averages are those of `mira compare` (eval/comparison/table.py). The macro average is missing unless
every benchmark of it was graded; what a claim rests on is then the mean of what was measured, each
benchmark counted once, MultiPL-E as the mean of its measured languages.

A verdict that says nothing about the program (status `infra`) is neither right nor wrong. A task
with one in any model is left out of all of them, and counted: models are compared on the same
tasks. Truncated answers, answers without code and timeouts are the model's, and wrong.

Under a resample clusters of tasks are drawn jointly (eval/statistics/resampling.py); how intervals
and tests come about: estimates.py.

Shape letters: S the score itself, then its resamples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mira_megatron.ablation.estimates import (
    ArmNumbers,
    Estimate,
    Measured,
    Values,
    arms_numbers,
)
from mira_megatron.eval.comparison.arms import Arm, unlike_benchmarks
from mira_megatron.eval.comparison.outputs import Evaluation, Outcome
from mira_megatron.eval.comparison.pairs import FAMILIES
from mira_megatron.eval.comparison.protocol import grouped_by_values
from mira_megatron.eval.comparison.scores import PERCENT, averaged
from mira_megatron.eval.comparison.table import AVERAGES, BENCHMARKS, MACRO, MICRO, leaves, title_of
from mira_megatron.eval.statistics.intervals import Interval
from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Key,
    Resampling,
    resampled_scores,
)
from mira_megatron.eval.verdicts import Status

MEASURED = "measured"  # the mean of what was measured, where the macro average is missing


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmarks:
    """What the scores of all arms stand on."""

    headline: str | None  # the number that a claim rests on; None: nothing is known
    titles: Mapping[str, str]  # of every number, the headline first
    num_tasks: Mapping[str, int]  # by benchmark, the same for all models
    num_left_out: Mapping[str, int]  # by benchmark: of unknown verdict in some model
    missing: Mapping[str, str]  # numbers that there are none of, and why
    statuses: Mapping[str, Mapping[str, Mapping[str, int]]]  # samples by arm, benchmark, status


def arms_scores(
    evaluations: Mapping[str, Evaluation],
    arms: Mapping[str, Mapping[int, str]],
    *,
    reference: str | None,
    resampling: Resampling,
) -> tuple[Benchmarks, dict[str, ArmNumbers]]:
    """Returns what was graded, and every arm's scores; above the reference is better.

    `arms` names the model of each seed, `evaluations` has each. Holm's correction covers all arms
    in two families: the headline, and its parts. Raises ValueError where models were not evaluated
    alike, with every field in which they differ.
    """
    _check_alike(evaluations)
    known, missing = _known_tasks(evaluations)
    scored = _scored(evaluations, known)
    drawn_S = _score_and_resamples(scored, resampling) if scored else {}
    graded = [name for name in known if known[name]]
    formed = _formed(graded)
    values_S = {
        model: {name: _formed_value(members, drawn_S[model]) for name, members in formed.items()}
        for model in drawn_S
    }
    lone = {name for name in graded if len(set(_first(scored, name).clusters)) < 2}
    measured = Measured(
        names=list(formed),
        values={
            model: {name: float(value_S[0]) for name, value_S in of_model.items()}
            for model, of_model in values_S.items()
        },
        drawn_R={
            model: {name: value_S[1:] for name, value_S in of_model.items()}
            for model, of_model in values_S.items()
        },
        without_spread={name for name, members in formed.items() if _has(lone, members)},
        is_lower_better=False,
        families=_families(list(formed)),
    )
    numbers = arms_numbers(measured, arms, reference=reference, resampling=resampling)
    first = next(iter(evaluations.values()))
    return Benchmarks(
        headline=next(iter(formed), None),
        titles={name: _title(name) for name in formed},
        num_tasks={name: len(known[name]) for name in graded},
        num_left_out={
            name: len(first.outcomes[name].statuses) - len(known[name]) for name in known
        },
        missing={**missing, **_missing_averages(graded, formed)},
        statuses={arm: _statuses(evaluations, models, list(known)) for arm, models in arms.items()},
    ), {arm: _within_bounds(each) for arm, each in numbers.items()}


def _check_alike(evaluations: Mapping[str, Evaluation]) -> None:
    arms = [Arm(label=model, runs=(each,)) for model, each in evaluations.items()]
    unlike = unlike_benchmarks(arms)
    if unlike:
        fields = grouped_by_values(field for each in unlike.values() for field in each)
        folders = sorted({str(each.folder.parent) for each in evaluations.values()})
        said = "\n  ".join(fields)
        raise ValueError(
            f"{', '.join(folders)}: models were not evaluated alike, so a difference need not be "
            f"the arm's:\n  {said}\nDelete the folders of those that were evaluated otherwise and "
            "run `mira eval` again"
        )


def _known_tasks(
    evaluations: Mapping[str, Evaluation],
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Returns the tasks of known verdict in every model, and why benchmarks have none."""
    names = dict.fromkeys(name for each in evaluations.values() for name in each.outcomes)
    known: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for name in names:
        without = [model for model, each in evaluations.items() if name not in each.outcomes]
        if without:
            missing[name] = f"not graded: {', '.join(without)}"
            continue
        unknown = {
            task
            for each in evaluations.values()
            for task, statuses in each.outcomes[name].statuses.items()
            if Status.INFRA in statuses
        }
        first = next(iter(evaluations.values())).outcomes[name]
        known[name] = [task for task in first.statuses if task not in unknown]
        if not known[name]:
            missing[name] = "no task whose verdict is known in every model; run `mira eval` again"
    return known, missing


def _scored(
    evaluations: Mapping[str, Evaluation], known: Mapping[str, Sequence[str]]
) -> dict[Key, ClusteredScores]:
    return {
        (model, name): _clustered(each.outcomes[name], tasks)
        for model, each in evaluations.items()
        for name, tasks in known.items()
        if tasks
    }


def _clustered(outcome: Outcome, tasks: Sequence[str]) -> ClusteredScores:
    fractions = outcome.fractions
    return ClusteredScores(
        stratum=outcome.stratum,
        scores=[PERCENT * fractions[task] for task in tasks],
        clusters=[outcome.clusters[task] for task in tasks],
    )


def _score_and_resamples(
    scored: Mapping[Key, ClusteredScores], resampling: Resampling
) -> dict[str, dict[str, Values]]:
    """Returns by model and benchmark its score and behind it those of all resamples (S,)."""
    found: dict[str, dict[str, Values]] = {}
    for (model, name), drawn_R in resampled_scores(scored, resampling).items():
        scores = scored[model, name].scores
        value = math.fsum(scores) / len(scores)
        found.setdefault(model, {})[name] = np.concatenate([[value], drawn_R])
    return found


def _first(scored: Mapping[Key, ClusteredScores], benchmark: str) -> ClusteredScores:
    return next(each for (_, name), each in scored.items() if name == benchmark)


def _formed(graded: Sequence[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns what each number is the mean of: means of benchmarks in turn; the headline first.

    A category of one benchmark is that benchmark, and has no number of its own.
    """
    if not graded:
        return {}
    whole = [name for name, of in AVERAGES.items() if len(of) > 1 and _is_whole(name, graded)]
    of_each = [tuple(leaf for leaf in leaves(name) if leaf in graded) for name in BENCHMARKS]
    of_measured = [each for each in of_each if each] or [(name,) for name in graded]
    formed = {} if MACRO in whole else {MEASURED: tuple(of_measured)}
    averages = sorted(whole, key=lambda name: name != MACRO)  # the headline before its parts
    formed |= {name: ((name,),) for name in [*averages, *graded]}
    return formed


def _formed_value(
    members: Sequence[Sequence[str]], of_benchmarks_S: Mapping[str, Values]
) -> Values:
    means_S = [
        np.mean([averaged(name, of_benchmarks_S) for name in each], axis=0) for each in members
    ]
    found_S: Values = np.mean(means_S, axis=0)
    return found_S


def _has(benchmarks: set[str], members: Sequence[Sequence[str]]) -> bool:
    return any(leaf in benchmarks for each in members for name in each for leaf in leaves(name))


def _families(names: Sequence[str]) -> list[list[str]]:
    parts = [name for name in names[1:] if name in FAMILIES["parts"]]
    return [list(names[:1]), parts or list(names[1:])]


def _is_whole(name: str, graded: Sequence[str]) -> bool:
    return all(leaf in graded for leaf in leaves(name))


def _missing_averages(
    graded: Sequence[str], formed: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, str]:
    """Returns why there is no macro average, and no average of what was graded in part."""
    found = {}
    for name in AVERAGES:
        if name == MICRO:
            continue  # lacks what the macro average lacks
        of = BENCHMARKS if name == MACRO else AVERAGES[name]
        lacking = [title_of(each) for each in of if not _is_whole(each, graded)]
        is_begun = any(leaf in graded for leaf in leaves(name))
        if name not in formed and lacking and is_begun:
            found[name] = f"{len(lacking)} of {len(of)} missing: {', '.join(lacking)}"
    return found


def _statuses(
    evaluations: Mapping[str, Evaluation], models: Mapping[int, str], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    found = {}
    for name in names:
        counted = Counter(
            status
            for model in dict.fromkeys(models.values())
            for each in evaluations[model].outcomes[name].statuses.values()
            for status in each
        )
        found[name] = {status.value: counted[status] for status in Status if counted[status]}
    return found


def _title(name: str) -> str:
    return "Mean of what was measured" if name == MEASURED else title_of(name)


def _within_bounds(numbers: ArmNumbers) -> ArmNumbers:
    """Returns scores whose intervals hold no percentage that cannot be."""
    return replace(numbers, values={name: _clipped(each) for name, each in numbers.values.items()})


def _clipped(estimate: Estimate) -> Estimate:
    interval = estimate.interval
    if interval is None:
        return estimate
    within = Interval(low=max(0.0, interval.low), high=min(PERCENT, interval.high))
    return replace(estimate, interval=within)
