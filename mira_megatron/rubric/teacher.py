"""Who teaches a stage: the section `teacher`, and what the stage's own section changes of it.

teacher: {engine: endpoint, model: …, max_tokens: 2048, …}
label: {records_per_source: 100000, reliability_fraction: 0.1, max_tokens: 4096}
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from mira_megatron.config import Recipe, typed
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.rubric.given_anchors import given_anchors
from mira_megatron.scoring.judge import Judge, make_judge
from mira_megatron.scoring.judge_config import LOCAL_ENGINES, JudgeConfig, check_has_model
from mira_megatron.scoring.scorers import scorer_judge

Config = TypeVar("Config")

_JUDGE_FIELDS = frozenset(field.name for field in dataclasses.fields(JudgeConfig))


def taught_stage(recipe: Recipe, stage: str, config_class: type[Config]) -> tuple[Config, Judge]:
    """Returns a stage's own settings, and its teacher.

    Raises ValueError for settings that are wrong, and for a plan that would pay a teacher for
    anchors that the recipe's scorer cannot rate.
    """
    section = recipe.values.get(stage) or {}
    where = f"{recipe.path}: {stage}"
    own = {name: value for name, value in section.items() if name not in _JUDGE_FIELDS}
    config = typed(config_class, own, where=where)
    if "teacher" not in recipe.values:
        raise ValueError(f"{where}: needs a section `teacher`, for example {{engine: rule_judge}}")
    changed = {name: value for name, value in section.items() if name in _JUDGE_FIELDS}
    where = f"{recipe.path}: teacher" + (f" with {stage}" if changed else "")
    judge = typed(JudgeConfig, {**recipe.values["teacher"], **changed}, where=where)
    check_has_model(judge, where)
    _check_teaches(judge, where)
    _check_scorers(recipe, judge)
    return config, make_judge(recipe, judge)


def _check_teaches(teacher: JudgeConfig, where: str) -> None:
    """A teacher gives reasons, and what it was paid for outlives the run: endpoints have both."""
    if teacher.engine in LOCAL_ENGINES:
        raise ValueError(
            f"{where}: engine={teacher.engine} is for scorers. Serve the teacher with vLLM, and "
            "ask it with engine: endpoint"
        )
    if teacher.answer_mode != "full":
        raise ValueError(
            f"{where}: answer_mode={teacher.answer_mode} is for scorers; a teacher answers in full"
        )


def _check_scorers(recipe: Recipe, teacher: JudgeConfig) -> None:
    """The rule judge rates its own dimensions only, and a model names others."""
    if teacher.engine == "rule_judge" or "score" not in recipe.values:
        return
    for group in source_groups(recipe):
        is_found = given_anchors(recipe, group) is None
        if is_found and scorer_judge(recipe, group).engine == "rule_judge":
            raise ValueError(
                f"{recipe.path}: score.engine=rule_judge cannot rate what a model names: group "
                f"{group} would get its anchors from {teacher.model}. Score with an endpoint, or "
                "leave out the sections from `score` on until there is a scorer"
            )
