"""Pairs of arms, with p values corrected for how many there are.

Holm's correction covers every pair at once, in two families: the macro average, the one number that
a claim rests on; and all its parts (benchmarks, categories of several, mean of nine). Languages and
other protocols are in neither: they explain a number, and claim nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from mira_megatron.eval.comparison.differences import Difference, Flip, ScoredArm, Two
from mira_megatron.eval.comparison.scores import Resamples, clustered_scores, of_arm
from mira_megatron.eval.comparison.table import AVERAGES, BENCHMARKS, MACRO
from mira_megatron.eval.statistics.paired import holm
from mira_megatron.eval.statistics.resampling import ClusteredScores, Resampling
from mira_megatron.eval.statistics.sign_flips import flipped_differences

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "macro": (MACRO,),
    "parts": tuple(
        dict.fromkeys(
            (
                *BENCHMARKS,
                *(name for name, members in AVERAGES.items() if len(members) > 1 and name != MACRO),
            )
        )
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two arms."""

    baseline: str
    other: str
    differences: Mapping[str, Difference]  # by name
    flips: tuple[Flip, ...]


def paired(
    arms: Sequence[ScoredArm],
    resamples: Resamples,
    resampling: Resampling,
    *,
    unlike: Collection[str],
    baseline: str | None,
) -> list[Pair]:
    """Returns every pair of arms, or every arm beside the baseline, with p values adjusted.

    `unlike`: benchmarks whose arms are not of one protocol. Raises ValueError for a baseline that
    is no arm.
    """
    labels = [each.arm.label for each in arms]
    if baseline is not None and baseline not in labels:
        raise ValueError(f"--baseline {baseline!r} is none of the arms: {', '.join(labels)}")
    clustered = {each.arm.label: _clustered(each) for each in arms}
    return _adjusted(
        [
            _pair(
                Two(
                    baseline=first,
                    other=second,
                    resampled_baseline=of_arm(first.arm.label, resamples),
                    resampled_other=of_arm(second.arm.label, resamples),
                    flipped=flipped_differences(
                        clustered[first.arm.label], clustered[second.arm.label], resampling
                    ),
                    unlike=unlike,
                )
            )
            for number, first in enumerate(arms)
            for second in (arms[number + 1 :] if baseline is None else arms)
            if first is not second and baseline in (None, first.arm.label)
        ]
    )


def _clustered(scored: ScoredArm) -> dict[str, ClusteredScores]:
    return {
        name: clustered_scores(scored.arm, name)
        for name in scored.arm.benchmarks
        if scored.has(name)
    }


def _pair(two: Two) -> Pair:
    names = list(dict.fromkeys([*two.baseline.scores, *two.other.scores]))
    return Pair(
        baseline=two.baseline.arm.label,
        other=two.other.arm.label,
        differences={name: two.difference(name) for name in names},
        flips=tuple(flip for name in names if name not in AVERAGES for flip in two.flips(name)),
    )


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    adjusted: dict[tuple[int, str], float] = {}
    for names in FAMILIES.values():
        tested = [
            (number, name, p)
            for number, pair in enumerate(pairs)
            for name in names
            if name in pair.differences and (p := pair.differences[name].p) is not None
        ]
        for (number, name, _), p_holm in zip(tested, holm([p for *_, p in tested]), strict=True):
            adjusted[number, name] = p_holm
    return [
        replace(
            pair,
            differences={
                name: replace(each, p_holm=adjusted.get((number, _tested_as(name))))
                for name, each in pair.differences.items()
            },
        )
        for number, pair in enumerate(pairs)
    ]


def _tested_as(name: str) -> str:
    members = AVERAGES.get(name, ())
    return members[0] if len(members) == 1 else name
