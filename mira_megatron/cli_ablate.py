"""The words of `mira ablate`, and what is then done."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from rich.console import Console
from rich.text import Text

from mira_megatron import layout
from mira_megatron.cli_words import (
    Commands,
    add_log_level,
    add_recipe,
    add_units_at_once,
    add_workers,
)
from mira_megatron.config import Recipe
from mira_megatron.launchers.units_at_once import UnitsAtOnce
from mira_megatron.stage import Resources
from mira_megatron.written_tables import printed_markdown

ABLATION = "ablation"  # the stage, and its section
_TABLE = "ablation table"  # label of the unit


def add_ablate(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `ablate`."""
    text = "all stages for all arms, one that fails aside, and the table that compares them"
    command = commands.add_parser("ablate", help=text, description=text)
    add_recipe(command)
    command.add_argument("--dry-run", action="store_true", help="show what would run, and stop")
    add_workers(command)
    add_units_at_once(command)
    add_log_level(command)


def run_ablate(
    console: Console, recipe: Recipe, resources: Resources, run_ahead: UnitsAtOnce | None = None
) -> int:
    """Runs all stages, prints the table, and returns 0; 2 where a unit failed.

    Raises ValueError for a recipe without the section `ablation`.
    """
    for section in ("ablation", "midtrain"):
        if section not in recipe.values:
            raise ValueError(
                f"{recipe.path}: no section `{section}`, so no arms are trained to be compared. "
                f"Add {section}: (docs/ablation.md), or use `mira run`"
            )
    surviving = importlib.import_module("mira_megatron.ablation.surviving_run")
    outcome = surviving.run_surviving(recipe, resources, run_ahead=run_ahead)
    is_whole = _TABLE not in (*outcome.failed, *outcome.left_out)
    lines = _whole(recipe) if is_whole else _surviving(recipe, outcome.lost)
    lines.append(_cost(recipe))
    lines.append(f"{_units(outcome.num_reused)} reused, {_units(outcome.num_made)} made.")
    if outcome.failed:
        lines += ["", *(f"failed: {label}: {why}" for label, why in outcome.failed.items())]
        lines += [f"left out: {label}" for label in outcome.left_out]
        lines.append("Run the same command again to go on from here, or leave the arm out.")
    _print(console, lines)
    return 2 if outcome.failed else 0


def run_table(console: Console, recipe: Recipe, resources: Resources) -> None:
    """Makes the table alone and prints it, as the last job of a submitted recipe does.

    Where something of it is not finished, prints the table of the arms that are whole and raises
    the ValueError that says what is missing.
    """
    pipeline = importlib.import_module("mira_megatron.pipeline")
    try:
        pipeline.run_stages(recipe, [ABLATION], resources)
    except ValueError as error:
        read = {
            folder for unit in pipeline.stage_units(recipe, ABLATION) for folder in unit.upstream
        }
        lost = {
            unit.folder: unit.label
            for unit, state in pipeline.unit_states(recipe, list(pipeline.STAGES))
            if unit.folder in read and state in ("waiting", "unfinished")
        }
        if not lost:
            raise
        _print(console, [*_surviving(recipe, set(lost)), _cost(recipe)])
        raise ValueError(f"{error}\nNot finished: {', '.join(lost.values())}") from error
    if ABLATION in recipe.values:
        _print(console, [*_whole(recipe), _cost(recipe)])


def _whole(recipe: Recipe) -> list[str]:
    folder = recipe.run_folder / layout.ABLATION
    table = printed_markdown((folder / "table.md").read_text())
    return [table, f"The page: {folder / 'index.html'}"]


def _surviving(recipe: Recipe, lost: AbstractSet[str]) -> list[str]:
    make_table = importlib.import_module("mira_megatron.ablation.make_table")
    survived = make_table.surviving_markdown(recipe, lost)
    if survived is None:
        return []
    return [printed_markdown(survived), "Of the arms that are whole; not written."]


def _cost(recipe: Recipe) -> str:
    """Returns what the arms took, which is also written down."""
    cost = importlib.import_module("mira_megatron.ablation.cost")
    written = importlib.import_module("mira_megatron.ablation.cost_written")
    told: str = written.write_cost(recipe, cost.recipe_cost(recipe))
    return printed_markdown(told)


def _print(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        # As Text: in a plain string rich would read `[` as markup.
        console.print(Text(line), soft_wrap=True)


def _units(number: int) -> str:
    return f"{number:,} unit{'' if number == 1 else 's'}"
