"""What a group's answers are worth on the page: its mode beside full answers, and test-retest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.scoring.asked_sample import Agreement, read_summary
from mira_megatron.scoring.group_scorer import GroupScorer, group_scorer
from mira_megatron.scoring.mode_agreement import is_accepted

CSV_COLUMNS = (
    *("source_group", "answer_mode", "agreement_with_full", "min_mode_agreement", "decision"),
    *("records_compared", "test_retest", "records_retested", "not_measured"),
)
_IS_FULL = "answers are full"
_NO_GATE = "not measured: min_mode_agreement is not set"
_IS_FUNCTION = "not measured: the judge is a function of its input"
_IS_OFF = "not measured: retest_records is 0"


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedGroup:
    """What a recipe has measured of one source group's answers."""

    group: str
    answer_mode: str
    mode_agreement: str | None  # folder, relative to the run's; None: not measured
    least: float | None  # the agreement that a mode needs
    retest: str | None  # folder, likewise
    is_sampled: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupAnswers:
    """One row of the table."""

    group: str
    answer_mode: str
    least: float | None  # None: nothing was asked of the mode
    with_full: Agreement | None
    why_not_with_full: str | None  # in words, where there is none
    again: Agreement | None
    why_not_again: str | None

    @property
    def decision(self) -> str | None:
        """Returns what the gate says of the mode; None where it was not measured."""
        if self.with_full is None or self.least is None:
            return None
        return "accepted" if is_accepted(self.with_full.agreement, self.least) else "refused"


def asked_groups(recipe: Recipe) -> tuple[AskedGroup, ...]:
    """Returns the groups of a recipe that scores, none of one that does not."""
    if "score" not in recipe.values:
        return ()
    return tuple(
        _asked_group(group_scorer(recipe, group)) for group in source_groups(recipe).values()
    )


def _asked_group(scorer: GroupScorer) -> AskedGroup:
    config = scorer.judge.config
    return AskedGroup(
        group=scorer.group,
        answer_mode=config.answer_mode,
        mode_agreement=scorer.mode_agreement,
        least=config.min_mode_agreement if scorer.mode_agreement else None,
        retest=scorer.retest,
        is_sampled=config.is_sampled,
    )


def read_folders(asked: Iterable[AskedGroup]) -> list[str]:
    """Returns the folders that `read_answers` reads."""
    return [folder for each in asked for folder in (each.mode_agreement, each.retest) if folder]


def shown_settings(asked: Sequence[AskedGroup]) -> str:
    """Returns what the table shows besides files: as an input, for none of it is fingerprinted."""
    return json.dumps(
        [[each.group, each.answer_mode, each.least, each.is_sampled] for each in asked]
    )


def read_answers(run_folder: Path, asked: Iterable[AskedGroup]) -> tuple[GroupAnswers, ...]:
    """Returns the rows, in the order of the groups."""
    return tuple(_read_group(run_folder, each) for each in asked)


def _read_group(run_folder: Path, asked: AskedGroup) -> GroupAnswers:
    with_full = again = None
    if asked.mode_agreement is not None:
        with_full = read_summary(run_folder / asked.mode_agreement)
    if asked.retest is not None:
        again = read_summary(run_folder / asked.retest)
    return GroupAnswers(
        group=asked.group,
        answer_mode=asked.answer_mode,
        least=asked.least,
        with_full=with_full,
        why_not_with_full=_why_not_with_full(asked),
        again=again,
        why_not_again=_why_not_again(asked),
    )


def _why_not_with_full(asked: AskedGroup) -> str | None:
    if asked.mode_agreement is not None:
        return None
    return _IS_FULL if asked.answer_mode == "full" else _NO_GATE


def _why_not_again(asked: AskedGroup) -> str | None:
    if asked.retest is not None:
        return None
    return _IS_OFF if asked.is_sampled else _IS_FUNCTION


def answers_csv(answers: Iterable[GroupAnswers]) -> str:
    """Returns one CSV row per group; a missing number is an empty field, and its reason is last."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(map(_csv_row, answers))
    return text.getvalue()


def _csv_row(row: GroupAnswers) -> list[object]:
    return [
        row.group,
        row.answer_mode,
        *_figure(row.with_full)[:1],
        "" if row.least is None else row.least,
        row.decision or "",
        *_figure(row.with_full)[1:],
        *_figure(row.again),
        "; ".join(filter(None, (row.why_not_with_full, row.why_not_again))),
    ]


def _figure(found: Agreement | None) -> tuple[object, object]:
    if found is None:
        return "", ""
    return "" if found.agreement is None else f"{found.agreement:.6f}", found.num_records
