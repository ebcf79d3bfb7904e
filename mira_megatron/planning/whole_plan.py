"""A recipe's whole plan: what labelling and scoring ask, going by a sample, and every arm's price.

Before records, anchors or a model's tokenizer are there nothing can be sampled. A recipe with arms
is then priced by what it declares alone, and says what keeps it from more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import NotYetKnown
from mira_megatron.planning.arm_costs import RunCosts, arm_costs
from mira_megatron.planning.arm_table import arms_values, print_arms
from mira_megatron.planning.jobs import NothingToPrice
from mira_megatron.planning.plan import Plan, make_plan
from mira_megatron.planning.plan_table import plan_values, print_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class WholePlan:
    """What can be told of a recipe; one of `sampled` and `costs` is there."""

    sampled: Plan | None
    not_sampled: str | None  # why there is no sample
    costs: RunCosts | None  # None: the recipe has no arms


def whole_plan(recipe: Recipe, *, workers: int = 1) -> WholePlan:
    """Returns the plan of a recipe.

    Raises ValueError or FileNotFoundError as make_plan does where the recipe has no arms, and for
    a setting that is wrong.
    """
    sampled, not_sampled = None, None
    try:
        sampled = make_plan(recipe, workers=workers)
    except (NothingToPrice, NotYetKnown, FileNotFoundError) as error:
        if not recipe.mapping("arms"):
            raise
        not_sampled = str(error)
    costs = arm_costs(recipe, sampled)
    return WholePlan(sampled=sampled, not_sampled=not_sampled, costs=costs)


def print_whole_plan(console: Console, plan: WholePlan) -> None:
    """Prints the tables of the sample, then those of the arms."""
    if plan.sampled is not None:
        print_plan(console, plan.sampled)
    if plan.not_sampled is not None:
        told = f"Labels and scores are told by what is declared. {plan.not_sampled}"
        console.print(Text(told), soft_wrap=True)
    if plan.costs is not None:
        console.print()
        print_arms(console, plan.costs)


def whole_plan_json(plan: WholePlan) -> str:
    """Returns the plan as indented JSON; totals are value, low and high, null where not known."""
    content: dict[str, Any] = {} if plan.sampled is None else plan_values(plan.sampled)
    content["not_sampled"] = plan.not_sampled
    content["arms"] = None if plan.costs is None else arms_values(plan.costs)
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()
