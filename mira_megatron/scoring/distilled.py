"""A recipe's own distilled scorers as judges.

Which groups they judge is known when a recipe is planned; how one is asked says its card, which is
there only once it was trained. So a planned judge has neither name nor form of such a scorer, and
`distilled_judge` adds both when the work begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.distill.scorer_card import CARD, EXPORT, read_card
from mira_megatron.records import Anchor
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judge_config import JudgeConfig


def is_distilled(recipe: Recipe, judge: JudgeConfig) -> bool:
    """Returns whether a judge of the section `score` is the recipe's own scorer."""
    has_none = judge.model is None and judge.model_path is None
    return "distill" in recipe.values and judge.engine != "rule_judge" and has_none


def check_left_to_card(judge: JudgeConfig, where: str) -> None:
    """Raises ValueError for a setting of a distilled scorer that its training has decided."""
    for name in ("max_record_tokens", "tokenizer"):
        if getattr(judge, name) is not None:
            raise ValueError(
                f"{where}: {name} is a distilled scorer's own, as it was trained. Leave it out; "
                "distill.max_record_tokens decides what it is shown of a record"
            )


def distilled_judge(
    judge: Judge, folder: Path, weights: str, anchors: Sequence[Anchor], anchors_path: Path
) -> Judge:
    """Returns the judge with the scorer in `folder`; `weights` is the digest of its files.

    Raises FileNotFoundError where no scorer is, ValueError for one of other anchors.
    """
    card = read_card(folder)
    version = anchors[0].rubric_version
    if card.rubric_version != version:
        raise ValueError(
            f"{folder / CARD}: this scorer was trained on ratings of rubric version "
            f"{card.rubric_version}, and {anchors_path} is version {version}. Run `mira run` on "
            "the recipe, which labels and distils anew, or put the anchors back that it belongs to"
        )
    tokenizer = folder / EXPORT / layout.TOKENIZER_FILE
    if not tokenizer.is_file():
        raise FileNotFoundError(f"{tokenizer}: the scorer's export is not whole. Distil it anew.")
    config = replace(
        judge.config,
        model=card.served_model_name,
        max_record_tokens=card.max_record_tokens,
        tokenizer=str(tokenizer),
        max_model_len=(
            (judge.config.max_model_len or card.max_model_len) if judge.is_local else None
        ),
    )
    return replace(
        judge,
        config=config,
        tokenizer=tokenizer,
        model_folder=folder / EXPORT,
        weights=weights,
    ).asked_in(card.form)
