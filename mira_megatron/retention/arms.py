"""The arms of a recipe: which score they rank by, in which scope, under which budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mira_megatron.config import Recipe, check_name, nearest, typed

SCOPES = ("global", "group", "source")
_MAX_TIMES = 255  # repeat counts are uint8


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectConfig:
    """The budget of every arm that does not name its own: tokens, or a share of what there is."""

    budget_tokens: int | None = None
    budget_fraction: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmConfig:
    """One row of the comparison: a score, and the scope in which it is cut."""

    score: str  # a score table, record_scores/<score>
    scope: str  # one of SCOPES
    budget_tokens: int | None = None
    budget_fraction: float | None = None
    # Of the tokens kept in each scope, the best `repeat_fraction` are seen `repeat_times` times;
    # the budget counts every time.
    repeat_fraction: float | None = None
    repeat_times: int | None = None
    # Other arms: neither their documents nor copies of them are candidates here. Phases of one
    # training share no document that way.
    without: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_name("score", self.score)
        if self.scope not in SCOPES:
            raise ValueError(f"scope={self.scope!r} must be one of {', '.join(SCOPES)}")
        if (self.repeat_fraction is None) != (self.repeat_times is None):
            raise ValueError(
                "repeat_fraction and repeat_times belong together, got "
                f"{self.repeat_fraction} and {self.repeat_times}"
            )
        if self.repeat_fraction is not None and not 0 < self.repeat_fraction <= 1:
            raise ValueError(f"repeat_fraction={self.repeat_fraction} must be in (0, 1]")
        if self.repeat_times is not None and not 2 <= self.repeat_times <= _MAX_TIMES:
            raise ValueError(f"repeat_times={self.repeat_times} must be in 2..{_MAX_TIMES}")


def arm_configs(recipe: Recipe) -> dict[str, ArmConfig]:
    """Returns the arms by name, each after the arms it is `without`.

    Raises ValueError for a recipe without arms, a budget that is missing, given twice or out of
    range, and for arms that wait for each other.
    """
    defaults = recipe.section("select", SelectConfig)
    values = recipe.mapping("arms")
    if not values:
        raise ValueError(
            f"{recipe.path}: no arms. Name at least one, for example "
            "arms: {mira_group: {score: rule_judge, scope: group}}"
        )
    arms = {name: _arm_config(recipe, name, entry, defaults) for name, entry in values.items()}
    return {name: arms[name] for name in _running_order(recipe, arms)}


def _running_order(recipe: Recipe, arms: Mapping[str, ArmConfig]) -> list[str]:
    for name, arm in arms.items():
        for other in arm.without:
            if other not in arms:
                tail = nearest(other, arms)
                raise ValueError(f"{recipe.path}: arms.{name}.without: no arm {other!r}.{tail}")
    try:
        return list(
            TopologicalSorter({name: arm.without for name, arm in arms.items()}).static_order()
        )
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(
            f"{recipe.path}: arms {circle} are each to go without the other's documents. Give one "
            "of them the first choice."
        ) from error


def _arm_config(
    recipe: Recipe, name: str, values: Mapping[str, Any], defaults: SelectConfig
) -> ArmConfig:
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{recipe.path}: arms.{name} must be a mapping such as "
            f"{{score: rule_judge, scope: group}}, got {values!r}"
        )
    if not {"budget_tokens", "budget_fraction"} & values.keys():
        values = {
            **values,
            "budget_tokens": defaults.budget_tokens,
            "budget_fraction": defaults.budget_fraction,
        }
    arm = typed(ArmConfig, values, where=f"{recipe.path}: arms.{name}")
    if (arm.budget_tokens is None) == (arm.budget_fraction is None):
        raise ValueError(
            f"{recipe.path}: arms.{name} needs exactly one of budget_tokens and budget_fraction, "
            f"here or under select:, got {arm.budget_tokens} and {arm.budget_fraction}"
        )
    if arm.budget_tokens is not None and arm.budget_tokens < 1:
        raise ValueError(f"{recipe.path}: arms.{name}: budget_tokens={arm.budget_tokens} < 1")
    if arm.budget_fraction is not None and not 0 < arm.budget_fraction <= 1:
        raise ValueError(
            f"{recipe.path}: arms.{name}: budget_fraction={arm.budget_fraction} not in (0, 1]"
        )
    return arm
