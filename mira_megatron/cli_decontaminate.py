"""The words of `mira decontaminate`, and what is then done."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from rich.console import Console

from mira_megatron.cli_words import Commands, add_log_level, add_recipe, add_workers
from mira_megatron.config import load_recipe
from mira_megatron.eval.contamination.items import DEFAULT_THRESHOLD, MIN_SCORE


def add_decontaminate(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `decontaminate`."""
    text = "look for benchmark items in the records, and make a keep mask without them"
    command = commands.add_parser("decontaminate", help=text, description=text)
    add_recipe(command)
    command.add_argument(
        "--suite", required=True, type=Path, metavar="SUITE", help="a YAML file, see eval/suites/"
    )
    command.add_argument("--data-folder", type=Path, metavar="DIR", help="default: the suite's")
    command.add_argument(
        "--benchmark",
        action="append",
        default=[],
        metavar="NAME",
        help="one of the suite's; may be given more than once (default: all)",
    )
    command.add_argument(
        "--train",
        action="append",
        default=[],
        type=_train_file,
        metavar="NAME=FILE",
        help="a benchmark's training split: looked for and told apart, never left out",
    )
    command.add_argument(
        "--threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        metavar="SCORE",
        help="of an item's text in one record, from which on the record is left out, "
        f"in [{MIN_SCORE}, 1] "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="default: RUN_FOLDER/contamination/<suite>"
    )
    add_workers(command)
    add_log_level(command)


def run_decontaminate(arguments: argparse.Namespace) -> int:
    """Returns the exit code of `mira decontaminate`."""
    tool = importlib.import_module("mira_megatron.eval.contamination.decontaminate_tool")
    options = tool.DecontaminateOptions(
        suite=arguments.suite,
        data_folder=arguments.data_folder,
        benchmarks=tuple(arguments.benchmark),
        train_files=dict(arguments.train),
        threshold=arguments.threshold,
        output=arguments.output,
        workers=arguments.workers,
    )
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    code: int = tool.run(Console(), recipe, options)
    return code


def _train_file(word: str) -> tuple[str, Path]:
    name, equals, path = word.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{word!r}: expected NAME=FILE, as in spider=train.json")
    return name, Path(path)
