"""The words of `mira evaluate`, and what is then done."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from mira_megatron.cli_grade import add_grading, add_suite
from mira_megatron.cli_words import Commands, add_log_level, add_workers
from mira_megatron.endpoints import api_key


def add_evaluate(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `evaluate`."""
    text = "ask endpoints for the answers to a suite's benchmarks, and grade them in a sandbox"
    command = commands.add_parser("evaluate", help=text, description=text)
    add_suite(command)
    command.add_argument(
        "--endpoint",
        action="append",
        default=[],
        metavar="URL",
        help="a base URL such as http://127.0.0.1:8000/v1; may be given several times",
    )
    command.add_argument("--model", metavar="NAME", help="as the endpoints call it")
    command.add_argument(
        "--style", choices=["completion", "chat"], help="completion: a base model goes on"
    )
    command.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="of this one model and style"
    )
    command.add_argument(
        "--benchmark", action="append", default=[], metavar="NAME", help="only this; may be several"
    )
    command.add_argument("--limit", type=int, metavar="N", help="only the first tasks of each")
    add_grading(command)
    command.add_argument(
        "--api-key-env", metavar="VAR", help="the environment variable that holds the key"
    )
    command.add_argument(
        "--max-in-flight",
        type=int,
        default=64,
        metavar="N",
        help="requests at each endpoint at one time, at most (default: 64)",
    )
    command.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="of one attempt at an answer (default: 600)",
    )
    only = command.add_mutually_exclusive_group()
    only.add_argument("--generate-only", action="store_true", help="run no program")
    only.add_argument("--grade-only", action="store_true", help="ask no endpoint")
    add_workers(command)
    add_log_level(command)


def run_evaluate(arguments: argparse.Namespace, secrets: Mapping[str, str]) -> int:
    """Returns the exit code of `mira evaluate`; `secrets` has the environment's variables.

    Raises ValueError for words that do not go together.
    """
    _check(arguments)
    tool = importlib.import_module("mira_megatron.eval.evaluate_tool")
    answerer = None
    if not arguments.grade_only:
        asking = importlib.import_module("mira_megatron.eval.generation.asking")
        asked = asking.Asked(
            endpoints=tuple(arguments.endpoint),
            model=arguments.model,
            max_in_flight=arguments.max_in_flight,
            timeout_seconds=arguments.timeout,
            api_key=api_key(arguments.api_key_env, secrets, "evaluate"),
        )
        answerers = importlib.import_module("mira_megatron.eval.generation.answerer")
        answerer = answerers.EndpointAnswerer(asked)
    style = importlib.import_module("mira_megatron.eval.benchmark").Style
    options = tool.EvaluateOptions(
        suite=arguments.suite,
        output=arguments.output,
        answerer=answerer,
        style=None if arguments.style is None else style(arguments.style),
        benchmarks=tuple(dict.fromkeys(arguments.benchmark)),
        limit=arguments.limit,
        data_folder=arguments.data_folder,
        cache=arguments.cache,
        min_isolation=arguments.min_isolation,
        workers=arguments.workers,
        is_graded=not arguments.generate_only,
        has_controls=not arguments.no_controls,
    )
    code: int = tool.run(Console(), options)
    return code


def _check(arguments: argparse.Namespace) -> None:
    asking = {
        "--endpoint": arguments.endpoint,
        "--model": arguments.model,
        "--style": arguments.style,
    }
    if arguments.grade_only:
        given = [name for name, value in asking.items() if value]
        if given:
            raise ValueError(
                f"--grade-only asks nobody: leave {', '.join(given)} out; the model and style are "
                "those of OUTPUT/suite.json"
            )
    elif missing := [name for name, value in asking.items() if not value]:
        raise ValueError(f"{', '.join(missing)}: needed to ask a model; see mira evaluate --help")
    for name in ("limit", "max_in_flight", "timeout"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')}={value} must be above 0")
