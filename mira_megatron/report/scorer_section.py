"""The distilled scorers on the page: what each is, how it is asked, how its training went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from mira_megatron import layout
from mira_megatron.distill.scorer_card import EXPORT, read_card
from mira_megatron.report import figures
from mira_megatron.report.training_course import TrainingCourse, read_course
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.scoring.parameter_count import num_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedScorer:
    """One source group's scorer."""

    group: str
    sources: tuple[str, ...]
    served_model_name: str
    num_parameters: int | None  # None: an architecture that we cannot count
    reads: str  # in words
    writes: str
    max_record_tokens: int  # of a record, in its own tokens
    course: TrainingCourse | None  # None: trained elsewhere
    loss_chart: figures.Figure | None


def read_scorers(
    run_folder: Path, rubric: str, group_of_source: Mapping[str, str]
) -> tuple[TrainedScorer, ...]:
    """Returns the scorers of these sources' groups, in name order."""
    return tuple(
        _read_scorer(
            run_folder / layout.scorer(rubric, group),
            group,
            tuple(sorted(name for name, own in group_of_source.items() if own == group)),
        )
        for group in sorted(set(group_of_source.values()))
    )


def _read_scorer(folder: Path, group: str, sources: tuple[str, ...]) -> TrainedScorer:
    card = read_card(folder)
    course = read_course(folder)
    return TrainedScorer(
        group=group,
        sources=sources,
        served_model_name=card.served_model_name,
        num_parameters=num_parameters(orjson.loads((folder / EXPORT / "config.json").read_bytes())),
        reads=_what_it_reads(card.form),
        writes=_what_it_writes(card.form),
        max_record_tokens=card.max_record_tokens,
        course=course,
        loss_chart=None if course is None else figures.loss_chart(course, figures.SMALL),
    )


def _what_it_reads(form: PromptForm) -> str:
    if form.prompt == "bare":
        return "the record alone"
    with_references = " with calibration references" if form.references else ""
    return f"the instructions, the anchors{with_references}, and the record"


def _what_it_writes(form: PromptForm) -> str:
    if form.answers == "compact":
        return "a score per anchor"
    return "a score and a justification per anchor"
