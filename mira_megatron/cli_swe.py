"""The words of `mira swe`, and what is then done."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from rich.console import Console

from mira_megatron.cli_words import Commands, add_log_level
from mira_megatron.eval.grade_shards import shard_of_words
from mira_megatron.eval.swe.agent_command import (
    ENVIRONMENTS,
    MULTILINGUAL,
    AgentRun,
    command_line,
)
from mira_megatron.eval.swe.engines import ENGINES, SETTINGS, Engine


def add_swe(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `swe` and its words."""
    text = "SWE-bench Multilingual: an agent's patches, run in containers and graded from the logs"
    tool = commands.add_parser("swe", help=text, description=text)
    words = tool.add_subparsers(dest="word", required=True, metavar="WORD")
    _add_command(words)
    _add_run(words)
    _add_grade(words)


def run_swe(arguments: argparse.Namespace) -> int:
    """Returns the exit code of `mira swe`."""
    if arguments.word == "command":
        run = AgentRun(
            served_model=arguments.model,
            endpoint=arguments.endpoint,
            output=arguments.output,
            subset=arguments.subset,
            environment=arguments.environment,
            workers=arguments.workers,
            temperature=arguments.temperature,
            has_tool_calls=not arguments.no_tool_calls,
        )
        sys.stdout.write(f"{command_line(run)}\n")
        return 0
    tool = importlib.import_module("mira_megatron.eval.swe.swe_tool")
    code: int
    if arguments.word == "run":
        engine = Engine(
            name=arguments.engine,
            has_network=not arguments.no_network,
            memory_gb=arguments.memory_gb,
            images=arguments.images,
        )
        options = tool.RunOptions(
            dataset=arguments.dataset,
            predictions=arguments.predictions,
            logs=arguments.logs,
            engine=engine,
            workers=arguments.workers,
            seconds=arguments.seconds,
            shard=None if arguments.shard is None else shard_of_words(arguments.shard),
        )
        code = tool.run(Console(), options)
        return code
    options = tool.SweGradeOptions(
        dataset=arguments.dataset,
        predictions=arguments.predictions,
        logs=arguments.logs,
        output=arguments.output,
        is_subset=arguments.subset,
        setting=arguments.setting,
    )
    code = tool.grade(Console(), options)
    return code


def _add_command(words: Commands[argparse.ArgumentParser]) -> None:
    text = "print the command that has mini-swe-agent make patches with a served model"
    word = words.add_parser("command", help=text, description=text)
    word.add_argument("--model", required=True, metavar="NAME", help="as the endpoint serves it")
    word.add_argument("--endpoint", required=True, metavar="URL", help="http://HOST:PORT/v1")
    word.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="its preds.json is what is run"
    )
    word.add_argument(
        "--subset", default=MULTILINGUAL, help="or a path that datasets.load_dataset reads"
    )
    word.add_argument("--environment", choices=ENVIRONMENTS, default="docker")
    word.add_argument("--workers", type=int, default=16, help="instances at a time (default: 16)")
    word.add_argument("--temperature", type=float, default=0.0, help="(default: 0)")
    word.add_argument(
        "--no-tool-calls", action="store_true", help="for a model that was not tuned to call tools"
    )
    add_log_level(word)


def _add_run(words: Commands[argparse.ArgumentParser]) -> None:
    text = "run every patch in its instance's container, and keep the log"
    word = words.add_parser("run", help=text, description=text)
    word.add_argument("dataset", type=Path, metavar="DATASET", help="rows of SWE-bench 5")
    patches = word.add_mutually_exclusive_group(required=True)
    patches.add_argument("--predictions", type=Path, metavar="FILE", help=".json or .jsonl")
    patches.add_argument(
        "--gold", action="store_true", help="the dataset's own patches: does this machine work?"
    )
    word.add_argument("--logs", required=True, type=Path, metavar="DIR")
    word.add_argument("--engine", required=True, choices=ENGINES)
    word.add_argument(
        "--images", type=Path, metavar="DIR", help="apptainer: .sif files, instead of a registry"
    )
    word.add_argument(
        "--no-network",
        action="store_true",
        help="containers see none; some instances may need it: look with --gold",
    )
    word.add_argument("--memory-gb", type=int, default=16, help="of a container (default: 16)")
    word.add_argument(
        "--seconds", type=float, default=1800, help="that a container may live (default: 1800)"
    )
    word.add_argument("--workers", type=int, default=4, help="containers at a time (default: 4)")
    word.add_argument("--shard", metavar="I/N", help="every N-th instance, from the I-th, from 0")
    add_log_level(word)


def _add_grade(words: Commands[argparse.ArgumentParser]) -> None:
    text = "grade logs with the official package; needs no engine"
    word = words.add_parser("grade", help=text, description=text)
    word.add_argument("dataset", type=Path, metavar="DATASET", help="rows of SWE-bench 5")
    word.add_argument("--predictions", required=True, type=Path, metavar="FILE")
    word.add_argument("--logs", required=True, type=Path, metavar="DIR")
    word.add_argument("--output", required=True, type=Path, metavar="DIR")
    word.add_argument(
        "--subset", action="store_true", help="the dataset may be fewer than all 300 instances"
    )
    word.add_argument(
        "--setting",
        choices=SETTINGS,
        help="engine and network of the runs, where LOGS has those of several",
    )
    add_log_level(word)
