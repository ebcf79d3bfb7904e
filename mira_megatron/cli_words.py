"""Words that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

Commands = argparse._SubParsersAction  # argparse gives what add_subparsers returns no public name


_LOG_COLUMNS = 110


def wide_console() -> Console:
    """Returns a console for tables: a log has no edge, and 80 columns cut names in two."""
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_COLUMNS)


def add_recipe(command: argparse.ArgumentParser) -> None:
    """Adds a recipe and its overrides."""
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file, see recipes/")
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="a setting to change, for example seed=7",
    )


def add_log_level(command: argparse.ArgumentParser) -> None:
    """Adds --log-level."""
    levels = ["debug", "info", "warning", "error"]
    command.add_argument("--log-level", choices=levels, default="info")


def add_workers(command: argparse.ArgumentParser) -> None:
    """Adds --workers."""
    command.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes on this machine (default: %(default)s); never changes a byte of the result",
    )


def add_units_at_once(command: argparse.ArgumentParser) -> None:
    """Adds --units-at-once."""
    command.add_argument(
        "--units-at-once",
        type=int,
        metavar="N",
        help="models trained and measured beside each other on this machine; needs num_threads in "
        "the recipe (default: as many as there are --workers for, or 1 without num_threads)",
    )


def add_json(command: argparse.ArgumentParser) -> None:
    """Adds --json."""
    command.add_argument("--json", action="store_true", help="JSON instead of a table")


def print_json(content: str) -> None:
    """Prints JSON to stdout as it is, whatever its length."""
    # As Text: in a plain string rich would put pictures in place of `:names:`.
    Console().print(Text(content), soft_wrap=True)
