"""The table of sources: counts, tokens and scores of an arm, and the same as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome

CSV_COLUMNS = (
    "arm",
    "source",
    "source_group",
    "num_records",
    "num_tokens",
    "num_kept",
    "tokens_kept",
    "kept_token_fraction",
    "tokens_seen",
    "num_held_out",
    "num_repeats_held_out",
    "num_in_another_arm",
    "num_no_score",
    "num_not_selected",
    "num_denied",
    "num_beyond_cap",
    "num_not_trained_on",
    "num_scored",
    "mean_score",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSummary:
    """One source (or all of them) under one arm; the outcomes add up to the records."""

    source: str
    source_group: str
    num_records: int
    num_tokens: int
    tokens_kept: int  # each document counted once
    tokens_seen: int  # in one pass, each document as often as it is seen
    num_kept: int
    num_held_out: int
    num_repeats_held_out: int
    num_in_another_arm: int
    num_no_score: int
    num_not_selected: int
    num_denied: int  # by masks made elsewhere
    num_beyond_cap: int
    num_not_trained_on: int  # their source is excluded or left out
    num_scored: int
    score_sum: float

    @property
    def mean_score(self) -> float | None:
        """Returns the mean over records that have a score, held-out ones included."""
        return self.score_sum / self.num_scored if self.num_scored else None


def summarise_source(judged: JudgedSource) -> SourceSummary:
    """Returns the counts of one source."""
    counts = np.bincount(judged.outcomes_D, minlength=len(Outcome)).tolist()
    is_kept_D = judged.outcomes_D == Outcome.KEPT
    return SourceSummary(
        source=judged.source,
        source_group=judged.source_group or judged.scope.name,
        num_records=len(judged.tokens_D),
        num_tokens=int(judged.tokens_D.sum()),
        tokens_kept=int(judged.tokens_D[is_kept_D].sum()),
        tokens_seen=judged.tokens_seen,
        num_kept=counts[Outcome.KEPT],
        num_held_out=counts[Outcome.HELD_OUT],
        num_repeats_held_out=counts[Outcome.REPEATS_HELD_OUT],
        num_in_another_arm=counts[Outcome.IN_ANOTHER_ARM],
        num_no_score=counts[Outcome.NO_SCORE],
        num_not_selected=counts[Outcome.NOT_SELECTED],
        num_denied=counts[Outcome.DENIED],
        num_beyond_cap=counts[Outcome.BEYOND_CAP],
        num_not_trained_on=counts[Outcome.NOT_TRAINED_ON],
        num_scored=int(judged.is_scored_D.sum()),
        score_sum=float(judged.scores_D[judged.is_scored_D].sum(dtype=np.float64)),
    )


def total(rows: Sequence[SourceSummary]) -> SourceSummary:
    """Returns the sum of all sources."""
    return SourceSummary(
        source="all sources",
        source_group="",
        num_records=sum(row.num_records for row in rows),
        num_tokens=sum(row.num_tokens for row in rows),
        tokens_kept=sum(row.tokens_kept for row in rows),
        tokens_seen=sum(row.tokens_seen for row in rows),
        num_kept=sum(row.num_kept for row in rows),
        num_held_out=sum(row.num_held_out for row in rows),
        num_repeats_held_out=sum(row.num_repeats_held_out for row in rows),
        num_in_another_arm=sum(row.num_in_another_arm for row in rows),
        num_no_score=sum(row.num_no_score for row in rows),
        num_not_selected=sum(row.num_not_selected for row in rows),
        num_denied=sum(row.num_denied for row in rows),
        num_beyond_cap=sum(row.num_beyond_cap for row in rows),
        num_not_trained_on=sum(row.num_not_trained_on for row in rows),
        num_scored=sum(row.num_scored for row in rows),
        score_sum=sum(row.score_sum for row in rows),
    )


def sources_csv(arms: Iterable[JudgedArm]) -> str:
    """Returns one CSV row per arm and source; a missing number is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for arm in arms:
        writer.writerows(_csv_row(arm.arm, summarise_source(judged)) for judged in arm.sources)
    return text.getvalue()


def _csv_row(arm: str, row: SourceSummary) -> list[object]:
    mean_score, share = row.mean_score, _fraction(row.tokens_kept, row.num_tokens)
    return [
        arm,
        row.source,
        row.source_group,
        row.num_records,
        row.num_tokens,
        row.num_kept,
        row.tokens_kept,
        "" if share is None else f"{share:.6f}",
        row.tokens_seen,
        row.num_held_out,
        row.num_repeats_held_out,
        row.num_in_another_arm,
        row.num_no_score,
        row.num_not_selected,
        row.num_denied,
        row.num_beyond_cap,
        row.num_not_trained_on,
        row.num_scored,
        "" if mean_score is None else f"{mean_score:.6f}",
    ]


def _fraction(part: int, whole: int) -> float | None:
    return part / whole if whole else None
