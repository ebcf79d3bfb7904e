"""A source group's scorer as a unit needs it: who is asked, on which anchors, in which form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import SourceGroup
from mira_megatron.rubric.prompt_form import FULL
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.scoring.distilled import distilled_judge, is_distilled
from mira_megatron.scoring.judge import Judge, judge_fingerprint, make_judge, model_files
from mira_megatron.scoring.model_size import check_model_size
from mira_megatron.scoring.rating import RatingForm, usable_anchors
from mira_megatron.scoring.scorers import (
    ScorerConfig,
    check_calibrated,
    scorer_config,
    scorer_judge,
)
from mira_megatron.stage import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScorer:
    """The scorer of one group, as far as a recipe tells."""

    group: str
    family: str
    anchors: str  # folder of the group's
    judge: Judge
    config: ScorerConfig
    distilled: str | None  # folder of the group's own scorer, where that is the judge
    mode_agreement: str | None  # folder of how its answer mode agrees with full; None: not asked
    retest: str | None  # folder of how its answers agree with a second time; None: not asked

    @property
    def upstream(self) -> tuple[str, ...]:
        """Returns the folders that a unit of it reads besides its records."""
        return (self.anchors, *([self.distilled] if self.distilled else []))

    @property
    def raw_files(self) -> Callable[[], Mapping[str, str]] | None:
        """Returns what digests the model's files, where a folder outside the run is named."""
        folder = self.judge.model_folder if self.judge.is_local else None
        return None if folder is None else partial(model_files, folder)

    @property
    def fingerprinted(self) -> dict[str, Any]:
        """Returns what decides its answers, for a unit's configuration."""
        return {
            **judge_fingerprint(self.judge),
            "answer_mode": self.judge.config.answer_mode,
            # A distilled scorer's form is its own, and decided where it was trained.
            "prompt_key": (
                None if self.distilled else score_prompt_key(self.family, self.judge.form)
            ),
        }

    def answering(self, mode: str, seed: int) -> GroupScorer:
        """Returns the same scorer asked in another answer mode, or with another seed."""
        config = replace(self.judge.config, answer_mode=mode)
        judge = replace(self.judge, config=config, seed=seed).asked_in(FULL)
        return replace(self, judge=judge)


def group_scorer(recipe: Recipe, group: SourceGroup) -> GroupScorer:
    """Returns a group's scorer; ValueError for settings that do not fit."""
    judge = make_judge(recipe, scorer_judge(recipe, group.name))
    is_own = is_distilled(recipe, judge.config)
    mode = judge.config.answer_mode
    is_measured = mode != "full" and judge.config.min_mode_agreement is not None
    is_retested = judge.config.is_sampled and judge.config.retest_records > 0
    return GroupScorer(
        group=group.name,
        family=group.family,
        anchors=layout.anchors(recipe.rubric, group.name),
        judge=judge,
        config=scorer_config(recipe, group.name),
        distilled=layout.scorer(recipe.rubric, group.name) if is_own else None,
        mode_agreement=(
            layout.mode_agreement(recipe.rubric, group.name, mode) if is_measured else None
        ),
        retest=layout.retest(recipe.rubric, group.name, mode) if is_retested else None,
    )


def rating_form(workspace: Workspace, scorer: GroupScorer) -> RatingForm:
    """Returns what the scorer is asked, and how it is read, once the work begins.

    Raises ValueError or FileNotFoundError where anchors, scorer and recipe do not fit together.
    """
    path = workspace.run.folder / scorer.anchors / layout.ANCHORS
    anchors = usable_anchors(path, scorer.family, scorer.judge)
    check_calibrated(scorer.config, anchors, path)
    judge = scorer.judge
    if scorer.distilled is not None:
        folder = workspace.run.folder / scorer.distilled
        weights = workspace.upstream_manifest(scorer.distilled).output_digest
        judge = distilled_judge(judge, folder, weights, anchors, path)
    elif judge.model_folder is not None:
        check_model_size(judge.model_folder)
    return RatingForm(family=scorer.family, anchors=anchors, judge=judge)
