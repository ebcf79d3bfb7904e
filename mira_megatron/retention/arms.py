"""The arms of a recipe: which score they rank by, in which scope, under which budget and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mira_megatron.config import Recipe, check_name, nearest, typed

SCOPES = ("global", "group", "source")
SHARES = ("proportional", "equal")
UNSPENT_LEAVE, UNSPENT_SHARE = "leave", "share"
NULLS_DROP, NULLS_SHARE, NULLS_MEDIAN = "drop", "keep_random_share", "source_median"
_UNSPENT = (UNSPENT_LEAVE, UNSPENT_SHARE)
_NULLS = (NULLS_DROP, NULLS_SHARE, NULLS_MEDIAN)
_BUDGETS = ("budget_tokens", "budget_fraction")
_MAX_TIMES = 255  # repeat counts are uint8


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectConfig:
    """What an arm may say of its budget; under `select` it is said for every arm that does not."""

    budget_tokens: int | None = None
    budget_fraction: float | None = None  # of what there is
    shares: str = "proportional"  # of the budget, by a scope's tokens; or equal
    # A scope without enough documents to spend its share leaves the rest unspent, or shares it out.
    unspent: str = UNSPENT_LEAVE
    nulls: str = NULLS_DROP  # what becomes of documents without a score
    floor_tokens: dict[str, int] = field(default_factory=dict)  # by source: reserved for its best
    cap_tokens: dict[str, int] = field(default_factory=dict)  # by source: never more than that
    pinned: list[str] = field(default_factory=list)  # sources that are kept whole, scored or not
    excluded: list[str] = field(default_factory=list)  # sources that are not trained on
    # Masks made elsewhere, by the reason they stand for; see outside_masks.py.
    with_masks: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, valid in (("shares", SHARES), ("unspent", _UNSPENT), ("nulls", _NULLS)):
            if getattr(self, name) not in valid:
                value = getattr(self, name)
                raise ValueError(f"{name}={value!r} must be one of {', '.join(valid)}")
        for name, bounds in (("floor_tokens", self.floor_tokens), ("cap_tokens", self.cap_tokens)):
            for source, tokens in bounds.items():
                if tokens < 1:
                    raise ValueError(f"{name}.{source}={tokens} < 1: leave it out, or exclude it")
        for source in sorted(set(self.floor_tokens) & set(self.cap_tokens)):
            floor, cap = self.floor_tokens[source], self.cap_tokens[source]
            if floor > cap:
                raise ValueError(
                    f"floor_tokens.{source}={floor:,} is above cap_tokens.{source}={cap:,}. Lower "
                    "the floor or raise the cap."
                )
        if both := sorted(set(self.pinned) & set(self.excluded)):
            raise ValueError(
                f"{both[0]} is pinned and excluded: kept whole and not trained on. Take it out of "
                "one of the two."
            )
        for name, sources in (("pinned", self.pinned), ("excluded", self.excluded)):
            bounded = sorted(set(sources) & {*self.floor_tokens, *self.cap_tokens})
            if bounded:
                raise ValueError(
                    f"{bounded[0]} is {name} and has floor_tokens or cap_tokens, which only ranked "
                    "sources can have. Take out one of the two."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmConfig(SelectConfig):
    """One row of the comparison: a score, and the scope in which it is cut."""

    score: str  # a score table, record_scores/<score>
    scope: str  # one of SCOPES
    # Of the tokens kept in each scope, the best `repeat_fraction` are seen `repeat_times` times;
    # the budget counts every time.
    repeat_fraction: float | None = None
    repeat_times: int | None = None
    # Other arms: neither their documents nor copies of them are candidates here. Phases of one
    # training share no document that way.
    without: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        SelectConfig.__post_init__(self)  # super() does not know a class with slots
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
        if self.repeat_times is not None and (
            self.floor_tokens or self.cap_tokens or self.nulls == NULLS_SHARE
        ):
            raise ValueError(
                f"repeat_times={self.repeat_times} beside floor_tokens, cap_tokens or "
                f"nulls={NULLS_SHARE}: whether these count a document once or each time it is seen "
                "is not defined. Give one arm the repeats and another the bounds."
            )
        if self.repeat_times is not None and self.unspent == UNSPENT_SHARE:
            raise ValueError(
                f"repeat_times={self.repeat_times} beside unspent={UNSPENT_SHARE}: what a scope "
                "can spend would depend on how often its documents are seen. Give the arm "
                f"unspent: {UNSPENT_LEAVE}, or no repeats."
            )


def arm_configs(recipe: Recipe) -> dict[str, ArmConfig]:
    """Returns the arms by name, each after the arms it is `without`; lists of names are sorted.

    Raises ValueError for a recipe without arms, a budget that is missing, given twice or out of
    range, bounds that contradict each other, and for arms that wait for each other.
    """
    section = recipe.values.get("select") or {}
    section = _with_whole_bounds(section) if isinstance(section, Mapping) else section
    typed(SelectConfig, section, where=f"{recipe.path}: select")  # what is wrong is said of it
    values = recipe.mapping("arms")
    if not values:
        raise ValueError(
            f"{recipe.path}: no arms. Name at least one, for example "
            "arms: {mira_group: {score: rule_judge, scope: group}}"
        )
    arms = {name: _arm_config(recipe, name, entry, section) for name, entry in values.items()}
    return {name: arms[name] for name in _running_order(recipe, arms)}


def check_sources(where: str, config: ArmConfig, ranked: set[str], others: set[str]) -> None:
    """Raises ValueError for a source that the recipe has not, or that cannot have a bound.

    `ranked` are the sources with this arm's score; `others` those without, pinned or left out.
    """
    for name in ("pinned", "excluded", "floor_tokens", "cap_tokens"):
        for source in getattr(config, name):
            if source not in ranked | others:
                tail = nearest(source, ranked | others)
                raise ValueError(f"{where}.{name}: no source {source!r}.{tail}")
    for name in ("floor_tokens", "cap_tokens"):
        for source in sorted(set(getattr(config, name)) & others):
            raise ValueError(
                f"{where}.{name}.{source}: the source has no score {config.score!r} to be ranked "
                "by, so that a bound has no meaning. Take it out, or score the source."
            )


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
    recipe: Recipe, name: str, values: Mapping[str, Any], section: Mapping[str, Any]
) -> ArmConfig:
    where = f"{recipe.path}: arms.{name}"
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{where} must be a mapping such as {{score: rule_judge, scope: group}}, got {values!r}"
        )
    has_budget = any(key in values for key in _BUDGETS)
    defaults = {key: value for key, value in section.items() if key not in _BUDGETS}
    if not has_budget:
        defaults = dict(section)
    arm = typed(ArmConfig, _with_whole_bounds({**defaults, **values}), where=where)
    # Sets, written as lists: their order decides nothing, so it must not decide a fingerprint.
    arm = replace(
        arm,
        pinned=sorted(set(arm.pinned)),
        excluded=sorted(set(arm.excluded)),
        without=sorted(set(arm.without)),
    )
    if (arm.budget_tokens is None) == (arm.budget_fraction is None):
        raise ValueError(
            f"{where} needs exactly one of budget_tokens and budget_fraction, "
            f"here or under select:, got {arm.budget_tokens} and {arm.budget_fraction}"
        )
    if arm.budget_tokens is not None and arm.budget_tokens < 1:
        raise ValueError(f"{where}: budget_tokens={arm.budget_tokens} < 1")
    if arm.budget_fraction is not None and not 0 < arm.budget_fraction <= 1:
        raise ValueError(f"{where}: budget_fraction={arm.budget_fraction} not in (0, 1]")
    check_floors(where, arm.floor_tokens, arm.budget_tokens, "budget_tokens")
    return arm


def check_floors(
    where: str, floor_tokens: Mapping[str, int], budget_tokens: int | None, called: str
) -> None:
    """Raises ValueError for floors that together are more than the budget; None is no limit."""
    total = sum(floor_tokens.values())
    if budget_tokens is not None and total > budget_tokens:
        floors = ", ".join(f"{source} {tokens:,}" for source, tokens in floor_tokens.items())
        raise ValueError(
            f"{where}: floor_tokens ({floors}) add up to {total:,}, more than the {called} of "
            f"{budget_tokens:,}. Lower the floors or raise the budget."
        )


def fingerprinted_arm(config: ArmConfig, reasons: Mapping[str, str]) -> dict[str, Any]:
    """Returns what of an arm decides bytes; `reasons` of masks stand for their paths."""
    return {**asdict(config), "with_masks": dict(sorted(reasons.items()))}


def _with_whole_bounds(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an arm's values with floors and caps such as 25e9 as whole numbers."""
    bounds = {
        name: {
            source: int(tokens) if isinstance(tokens, float) and tokens.is_integer() else tokens
            for source, tokens in values[name].items()
        }
        for name in ("floor_tokens", "cap_tokens")
        if isinstance(values.get(name), Mapping)
    }
    return {**values, **bounds}
