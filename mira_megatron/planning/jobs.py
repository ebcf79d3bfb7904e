"""Which questions a recipe's `label` and `score` stages are going to ask, group by group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import stage_units
from mira_megatron.rubric.label import LabelSettings
from mira_megatron.scoring.asked_sample import PURPOSE, records_per_source
from mira_megatron.scoring.group_scorer import GroupScorer, rating_form
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.rating import RatingForm, usable_anchors
from mira_megatron.scoring.retest import asked_again
from mira_megatron.scoring.score import ScoreSettings
from mira_megatron.stage import Resources, Run, Unit, Workspace

STAGES = ("label", "score")
_MADE_BY = {"records": "ingest", "anchors": "anchor", "scorers": "distill"}


class NothingToPrice(ValueError):
    """Nobody is asked, or nothing of what they are asked about is there yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that one stage is going to ask about the sources of one group."""

    stage: str  # one of STAGES
    group: str
    sources: tuple[str, ...]
    records_per_source: int | None  # at most; None: all
    drawn_as: str  # the purpose of that sample's draw (see corpus.sampling)
    part: str | None  # of the group's job, in words; None: the records that are to be judged
    judge: Judge  # as far as the recipe tells; the form's is the whole of it
    upstream: tuple[str, ...]  # folders that must be finished before it can be priced
    answered: tuple[str, ...]  # folders where this judge's answers lie, once there are some
    taught: tuple[str, ...]  # folders of the ratings that a distilled scorer learnt to give
    make_form: Callable[[], RatingForm]  # ValueError where anchors and judge do not fit together


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """What a group cannot be priced without."""

    stage: str
    group: str
    folder: str  # relative to the run folder
    command: str  # that makes it


def planned_jobs(recipe: Recipe) -> list[Job]:
    """Returns the jobs of a recipe, labelling first, groups by name.

    Raises NothingToPrice where the recipe asks nobody, NotYetKnown where groups are to be found.
    """
    if not any(stage in recipe.values for stage in STAGES):
        raise NothingToPrice(
            f"{recipe.path}: has neither a section `label` nor one `score`, so nobody is asked and "
            "there is nothing to price"
        )
    return [*_label_jobs(recipe), *_score_jobs(recipe)]


def missing_inputs(recipe: Recipe, job: Job) -> list[Missing]:
    """Returns what has to be made before the job can be priced, in running order."""
    return [
        Missing(
            stage=job.stage,
            group=job.group,
            folder=folder,
            command=f"mira {_MADE_BY[folder.partition('/')[0]]} {recipe.path}",
        )
        for folder in job.upstream
        if read_manifest(recipe.run_folder / folder) is None
    ]


def _label_jobs(recipe: Recipe) -> list[Job]:
    by_anchors: dict[str, list[LabelSettings]] = {}
    for unit in stage_units(recipe, "label"):
        if isinstance(unit.settings, LabelSettings):
            by_anchors.setdefault(unit.settings.anchors, []).append(unit.settings)
    return [_label_job(recipe, anchors, settings) for anchors, settings in by_anchors.items()]


def _label_job(recipe: Recipe, anchors: str, settings: list[LabelSettings]) -> Job:
    first = settings[0]
    sources = tuple(each.source for each in settings)

    def make_form() -> RatingForm:
        path = recipe.run_folder / anchors / layout.ANCHORS
        return RatingForm(
            family=first.family,
            anchors=usable_anchors(path, first.family, first.judge),
            judge=first.judge,
        )

    return Job(
        stage="label",
        group=anchors.rpartition("/")[2],
        sources=sources,
        records_per_source=first.config.records_per_source,
        drawn_as="label",
        part=None,
        judge=first.judge,
        upstream=(*map(layout.records, sources), anchors),
        answered=tuple(layout.teacher_ratings(recipe.rubric, source) for source in sources),
        taught=(),
        make_form=make_form,
    )


def _score_jobs(recipe: Recipe) -> list[Job]:
    by_group: dict[str, list[tuple[Unit, ScoreSettings]]] = {}
    for unit in stage_units(recipe, "score"):
        if isinstance(unit.settings, ScoreSettings):
            by_group.setdefault(unit.settings.scorer.group, []).append((unit, unit.settings))
    return [job for units in by_group.values() for job in _jobs_of_group(recipe, units)]


def _jobs_of_group(recipe: Recipe, units: list[tuple[Unit, ScoreSettings]]) -> list[Job]:
    """Returns a group's scoring, and what is asked to know what its answers are worth.

    What is answered about a sample in the way the corpus is asked, is not asked again.
    """
    unit, first = units[0]
    scorer, sources = first.scorer, tuple(settings.source for _, settings in units)
    config = scorer.judge.config
    whole = _score_job(recipe, unit, scorer, sources)
    samples: list[tuple[str, GroupScorer, int]] = []
    if scorer.mode_agreement is not None:
        full = scorer.answering("full", scorer.judge.seed)
        samples.append(("in full, to compare", full, config.mode_agreement_records))
    if scorer.retest is not None:
        samples.append(("retest", asked_again(scorer), config.retest_records))
    return [
        whole,
        *(
            replace(
                _score_job(recipe, unit, asked, sources),
                records_per_source=records_per_source(num_records, len(sources)),
                part=part,
            )
            for part, asked, num_records in samples
        ),
    ]


def _score_job(recipe: Recipe, unit: Unit, scorer: GroupScorer, sources: tuple[str, ...]) -> Job:
    rubric = recipe.rubric

    def make_form() -> RatingForm:
        workspace = Workspace(
            run=Run(folder=recipe.run_folder, reuse=recipe.reuse),
            unit=unit,
            folder=recipe.run_folder / unit.folder,
            fingerprint="",  # nothing is written
            resources=Resources(),
        )
        return rating_form(workspace, scorer)

    answered = (layout.ratings, layout.reliability)
    labels = tuple(layout.teacher_ratings(rubric, source) for source in sources)
    return Job(
        stage="score",
        group=scorer.group,
        sources=sources,
        records_per_source=None,
        drawn_as=PURPOSE,
        part=None,
        judge=scorer.judge,
        upstream=(*map(layout.records, sources), *scorer.upstream),
        answered=tuple(folder(rubric, source) for source in sources for folder in answered),
        taught=() if scorer.distilled is None else labels,
        make_form=make_form,
    )
