"""A plan for people, as tables on a terminal, and for machines, as values for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.planning.plan import Plan, Quote
from mira_megatron.planning.price import INTERVAL, Total
from mira_megatron.written_numbers import MISSING, decimal, grouped, short
from mira_megatron.written_tables import terminal_table

_TITLES = {"label": "Labels by the teacher", "score": "Scores of every record"}


def print_plan(console: Console, plan: Plan) -> None:
    """Prints a table per stage, what its figures rest on, and what is missing."""
    for total in plan.totals:
        quotes = [quote for quote in plan.quotes if quote.stage == total.stage]
        console.print(_table(total, quotes))
        for line in _notes(quotes):
            console.print(Text(line), soft_wrap=True)
        console.print()
    console.print(Text(f"±: {INTERVAL}. At most (≤): an upper bound, not an estimate."))
    console.print(Text("Retries, and answers that the store already holds, are not considered."))
    for each in plan.missing:
        line = f"Not priced: {each.stage} of {each.group}, {each.folder} is not there."
        console.print(Text(f"{line} Run `{each.command}` first."), soft_wrap=True)


def plan_values(plan: Plan) -> dict[str, Any]:
    """Returns the plan for JSON; totals are value, low and high, null where not known."""
    return {
        "interval": INTERVAL,
        "jobs": [_fields(quote) for quote in plan.quotes],
        "totals": [_fields(quote) for quote in plan.totals],
        "missing": [
            {
                "stage": each.stage,
                "group": each.group,
                "folder": each.folder,
                "command": each.command,
            }
            for each in plan.missing
        ],
    }


def _table(total: Quote, quotes: Iterable[Quote]) -> Table:
    # Names may fold; numbers keep to one line, and with it their alignment.
    table = terminal_table(_TITLES[total.stage])
    table.add_column("Group", overflow="fold")
    for heading in (
        *("Records", "Requests", "Prompt\ntokens", "Output\ntokens"),
        *("GPU-\nhours", "Money"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for quote in quotes:
        table.add_row(*_cells(quote))
    table.add_section()
    table.add_row(*_cells(total))
    return table


def _cells(quote: Quote) -> list[Text]:
    return [
        Text(_named(quote)),
        Text(grouped(quote.num_records)),
        Text(_cell(quote.requests, short)),
        Text(_cell(quote.prompt_tokens, short)),
        Text(_cell(quote.output_tokens, short)),
        Text(_cell(quote.gpu_hours, _precise)),
        Text(_cell(quote.money, _precise)),
    ]


def _cell(total: Total | None, written: Callable[[float], str]) -> str:
    """Returns a figure, and below it half the width of its interval where that is not nothing."""
    if total is None:
        return MISSING
    value = f"{'≤' if total.is_most else ''}{written(total.value)}"
    if total.half_width is None:
        return f"{value}\n±?"
    half_width = written(total.half_width)
    return value if half_width == written(0) else f"{value}\n±{half_width}"


def _precise(number: float) -> str:
    """Returns hours or money: two decimals below a hundred, so that small jobs are not all 0."""
    return decimal(number, 2) if abs(number) < 100 else short(number)


def _notes(quotes: Iterable[Quote]) -> list[str]:
    return [f"{_named(quote)}: {_rests_on(quote)}" for quote in quotes]


def _named(quote: Quote) -> str:
    return quote.group if quote.part is None else f"{quote.group}, {quote.part}"


def _rests_on(quote: Quote) -> str:
    if quote.prompt_basis is None:
        return f"{quote.model}, no model: nothing is sent."
    shared = quote.shared_tokens_per_prompt
    begin_alike = f", the first {short(shared)} of each the same for all" if shared else ""
    return (
        f"{quote.model}, {quote.num_sampled:,} records looked at. Prompts by "
        f"{quote.prompt_basis}{begin_alike}. Output by {quote.output_basis}."
    )


def _fields(quote: Quote) -> dict[str, Any]:
    return {
        "stage": quote.stage,
        "group": quote.group,
        "part": quote.part,
        "model": quote.model,
        "num_records": quote.num_records,
        "num_sampled": quote.num_sampled,
        "requests": _ends(quote.requests),
        "prompt_tokens": _ends(quote.prompt_tokens),
        "output_tokens": _ends(quote.output_tokens),
        "shared_tokens_per_prompt": quote.shared_tokens_per_prompt,
        "gpu_hours": _ends(quote.gpu_hours),
        "money": _ends(quote.money),
        "prompt_basis": quote.prompt_basis,
        "output_basis": quote.output_basis,
    }


def _ends(total: Total | None) -> dict[str, float | bool | None] | None:
    if total is None:
        return None
    ends = {"value": total.value, "low": total.low, "high": total.high}
    return {**ends, "is_upper_bound": total.is_most}
