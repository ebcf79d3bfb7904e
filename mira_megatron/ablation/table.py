"""The table of all arms as a record, and what it finds in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mira_megatron.ablation.bits import MEAN, Estimate, Gap
from mira_megatron.eval.comparison.written import p_text
from mira_megatron.report.arm_overlap import Overlap

SCHEMA_VERSION = 1
DIGITS = 4  # of bits per byte


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


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationTable:
    """All arms beside each other."""

    recipe_name: str
    reference: str | None
    seeds: tuple[int, ...]
    resamples: int
    num_documents: Mapping[str, int]  # held out, by source group
    arms: tuple[ArmRow, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def names(self) -> list[str]:
        """Returns the numbers of a row: the source groups, then their mean."""
        return [*self.num_documents, MEAN]

    @property
    def compared(self) -> list[ArmRow]:
        """Returns the arms that are compared with the reference."""
        return [row for row in self.arms if row.gaps]


def findings(table: AblationTable) -> list[str]:
    """Returns what the means over groups say, in sentences."""
    if table.reference is None:
        return ["No arm is the reference, so nothing is tested. Name one as ablation.reference."]
    if len(table.seeds) < 2:
        return [
            "Each arm was trained with one seed: what two trainings of one arm differ by is not "
            "known, so no difference is tested. Give ablation.seeds at least three."
        ]
    tested = [(row.arm, row.gaps[MEAN]) for row in table.compared]
    found = [
        f"{arm} is {gap.verdict} than {table.reference} by {abs(gap.value):.{DIGITS}f} bits per "
        f"byte (p {_is(gap)})."
        for arm, gap in tested
        if gap.verdict in ("better", "worse")
    ]
    alike = [arm for arm, gap in tested if gap.verdict == "no significant difference"]
    if alike:
        found.append(f"No significant difference from {table.reference}: {', '.join(alike)}.")
    untested = [arm for arm, gap in tested if gap.p is None]
    if untested:
        found.append(
            f"Not tested, a source holds out fewer than two documents: {', '.join(untested)}."
        )
    return found


def table_json(table: AblationTable) -> dict[str, Any]:
    """Returns every number as JSON has it."""
    content = asdict(table)
    for row, found in zip(table.arms, content["arms"], strict=True):
        for name, gap in row.gaps.items():
            found["gaps"][name]["verdict"] = gap.verdict
    for pair, found in zip(table.overlaps, content["overlaps"], strict=True):
        found["jaccard"] = pair.jaccard
    return {
        "schema_version": SCHEMA_VERSION,
        "unit": "bits per byte",
        **content,
        "findings": findings(table),
    }


def _is(gap: Gap) -> str:
    text = p_text(gap.p_holm)
    return text if text.startswith("<") else f"= {text}"
