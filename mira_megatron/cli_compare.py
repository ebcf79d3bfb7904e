"""The words of `mira compare`, and what is then done."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from rich.console import Console

from mira_megatron.cli_words import Commands, add_log_level


def add_compare(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `compare`."""
    text = "evaluations beside each other and beside published numbers: intervals, paired tests"
    command = commands.add_parser("compare", help=text, description=text)
    command.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="the output of an evaluation, called by its own name",
    )
    command.add_argument(
        "--label",
        action="append",
        default=[],
        type=_labelled,
        metavar="NAME=DIR",
        help="an evaluation under a name; several of one name are seeds of one arm",
    )
    command.add_argument("--output", required=True, type=Path, metavar="DIR")
    command.add_argument(
        "--against", type=Path, metavar="FILE", help="a published table, see eval/published/"
    )
    command.add_argument(
        "--baseline", metavar="NAME", help="compare every arm with this one (default: every pair)"
    )
    command.add_argument(
        "--contamination",
        type=Path,
        metavar="DIR",
        help="the output of mira decontaminate: scores on tasks that the corpus had, and had not",
    )
    command.add_argument(
        "--allow-unlike",
        action="store_true",
        help="compare what is not of one protocol, and mark it",
    )
    command.add_argument(
        "--resamples", type=int, default=10_000, metavar="N", help="default: %(default)s"
    )
    command.add_argument("--seed", type=int, default=0, help="of the resamples (default: 0)")
    add_log_level(command)


def run_compare(arguments: argparse.Namespace) -> int:
    """Returns the exit code of `mira compare`."""
    comparison = importlib.import_module("mira_megatron.eval.comparison.comparison")
    resampling = importlib.import_module("mira_megatron.eval.statistics.resampling")
    tool = importlib.import_module("mira_megatron.eval.comparison.compare_tool")
    options = comparison.Options(
        folders=arguments.folders,
        labelled=arguments.label,
        against=arguments.against,
        baseline=arguments.baseline,
        contamination=arguments.contamination,
        allows_unlike=arguments.allow_unlike,
        resampling=resampling.Resampling(num_resamples=arguments.resamples, seed=arguments.seed),
    )
    code: int = tool.run(Console(), options, arguments.output)
    return code


def _labelled(word: str) -> tuple[str, Path]:
    name, sign, folder = word.partition("=")
    if not (name.strip() and sign and folder):
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=DIR")
    return name, Path(folder)
