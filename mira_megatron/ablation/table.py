"""The table of all arms as a record, and what it finds in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mira_megatron.ablation.benchmarks import Benchmarks
from mira_megatron.ablation.bits import MEAN
from mira_megatron.ablation.contaminated import ArmHits
from mira_megatron.ablation.degraded import DegradedRow
from mira_megatron.ablation.estimates import (
    ALIKE,
    BETTER,
    WORSE,
    ArmNumbers,
    Estimate,
    Gap,
)
from mira_megatron.eval.comparison.written import p_text
from mira_megatron.report.arm_overlap import Drift, Overlap

SCHEMA_VERSION = 2
DIGITS = 4  # of bits per byte
POINT_DIGITS = 2  # of percent


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmRow:
    """One arm; None is what the base has none of. Lengths are in tokens per document."""

    arm: str
    tokens_kept: int | None  # of one pass, each document as often as it is seen
    num_steps: int | None
    mean_length: float | None  # of kept documents
    mean_length_of_candidates: float | None
    bits: Mapping[str, Estimate]  # by source group, and their mean
    gaps: Mapping[str, Gap]  # to the reference, by the same names
    scores: Mapping[str, Estimate]  # percent, by benchmark and average; empty: not evaluated
    score_gaps: Mapping[str, Gap]  # percent points


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationTable:
    """All arms beside each other."""

    recipe_name: str
    reference: str | None
    seeds: tuple[int, ...]
    resamples: int
    num_documents: Mapping[str, int]  # held out, by source group
    benchmarks: Benchmarks | None  # None: the recipe evaluates nothing
    arms: tuple[ArmRow, ...]
    overlaps: tuple[Overlap, ...]
    drifts: tuple[Drift, ...]
    degraded: tuple[DegradedRow, ...]  # empty: no source has degraded copies
    contamination: tuple[ArmHits, ...] | None  # None: no benchmarks were looked for

    @property
    def names(self) -> list[str]:
        """Returns the numbers of a row: the mean over the source groups, then each."""
        return [MEAN, *self.num_documents]

    @property
    def gaps(self) -> list[tuple[str, Mapping[str, Gap]]]:
        """Returns the arms that are compared with the reference by their bits per byte."""
        return [(row.arm, row.gaps) for row in self.arms if row.gaps]

    @property
    def gap_titles(self) -> dict[str, str]:
        """Returns what these gaps are of, with a title each: the mean first."""
        return {name: name for name in self.names}

    @property
    def score_gaps(self) -> list[tuple[str, Mapping[str, Gap]]]:
        """Returns the arms that are compared with the reference by their scores."""
        return [(row.arm, row.score_gaps) for row in self.arms if row.score_gaps]


def arm_numbers(numbers: ArmNumbers | None) -> tuple[Mapping[str, Estimate], Mapping[str, Gap]]:
    """Returns values and gaps of an arm, both empty where it has none."""
    return ({}, {}) if numbers is None else (numbers.values, numbers.gaps)


def findings(table: AblationTable) -> list[str]:
    """Returns what the means over groups and the benchmarks' headline say, in sentences."""
    if table.reference is None:
        return ["No arm is the reference, so nothing is tested. Name one as ablation.reference."]
    if len(table.seeds) < 2:
        return [
            "Each arm was trained with one seed: what two trainings of one arm differ by is not "
            "known, so no difference is tested. Give ablation.seeds at least three."
        ]
    found = _found(
        [(arm, gaps[MEAN]) for arm, gaps in table.gaps],
        table.reference,
        f"by {{:.{DIGITS}f}} bits per byte",
        "",
        "a source holds out fewer than two documents",
    )
    benchmarks = table.benchmarks
    if benchmarks is None:
        return found
    if benchmarks.headline is None:
        return [*found, "Benchmarks: no task whose verdict is known, so nothing is compared."]
    headline = benchmarks.headline
    return found + _found(
        [(arm, gaps[headline]) for arm, gaps in table.score_gaps],
        table.reference,
        f"by {{:.{POINT_DIGITS}f}} points",
        f" on benchmarks ({benchmarks.titles[headline]})",
        "no spread over seeds and tasks to test against",
    )


def _found(
    tested: Sequence[tuple[str, Gap]], reference: str, much: str, where: str, why_not: str
) -> list[str]:
    """Returns a sentence per arm that differs, and one each of those that do not or may."""
    found = [
        f"{arm} is {gap.verdict} than {reference}{where} {much.format(abs(gap.value))} "
        f"(p {_is(gap)})."
        for arm, gap in tested
        if gap.verdict in (BETTER, WORSE)
    ]
    alike = [arm for arm, gap in tested if gap.verdict == ALIKE]
    if alike:
        found.append(f"No significant difference from {reference}{where}: {', '.join(alike)}.")
    untested = [arm for arm, gap in tested if gap.p is None]
    if untested:
        found.append(f"Not tested{where}, {why_not}: {', '.join(untested)}.")
    return found


def table_json(table: AblationTable) -> dict[str, Any]:
    """Returns every number as JSON has it."""
    content = asdict(table)
    for pair, found in zip(table.overlaps, content["overlaps"], strict=True):
        found["jaccard"] = pair.jaccard
    return {
        "schema_version": SCHEMA_VERSION,
        "unit": "bits per byte",
        "unit_of_scores": "percent",
        **content,
        "findings": findings(table),
    }


def _is(gap: Gap) -> str:
    text = p_text(gap.p_holm)
    return text if text.startswith("<") else f"= {text}"
