"""What every arm takes, as tables on a terminal and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.planning.arm_costs import ArmCosts, Cost, RunCosts, ScoreTable, Sum, total
from mira_megatron.written_numbers import MISSING, decimal, short
from mira_megatron.written_tables import terminal_table

_OWN = ("midtrain", "held-out", "instruct-sft", "eval")


def print_arms(console: Console, costs: RunCosts) -> None:
    """Prints what the score tables take, what every arm takes, and what the figures rest on."""
    console.print(_tables(costs))
    console.print(_arms(costs))
    whole = costs.whole
    console.print(Text(f"In all, every score table once: {_words(whole, costs.num_gpus)}"))
    console.print(Text("Stages that are not named take no GPU."))
    for line in _notes(costs):
        console.print(Text(line), soft_wrap=True)
    console.print()


def arms_values(costs: RunCosts) -> dict[str, Any]:
    """Returns the same for JSON; null where a figure is not known, with its reason as `basis`."""
    return {
        "score_tables": [
            {
                "name": table.name,
                "method": table.method,
                "arms": list(table.arms),
                "stages": [_cost(cost) for cost in table.costs],
                "total": _sum(total(table.costs)),
            }
            for table in costs.tables
        ],
        "arms": [
            {
                "name": arm.arm,
                "score_table": arm.table,
                "own": [_cost(cost) for cost in arm.own],
                "own_total": _sum(total(arm.own)),
                "shared_total": _sum(total(_shared(costs, arm))),
                "total": _sum(total([*_shared(costs, arm), *arm.own])),
            }
            for arm in costs.arms
        ],
        "whole": _sum(costs.whole),
        "num_gpus": costs.num_gpus,
    }


def _tables(costs: RunCosts) -> Table:
    headings = ("Requests", "Tokens in", "Tokens out", "GPU-hours", "Money")
    table = _table("Score tables, each made once", ("Table", "Stage"), headings)
    for scores in costs.tables:
        for number, cost in enumerate(scores.costs):
            each = cost.each
            table.add_row(
                *(Text("" if number else scores.name), Text(cost.stage)),
                *map(_short, (each.requests, each.prompt_tokens, each.output_tokens)),
                *(_hours(cost.gpu_hours), _money(cost.money)),
            )
    return table


def _arms(costs: RunCosts) -> Table:
    stages = [name for name in _OWN if any(name == cost.stage for cost in _all_own(costs))]
    headings = (*stages, "Own", "Shared", "Together", "Money")
    table = _table("GPU-hours of every arm: its own, and of its score table", ("Arm",), headings)
    for arm in costs.arms:
        own = {cost.stage: cost for cost in arm.own}
        shared = _shared(costs, arm)
        together = total([*shared, *arm.own])
        table.add_row(
            Text(arm.arm),
            *(_hours(own[stage].gpu_hours) if stage in own else "" for stage in stages),
            _of(total(arm.own)),
            _of(total(shared)),
            _of(together),
            _money(together.money),
        )
    return table


def _table(title: str, names: Sequence[str], headings: Sequence[str]) -> Table:
    table = terminal_table(title)
    for name in names:
        table.add_column(name, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _notes(costs: RunCosts) -> Iterable[str]:
    """Yields what figures rest on, or why there is none; what arms have in common once."""
    for table in costs.tables:
        yield f"{table.name} ({table.method}): ranks {', '.join(table.arms)}."
        for cost in table.costs:
            yield f"{table.name}, {cost.stage}: {cost.each.basis}."
    told: dict[tuple[str, int, str], list[str]] = {}
    for arm in costs.arms:
        for cost in arm.own:
            told.setdefault((cost.stage, cost.num_models, cost.each.basis), []).append(arm.arm)
    for (stage, number, basis), arms in told.items():
        times = f"{number} x " if number > 1 else ""
        yield f"{stage} of {', '.join(arms)}: {times}{basis}."


def _shared(costs: RunCosts, arm: ArmCosts) -> Sequence[Cost]:
    table: ScoreTable | None = costs.table_of(arm)
    return () if table is None else table.costs


def _all_own(costs: RunCosts) -> Iterable[Cost]:
    return (cost for arm in costs.arms for cost in arm.own)


def _words(whole: Sum, num_gpus: int | None) -> str:
    told = f"{_hours(whole.gpu_hours)} GPU-hours"
    if num_gpus is not None:
        told += f", {_hours(whole.gpu_hours / num_gpus)} hours on {num_gpus} GPUs"
    if whole.money is not None:
        told += f", money {_money(whole.money)}"
    return f"{told}, without {', '.join(whole.without)}." if whole.without else f"{told}."


def _of(together: Sum) -> str:
    """Returns the hours, with a sign where a part is not known."""
    return f"{_hours(together.gpu_hours)}{'+?' if together.without else ''}"


def _hours(hours: float | None) -> str:
    return MISSING if hours is None else decimal(hours, 1) if hours < 100 else short(hours)


def _money(money: float | None) -> str:
    return MISSING if money is None else short(money)


def _short(number: float | None) -> str:
    return "" if number is None else short(number)


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "stage": cost.stage,
        "num_models": cost.num_models,
        "gpu_hours": cost.gpu_hours,
        "money": cost.money,
        "requests": cost.each.requests,
        "prompt_tokens": cost.each.prompt_tokens,
        "output_tokens": cost.each.output_tokens,
        "basis": cost.each.basis,
    }


def _sum(together: Sum) -> dict[str, Any]:
    return {
        "gpu_hours": together.gpu_hours,
        "money": together.money,
        "without_hours": list(together.without),
        "without_money": list(together.unpriced),
    }
