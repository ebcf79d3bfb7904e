"""The scorer of each source group: the section `score`, and what `scorers.<group>` changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mira_megatron.config import Recipe, typed
from mira_megatron.records import Anchor
from mira_megatron.scoring.distilled import check_left_to_card, is_distilled
from mira_megatron.scoring.judge_config import ENGINES, JudgeConfig, check_has_model

# Settings of the section `score` that a group's scorer may have of its own.
_OVERRIDES = (
    "engine",
    "answer_mode",
    "model",
    "model_path",
    "endpoints",
    "api_key_env",
    "temperature",
    "top_p",
    "max_tokens",
    "request_fields",
    "max_record_tokens",
    "tokenizer",
    "dtype",
    "max_model_len",
)
# What a judge that answers greedily is asked with, where the recipe does not say it.
_GREEDY = {"temperature": 0.0, "top_p": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerConfig:
    """One entry of the section `scorers`."""

    # In place of the same settings of the section `score`:
    engine: str | None = None
    answer_mode: str | None = None
    model: str | None = None
    model_path: str | None = None  # a local folder; its size is checked before the model is asked
    endpoints: list[str] = field(default_factory=list)
    api_key_env: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    request_fields: dict[str, Any] = field(default_factory=dict)
    max_record_tokens: int | None = None
    tokenizer: str | None = None
    dtype: str | None = None
    max_model_len: int | None = None
    # The group's anchors, where they are given (see rubric.anchor):
    anchors_path: str | None = None
    anchor_fields: dict[str, str] = field(default_factory=dict)
    published: str | None = None
    # What was trained on calibration references cannot do without them:
    released: bool = False
    allow_uncalibrated: bool = False


def scorer_config(recipe: Recipe, group: str) -> ScorerConfig:
    """Returns a group's entry, empty where there is none; ValueError names a key that is wrong."""
    entry = recipe.mapping("scorers").get(group) or {}
    return typed(ScorerConfig, entry, where=f"{recipe.path}: scorers.{group}")


def scorer_judge(recipe: Recipe, group: str) -> JudgeConfig:
    """Returns how a group's scorer is asked.

    One that answers greedily need not be told temperature and top_p. Raises ValueError for settings
    that do not fit, and for a model that is neither given nor distilled.
    """
    scorer_config(recipe, group)
    entry = recipe.mapping("scorers").get(group) or {}
    own = {name: entry[name] for name in _OVERRIDES if name in entry}
    where = f"{recipe.path}: score with scorers.{group}" if own else f"{recipe.path}: score"
    values = {**(recipe.values.get("score") or {}), **own}
    is_model = values.get("engine") in ENGINES and values["engine"] != "rule_judge"
    if is_model and (values["engine"] != "endpoint" or values.get("answer_mode") == "expected"):
        values = {**_GREEDY, **values}
    judge = typed(JudgeConfig, values, where=where)
    if is_distilled(recipe, judge):
        check_left_to_card(judge, where)
    else:
        check_has_model(judge, where)
    return judge


def check_calibrated(scorer: ScorerConfig, anchors: Sequence[Anchor], path: Path) -> None:
    """Raises ValueError for a released scorer whose anchors hold no calibration references."""
    has_references = any(anchor.references for anchor in anchors)
    if scorer.released and not has_references and not scorer.allow_uncalibrated:
        raise ValueError(
            f"{path}: these anchors have no calibration references, and a released scorer is "
            "miscalibrated without them, as its model card says. Give the authors' anchor file "
            "with scorers.<group>.anchors_path, or accept uncalibrated scores with "
            "scorers.<group>.allow_uncalibrated=true"
        )
