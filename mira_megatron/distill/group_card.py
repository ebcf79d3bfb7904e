"""The card of a group's scorer, as the recipe and the anchors have it."""

from __future__ import annotations

from mira_megatron import layout
from mira_megatron.distill.distill import DistillSettings
from mira_megatron.distill.scorer_card import ScorerCard
from mira_megatron.rubric.anchor_files import read_anchors
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.stage import Workspace


def group_card(workspace: Workspace, settings: DistillSettings, max_model_len: int) -> ScorerCard:
    """Returns what whoever asks the scorer has to know; `max_model_len` is in tokens."""
    anchors_folder = workspace.run.folder / layout.anchors(settings.rubric, settings.group)
    return ScorerCard(
        rubric=settings.rubric,
        group=settings.group,
        family=settings.family,
        rubric_version=read_anchors(anchors_folder / layout.ANCHORS)[0].rubric_version,
        prompt_key=score_prompt_key(settings.family, settings.config.form),
        form=settings.config.form,
        max_record_tokens=settings.config.max_record_tokens,
        max_model_len=max_model_len,
        served_model_name=f"mira-{settings.rubric}-{settings.group}",
    )
