"""Evaluations -> everything that is said about them; a pure function of the folders read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from mira_megatron.eval.comparison.arms import Arm, read_arms, unlike_benchmarks
from mira_megatron.eval.comparison.audit import Audit, audit
from mira_megatron.eval.comparison.differences import ScoredArm
from mira_megatron.eval.comparison.pairs import Pair, paired
from mira_megatron.eval.comparison.protocol import Unlikeness, grouped_by_values
from mira_megatron.eval.comparison.published import PublishedTable, load_published
from mira_megatron.eval.comparison.scores import Resamples, clustered_scores, scores_of
from mira_megatron.eval.comparison.subsets import (
    Contamination,
    read_contamination,
    subscores_of,
)
from mira_megatron.eval.comparison.table import BENCHMARKS, CATEGORIES, MACRO, SUMMARY, title_of
from mira_megatron.eval.statistics.resampling import Resampling, resampled_scores

UNPAIRED = "unpaired, published point estimate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is to be compared, and how."""

    folders: Sequence[Path]
    labelled: Sequence[tuple[str, Path]]  # name, folder; a name may come several times
    against: Path | None
    baseline: str | None
    contamination: Path | None  # items.jsonl of a scan, or its folder
    allows_unlike: bool
    resampling: Resampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """One number of ours beside a published one, which comes without its verdicts.

    There is none where ours is of some of the tasks alone.
    """

    arm: str
    row: str
    name: str
    title: str
    ours: float
    published: Decimal  # a macro is the recomputed one
    difference: float  # ours - published
    is_within: bool | None  # the published number lies in our interval; None: we have none


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A published table, its audit, and our numbers beside its rows."""

    table: PublishedTable
    audit: Audit
    beside: tuple[Beside, ...]

    def beside_of(self, arm: str) -> list[tuple[str, dict[str, Beside]]]:
        """Returns each published row with our numbers beside it, by name; empty where none are."""
        by_row: dict[str, dict[str, Beside]] = {}
        for each in self.beside:
            if each.arm == arm:
                by_row.setdefault(each.row, {})[each.name] = each
        return list(by_row.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All arms, every pair, and the published table."""

    arms: tuple[ScoredArm, ...]
    pairs: tuple[Pair, ...]
    unlike: Mapping[str, Sequence[Unlikeness]]  # by benchmark
    published: Published | None
    baseline: str | None
    resampling: Resampling

    @property
    def names(self) -> list[str]:
        """Returns every number's name, in the order of the arms' scores."""
        return list(dict.fromkeys(name for each in self.arms for name in each.scores))

    def missing(self) -> list[tuple[str, str, str]]:
        """Returns arm, number and what it lacks: itself, or some of the benchmark's tasks."""
        found = []
        for each in self.arms:
            for name, score in each.scores.items():
                if score.reason is not None and name in (*SUMMARY, *BENCHMARKS):
                    found.append((each.arm.label, score.title, score.reason))
                elif score.graded is not None and score.graded.is_subset:
                    said = (
                        f"{score.graded.num_tasks:,} of its tasks alone: not the benchmark's score"
                    )
                    found.append((each.arm.label, score.title, said))
        return found


def compare(options: Options) -> Comparison:
    """Returns the comparison.

    Raises ValueError for arms of unlike protocols unless they are allowed, with every field; and
    ValueError or FileNotFoundError for what is wrong with a file.
    """
    arms = read_arms(options.folders, options.labelled)
    if not arms and options.against is None:
        raise ValueError("nothing to compare: give folders, or a published table with --against")
    unlike = unlike_benchmarks(arms)
    if unlike and not options.allows_unlike:
        fields = (field for each in unlike.values() for field in each)
        said = "\n  ".join(grouped_by_values(fields))
        raise ValueError(
            f"these are not of one protocol, so a difference need not be the model's:\n  {said}\n"
            "Evaluate them alike, or say --allow-unlike: they are compared and marked"
        )
    resamples = resampled_scores(
        {
            (arm.label, name): clustered_scores(arm, name)
            for arm in arms
            for name in arm.benchmarks
            if arm.is_whole(name)
        },
        options.resampling,
    )
    contamination = None
    if options.contamination is not None:
        entries = {o.entry for arm in arms for name in arm.benchmarks for o in arm.outcomes(name)}
        contamination = read_contamination(options.contamination, sorted(entries))
    scored = tuple(_scored(arm, resamples, contamination) for arm in arms)
    return Comparison(
        arms=scored,
        pairs=tuple(
            paired(
                scored,
                resamples,
                options.resampling,
                unlike=unlike,
                baseline=options.baseline,
            )
        ),
        unlike=unlike,
        published=None if options.against is None else _published(options.against, scored),
        baseline=options.baseline,
        resampling=options.resampling,
    )


def _scored(arm: Arm, resamples: Resamples, contamination: Contamination | None) -> ScoredArm:
    scores = scores_of(arm, resamples)
    return ScoredArm(arm=arm, scores=scores, subscores=subscores_of(arm, scores, contamination))


def _published(path: Path, arms: Sequence[ScoredArm]) -> Published:
    table = load_published(path)
    audited = audit(table)
    recomputed = {row.label: row.recomputed for row in audited.rows}
    beside = []
    for each in arms:
        for row in table.rows:
            numbers = {**row.stated, MACRO: recomputed[row.label]}
            for name in (*CATEGORIES, MACRO):
                number, score = numbers.get(name), each.scores[name]
                if number is None or score.value is None or score.is_partial:
                    continue
                within = score.interval
                beside.append(
                    Beside(
                        arm=each.arm.label,
                        row=row.label,
                        name=name,
                        title=title_of(name),
                        ours=score.value,
                        published=number,
                        difference=score.value - float(number),
                        is_within=None
                        if within is None
                        else within.low <= float(number) <= within.high,
                    )
                )
    return Published(table=table, audit=audited, beside=tuple(beside))
