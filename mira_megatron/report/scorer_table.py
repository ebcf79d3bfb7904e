"""The terminal's table of scorers: how far each follows the teacher, source by source."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.config import Recipe
from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.reliability import MIN_RHO
from mira_megatron.report.agreement import SourceAgreement, read_agreement
from mira_megatron.report.judge_names import is_rule_judge
from mira_megatron.written_numbers import MISSING, decimal, grouped, percent
from mira_megatron.written_tables import terminal_table


def print_scorers(console: Console, recipe: Recipe) -> None:
    """Prints a row per source of the recipe, and how the table is to be read."""
    agreements = {
        source: read_agreement(recipe.run_folder, recipe.rubric, source)
        for source in sorted(recipe.mapping("sources"))
    }
    console.print(_table(agreements))
    legend = (
        f"Follows: anchors of {NUM_SLOTS} (in brackets: names) on which the scorer ranks as the "
        f"teacher does:\na Spearman of {MIN_RHO:g} or more, and above that of the record's length"
    )
    console.print(Text(legend), soft_wrap=True)
    rules = [source for source, each in agreements.items() if each and _is_by_rules(each)]
    if rules:
        console.print(Text(f"Answered by the rule judge, no model: {', '.join(rules)}"))


def _table(agreements: Mapping[str, SourceAgreement | None]) -> Table:
    """Returns the table; a source whose scorer has not answered yet has n/a throughout."""
    # Names may fold; numbers keep to one line, and with it their alignment.
    table = terminal_table("Scorers on held-back labels")
    table.add_column("Source", overflow="fold")
    for heading in (
        *("Follows", "Median\nSpearman", "of length\nalone", "Answers\nread", "in part"),
        *("Mode", "n"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for source, agreement in agreements.items():
        table.add_row(Text(source), *map(Text, _cells(agreement)))
    return table


def _is_by_rules(agreement: SourceAgreement) -> bool:
    return any(is_rule_judge(model) for model in agreement.models)


def _cells(agreement: SourceAgreement | None) -> list[str]:
    if agreement is None:
        return [MISSING] * 7
    return [
        f"{len(agreement.followed)} ({agreement.num_names_followed})",
        decimal(agreement.median_rho),
        decimal(agreement.median_rho_of_length),
        percent(agreement.num_parsed, agreement.num_records),
        percent(agreement.num_partial, agreement.num_records),
        agreement.answer_mode,
        grouped(agreement.num_records),
    ]
