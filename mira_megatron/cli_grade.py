"""The words of `mira grade`, and what is then done."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path

from rich.console import Console

from mira_megatron.cli_words import Commands, add_log_level, add_workers
from mira_megatron.eval.grade_shards import shard_of_words


def add_grade(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `grade`."""
    text = "grade predictions made elsewhere, in a benchmark's own format, inside a sandbox"
    command = commands.add_parser("grade", help=text, description=text)
    _add_samples(command)
    command.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="verdicts.jsonl, results.json"
    )
    add_grading(command)
    command.add_argument(
        "--subset", action="store_true", help="tasks without a prediction are left out of the score"
    )
    command.add_argument(
        "--regrade",
        action="store_true",
        help="grade again what an earlier version of the grader has graded, and show what changes",
    )
    command.add_argument(
        "--shard",
        metavar="I/N",
        help="every N-th task, from the I-th on, counted from 0; the same command without it, "
        "afterwards, puts them together",
    )
    add_workers(command)
    add_log_level(command)


def add_grading(command: argparse.ArgumentParser) -> None:
    """Adds the words of every command that runs programs."""
    add_data_folder(command)
    command.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="gold values and verdicts by content, to be shared by checkpoints "
        "(default: OUTPUT/cache)",
    )
    command.add_argument(
        "--min-isolation",
        type=int,
        default=3,
        metavar="LEVEL",
        help="of the sandbox, as measured here; below it nothing is run (default: 3)",
    )
    command.add_argument(
        "--no-controls",
        action="store_true",
        help="do not look first whether gold and known-bad programs get their verdicts here",
    )


def add_suite(command: argparse.ArgumentParser) -> None:
    """Adds the suite."""
    command.add_argument("suite", type=Path, metavar="SUITE", help="a YAML file, see eval/suites/")


def add_data_folder(command: argparse.ArgumentParser) -> None:
    """Adds where the suite's data lie."""
    command.add_argument("--data-folder", type=Path, metavar="DIR", help="default: the suite's")


def _add_samples(command: argparse.ArgumentParser) -> None:
    add_suite(command)
    command.add_argument("--benchmark", required=True, metavar="NAME", help="one of the suite's")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--predictions", type=Path, metavar="FILE")
    which.add_argument(
        "--generations", type=Path, metavar="FILE", help="a generations.jsonl of mira evaluate"
    )


def add_export_predictions(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `export-predictions`."""
    text = "write predictions or generations as a benchmark's official tool reads them"
    command = commands.add_parser("export-predictions", help=text, description=text)
    _add_samples(command)
    command.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="a file; of MultiPL-E a folder"
    )
    add_data_folder(command)
    add_log_level(command)


def run_export_predictions(arguments: argparse.Namespace) -> int:
    """Returns the exit code of `mira export-predictions`."""
    tool = importlib.import_module("mira_megatron.eval.grade_tool")
    suites = importlib.import_module("mira_megatron.eval.suite")
    exports = importlib.import_module("mira_megatron.eval.exports")
    suite = suites.load_suite(arguments.suite, arguments.data_folder)
    entry = suite.entry(arguments.benchmark)
    with tempfile.TemporaryDirectory() as cache:  # nothing is run, so nothing is kept
        benchmark = suites.open_benchmark(entry, Path(cache))
        samples, _ = tool.read_samples(
            suite,
            entry,
            benchmark,
            arguments.generations or arguments.predictions,
            is_generated=arguments.generations is not None,
        )
        number = exports.export(entry.kind, benchmark, samples, arguments.output)
    Console().print(f"{arguments.output}: {number:,} programs", markup=False, soft_wrap=True)
    return 0


def run_grade(arguments: argparse.Namespace) -> int:
    """Returns the exit code of `mira grade`."""
    tool = importlib.import_module("mira_megatron.eval.grade_tool")
    options = tool.GradeOptions(
        suite=arguments.suite,
        benchmark=arguments.benchmark,
        predictions=arguments.generations or arguments.predictions,
        is_generated=arguments.generations is not None,
        output=arguments.output,
        data_folder=arguments.data_folder,
        cache=arguments.cache,
        min_isolation=arguments.min_isolation,
        workers=arguments.workers,
        is_subset=arguments.subset,
        has_controls=not arguments.no_controls,
        is_regrade=arguments.regrade,
        shard=None if arguments.shard is None else shard_of_words(arguments.shard),
    )
    code: int = tool.run(Console(), options)
    return code
