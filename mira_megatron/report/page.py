"""The work behind `mira report`; apart from its unit because it imports the template engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.atomic_files import write_bytes
from mira_megatron.manifest import Counts
from mira_megatron.records import NUM_SLOTS, RATING_STATUSES
from mira_megatron.reliability.cells import follows
from mira_megatron.reliability.reliability import MIN_RHO
from mira_megatron.report import figures
from mira_megatron.report.agreement import SourceAgreement, read_agreement, with_decisions
from mira_megatron.report.answers_section import answers_csv, read_answers
from mira_megatron.report.arm_overlap import (
    drift,
    overlaps,
    read_languages,
)
from mira_megatron.report.examples import (
    EXCERPT_CHARS,
    NUM_EXAMPLES,
    Example,
    choose_examples,
    read_examples,
)
from mira_megatron.report.groups_section import read_families
from mira_megatron.report.judge_names import judge_names
from mira_megatron.report.left_behind import read_ingest_drops, read_ratings_overview
from mira_megatron.report.outcomes import JudgedArm, read_arm
from mira_megatron.report.page_script import embedded_json, page_script
from mira_megatron.report.rendering import render
from mira_megatron.report.report import ReportSettings
from mira_megatron.report.rubric_section import RubricGroup, read_rubric
from mira_megatron.report.sampled_records import MAX_RECORDS, TEXT_CHARS, records_data
from mira_megatron.report.scorer_section import TrainedScorer, read_scorers
from mira_megatron.report.sensitivity_section import masked_arms, read_sensitivities
from mira_megatron.report.source_table import (
    SourceSummary,
    sources_csv,
    summarise_source,
    total,
)
from mira_megatron.report.training_course import (
    CoverageRow,
    TrainingCourse,
    read_course,
    read_coverage,
)
from mira_megatron.report.what_if_data import what_if_data
from mira_megatron.retention.documents import read_documents
from mira_megatron.stage import WorkResult, Workspace

PAGE = "index.html"
SOURCES_CSV = "sources.csv"
ANSWERS_CSV = "answers.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSection:
    """All the page says about one arm."""

    judged: JudgedArm
    rows: tuple[SourceSummary, ...]
    total: SourceSummary
    histograms: tuple[figures.Histogram, ...]
    first_out_scores: Mapping[str, float | None]  # by scope name
    course: TrainingCourse | None  # None where the recipe trains nothing
    loss_chart: figures.Figure | None
    coverage: tuple[CoverageRow, ...]
    instruct_course: TrainingCourse | None  # None where the recipe tunes nothing
    instruct_chart: figures.Figure | None
    kept: tuple[Example, ...]
    dropped: tuple[Example, ...]


def write_report(workspace: Workspace, settings: ReportSettings) -> WorkResult:
    """Writes the page, and its tables of sources and of answers as CSV."""
    documents = read_documents(workspace, sorted([*settings.groups, *settings.adopted]))
    rubric = read_rubric(workspace.run.folder, settings.rubric, settings.groups)
    sections = [
        _arm_section(workspace, settings, rubric, arm, documents) for arm in settings.score_tables
    ]
    answers = read_answers(workspace.run.folder, settings.asked)
    context = _context(workspace, settings, documents, sections)
    context |= _choice_context(workspace, settings, rubric, documents, sections)
    context |= {
        "rubric": rubric.values(),
        "answers": answers,
        "families": read_families(workspace.run.folder, settings.rubric, settings.grouped),
    }
    write_bytes(workspace.folder / PAGE, render("page.html.j2", context).encode())
    csv_text = sources_csv(section.judged for section in sections)
    write_bytes(workspace.folder / SOURCES_CSV, csv_text.encode())
    if answers:
        write_bytes(workspace.folder / ANSWERS_CSV, answers_csv(answers).encode())
    return WorkResult(
        counts=Counts(
            num_in=sum(table.num_rows for table in documents.values()),
            num_out=sum(len(section.kept) + len(section.dropped) for section in sections),
            totals={"arms": len(sections)},
        )
    )


def _with_records(judged: JudgedArm, settings: ReportSettings) -> JudgedArm:
    own = tuple(source for source in judged.sources if source.source in settings.groups)
    return replace(judged, sources=own)


def _context(
    workspace: Workspace,
    settings: ReportSettings,
    documents: Mapping[str, pa.Table],
    sections: Sequence[ArmSection],
) -> dict[str, object]:
    ratings = read_ratings_overview(workspace, settings.rubric, tuple(settings.groups))
    scorers = (
        read_scorers(workspace.run.folder, settings.rubric, settings.groups)
        if settings.has_scorers
        else ()
    )
    own_scorers = [scorer.served_model_name for scorer in scorers]
    return {
        "recipe_name": settings.recipe_name,
        "seed": settings.seed,
        "num_sources": len(documents),
        "num_records": sum(table.num_rows for table in documents.values()),
        "num_tokens": sum(pc.sum(table["num_tokens"]).as_py() for table in documents.values()),
        "sections": sections,
        "ratings": ratings,
        "judges": judge_names(ratings.models, own_scorers),
        "statuses": RATING_STATUSES,
        "ingest_drops": read_ingest_drops(workspace, tuple(settings.groups)),
        "num_examples": NUM_EXAMPLES,
        "excerpt_chars": EXCERPT_CHARS,
        **_scorer_context(workspace, settings, scorers),
    }


def _choice_context(
    workspace: Workspace,
    settings: ReportSettings,
    rubric: Mapping[str, RubricGroup],
    documents: Mapping[str, pa.Table],
    sections: Sequence[ArmSection],
) -> dict[str, object]:
    """Returns what the page needs to try another choice, to compare arms and to browse records."""
    arms = [section.judged for section in sections]
    sources = tuple(sorted(settings.groups))
    script, script_source = page_script()
    languages = read_languages(workspace, sources, documents, settings.seed)
    return {
        "script": script,
        "script_source": script_source,
        "overlaps": overlaps(arms),
        "drifts": [drift(arm, settings.families, languages) for arm in arms],
        "num_language_records": sum(len(rows) for rows, _ in languages.values()),
        "has_records": bool(settings.groups),
        "max_browsed": MAX_RECORDS,
        "browsed_chars": TEXT_CHARS,
        "records": embedded_json(
            records_data(
                workspace,
                rubric=settings.rubric,
                seed=settings.seed,
                anchor_names=_anchor_names(settings, rubric),
                arms=arms,
            )
        ),
        "what_if": embedded_json(
            what_if_data(
                workspace,
                rubric=settings.rubric,
                seed=settings.seed,
                sources=sources,
                documents=documents,
                arms=arms,
                agreements=_agreements(workspace, settings),
                min_rho=MIN_RHO,
            )
        ),
    }


def _anchor_names(
    settings: ReportSettings, rubric: Mapping[str, RubricGroup]
) -> dict[str, list[str]]:
    """Returns the fifteen anchors' names of every source that has records."""
    return {
        source: [anchor.name for anchor in rubric[group].anchors]
        for source, group in settings.groups.items()
    }


def _agreements(workspace: Workspace, settings: ReportSettings) -> list[SourceAgreement]:
    """Returns what was measured of every source; nothing where the recipe measures nothing."""
    if not settings.has_reliability:
        return []
    folder, rubric = workspace.run.folder, settings.rubric
    found = [read_agreement(folder, rubric, source) for source in sorted(settings.groups)]
    return [
        with_decisions(agreement, folder, settings.masking) if settings.masking else agreement
        for agreement in found
        if agreement
    ]


def _scorer_context(
    workspace: Workspace, settings: ReportSettings, scorers: Sequence[TrainedScorer]
) -> dict[str, object]:
    """Returns what the page says of the scorers; nothing of what the recipe does not make."""
    agreements = _agreements(workspace, settings)
    models = {model for agreement in agreements for model in agreement.models}
    return {
        "scorers": scorers,
        "agreements": agreements,
        "answerers": judge_names(models, [scorer.served_model_name for scorer in scorers]),
        "groups": settings.groups,
        "follows": follows,
        "masking": settings.masking,
        "sensitivities": read_sensitivities(
            workspace.run.folder, masked_arms(settings.score_tables, settings.masking)
        ),
        "min_rho": MIN_RHO,
        "num_slots": NUM_SLOTS,
    }


def _arm_section(
    workspace: Workspace,
    settings: ReportSettings,
    rubric: Mapping[str, RubricGroup],
    arm: str,
    documents: Mapping[str, pa.Table],
) -> ArmSection:
    judged = read_arm(workspace, arm, documents)
    rows = tuple(summarise_source(source) for source in judged.sources)
    checkpoints = workspace.run.folder / layout.checkpoints(arm)
    course = read_course(checkpoints) if settings.has_training else None
    instruct = workspace.run.folder / layout.instruct(arm)
    instruct_course = read_course(instruct) if settings.has_instruct else None
    anchor_names = _anchor_names(settings, rubric)
    kept, dropped = (
        read_examples(
            workspace,
            settings.rubric,
            anchor_names,
            # Of adopted sources there is no text to show.
            choose_examples(_with_records(judged, settings), is_kept=is_kept, seed=settings.seed),
        )
        for is_kept in (True, False)
    )
    return ArmSection(
        judged=judged,
        rows=rows,
        total=total(rows),
        histograms=tuple(
            figures.histogram(source) for source in judged.sources if source.is_scored_D.any()
        ),
        first_out_scores={scope.name: judged.score_of(scope.first_out) for scope in judged.scopes},
        course=course,
        loss_chart=_loss_chart(course),
        coverage=() if course is None else read_coverage(workspace.run.folder, arm),
        instruct_course=instruct_course,
        instruct_chart=_loss_chart(instruct_course),
        kept=tuple(kept),
        dropped=tuple(dropped),
    )


def _loss_chart(course: TrainingCourse | None) -> figures.Figure | None:
    return None if course is None else figures.loss_chart(course)
