"""The `mira` command: argv, environment and logging are touched here and nowhere else.

Exit codes: 0 done or already done, 2 something the user can fix (one message), 1 a bug; 75 another
process has what this one is to write; 130 and 143 after Ctrl-C and SIGTERM, once what was in flight
is kept.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from mira_megatron import layout
from mira_megatron.atomic_files import NO_SPACE
from mira_megatron.cli_ablate import ABLATION, run_ablate, run_table
from mira_megatron.cli_cluster import run_doctor, run_job, submit_recipe
from mira_megatron.cli_compare import run_compare
from mira_megatron.cli_decontaminate import run_decontaminate
from mira_megatron.cli_evaluate import run_evaluate
from mira_megatron.cli_grade import run_export_predictions, run_grade
from mira_megatron.cli_parser import command_parser
from mira_megatron.cli_sharing import check_sharing, run_sharing_workers, units_at_once
from mira_megatron.cli_swe import run_swe
from mira_megatron.cli_words import print_json, wide_console
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.endpoints import unusable_api_keys
from mira_megatron.file_lock import IN_USE, LockHeldError
from mira_megatron.launchers.job_place import scheduled_as
from mira_megatron.pipeline import STAGES, run_stages, unit_states
from mira_megatron.recipes_before import (
    all_before,
    refuse_unfinished,
    run_before,
    stages_left,
    warn_of_unfinished,
)
from mira_megatron.stage import Resources
from mira_megatron.stop_signals import INTERRUPTED, heeding_sigterm
from mira_megatron.tokens_tool import run_tokens_tool

logger = logging.getLogger(__name__)

# Packages that only some stages need, and the extra that brings each.
EXTRA_OF_MODULE = {
    "altair": "report",
    "jinja2": "report",
    "megatron": "megatron",
    "ray": "ray",
    "sentence_transformers": "embeddings",
    "sqlglot": "eval",
    "swebench": "swe",
    "tensorboard": "megatron",
    "torch": "megatron",
    "transformers": "transformers",
    "vl_convert": "report",
}
_USER_ERRNOS = (
    *NO_SPACE,
    errno.EACCES,
    errno.EROFS,
    errno.EADDRINUSE,
    errno.EISDIR,
    errno.ENOTDIR,
)


@heeding_sigterm
def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    arguments = _parse(argv)
    _set_up_logging(arguments.log_level)
    try:
        return _run(arguments)
    except LockHeldError as error:
        _refuse(error)
        return IN_USE
    except (ValueError, FileNotFoundError) as error:
        return _refuse(error)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _refuse(ValueError(f"{error}: install it with pip install mira-megatron[{extra}]"))
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        return _refuse(error)
    except KeyboardInterrupt:
        logger.error("stopped; run the same command again to go on from here")
        return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "judge-server":
        server = importlib.import_module("mira_megatron.rubric.judge_server")
        url = f"http://{arguments.host}:{arguments.port}/v1"
        logger.info("the rule judge answers at %s until interrupted", url)
        server.serve(arguments.host, arguments.port)
        return 0
    if arguments.command == "doctor":
        return run_doctor(arguments)
    if arguments.command == "rubric":
        _run_rubric_tool(arguments)
        return 0
    if arguments.command == "tokens":
        return run_tokens_tool(arguments)
    if arguments.command == "grade":
        return run_grade(arguments)
    if arguments.command == "export-predictions":
        return run_export_predictions(arguments)
    if arguments.command == "swe":
        return run_swe(arguments)
    if arguments.command == "evaluate":
        return run_evaluate(arguments, os.environ)
    if arguments.command == "compare":
        return run_compare(arguments)
    if arguments.command == "decontaminate":
        return run_decontaminate(arguments)
    if arguments.command == "job":
        return run_job(arguments, os.environ)
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    is_whole_run = arguments.command in ("run", "ablate") and not arguments.dry_run
    if arguments.command == "submit" and not (arguments.dry_run or arguments.scripts):
        refuse_unfinished(recipe, "submit", f"--cluster={arguments.cluster}")
    elif not is_whole_run:
        warn_of_unfinished(recipe)
    match arguments.command:
        case "serve":
            return _serve(arguments, recipe)
        case "plan":
            _plan(arguments, recipe)
            return 0
        case "submit":
            submit_recipe(arguments, recipe, os.environ)
            return 0
        case "failures":
            _print_failures(recipe, is_json=arguments.json)
            return 0
        case "explain":
            _explain(arguments, recipe)
            return 0
        case "export":
            export = importlib.import_module("mira_megatron.retention.export")
            export.export_selection(recipe, arguments.output, arguments.arm)
            return 0
    recipes = [*all_before(recipe), recipe] if is_whole_run else [recipe]
    check_sharing(arguments, recipes)
    if arguments.missing:
        missing = importlib.import_module("mira_megatron.launchers.missing")
        for unit in missing.units_left(recipe):
            Console().print(Text(str(unit)), soft_wrap=True)
        return 0
    of_all_stages = arguments.command in ("run", "ablate", "status")
    stages = list(STAGES) if of_all_stages else [arguments.command]
    summary = importlib.import_module("mira_megatron.report.summary")
    console = Console()
    if arguments.command == "status" or arguments.dry_run:
        states = unit_states(recipe, stages, arguments.only)
        summary.print_status(console, recipe, states)
        if arguments.command == "status":
            table = importlib.import_module("mira_megatron.report.job_table")
            table.print_jobs(console, recipe.run_folder, states)
        return 0
    secrets = {name: key for each in recipes for name, key in _secrets(each).items()}
    if not arguments.reparse:
        for each in recipes:
            _check_keys(each, stages, secrets)
    if code := run_sharing_workers(arguments, recipe, secrets):
        return code
    resources = Resources(
        workers=arguments.workers,
        is_shared=arguments.share or arguments.ray is not None or arguments.processes is not None,
        job=scheduled_as(os.environ),
        secrets=secrets,
    )
    if is_whole_run:
        evaluation = importlib.import_module(STAGES["eval"])
        for each in recipes:
            evaluation.check_sandbox(each)
        run_before(recipe, resources, lambda earlier: units_at_once(arguments, earlier))
    run_ahead = units_at_once(arguments, recipe)
    if arguments.command == "ablate":
        return run_ablate(console, recipe, resources, run_ahead)
    if arguments.command == ABLATION:
        run_table(console, recipe, resources)
        return 0
    run_stages(
        recipe,
        stages,
        resources,
        reparses=arguments.reparse,
        only=arguments.only,
        run_ahead=run_ahead,
    )
    if arguments.command == "run":
        summary.print_summary(console, recipe)
    if arguments.command in ("label", "score") and not arguments.share:
        _print_failures(recipe, stages=[arguments.command])
    return 0


def _run_rubric_tool(arguments: argparse.Namespace) -> None:
    tool = importlib.import_module("mira_megatron.rubric.rubric_tool")
    match arguments.word:
        case "show":
            paths = [_rubric_of(path) for path in arguments.paths]
            tool.show(Console(), paths, markdown=arguments.markdown)
        case "diff":
            before, after = _rubric_of(arguments.before), _rubric_of(arguments.after)
            tool.diff(Console(), before, after, markdown=arguments.markdown)
        case _:
            tool.freeze(Console(), arguments.path, output=arguments.output)


def _serve(arguments: argparse.Namespace, recipe: Recipe) -> int:
    serve = importlib.import_module("mira_megatron.scoring.serve")
    options = serve.ServeOptions(
        profile=arguments.profile,
        gpus=arguments.gpus,
        host=arguments.host,
        port=arguments.port,
        python=arguments.python,
        gpu_ids=tuple(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","))),
        more=tuple(shlex.split(arguments.vllm)),
    )
    model = serve.served_model(recipe, arguments.group)
    to_run = serve.servers(model, options)
    if arguments.run:
        code: int = serve.run_servers(to_run)
        return code
    console = Console(soft_wrap=True)
    for server in to_run:
        console.print(server.line, markup=False, highlight=False)
    urls = ", ".join(server.url for server in to_run)
    console.print(
        f"\n# Then score with it: scorers.{arguments.group}: "
        f"{{engine: endpoint, endpoints: [{urls}]}}",
        markup=False,
        highlight=False,
    )
    return 0


def _plan(arguments: argparse.Namespace, recipe: Recipe) -> None:
    planning = importlib.import_module("mira_megatron.planning.whole_plan")
    made = planning.whole_plan(recipe, workers=arguments.workers)
    if arguments.json:
        print_json(planning.whole_plan_json(made))
    else:
        planning.print_whole_plan(wide_console(), made)


def _explain(arguments: argparse.Namespace, recipe: Recipe) -> None:
    explanation = importlib.import_module("mira_megatron.explain.explanation")
    printing = importlib.import_module("mira_megatron.explain.explanation_printing")
    found = explanation.explain(recipe, arguments.record_id, source=arguments.source)
    if arguments.json:
        print_json(printing.explanation_json(found))
    else:
        printing.print_explanation(Console(), found)


def _print_failures(
    recipe: Recipe, *, stages: Sequence[str] = ("label", "score"), is_json: bool = False
) -> None:
    failures = importlib.import_module("mira_megatron.report.failures")
    outcomes = failures.read_outcomes(recipe, stages)
    if is_json:
        print_json(failures.outcomes_json(outcomes))
    else:
        failures.print_outcomes(Console(), outcomes)


def _rubric_of(path: Path) -> Path:
    """Returns where a recipe's anchors lie; any other path as it is."""
    if path.suffix not in (".yaml", ".yml"):
        return path
    recipe = load_recipe(path)
    return recipe.run_folder / layout.anchors(recipe.rubric, "")


def _secrets(recipe: Recipe) -> dict[str, str]:
    """Returns the environment variables that the recipe names as API keys, and no others."""
    keyed = [section for stage in STAGES for section in _keyed_sections(recipe, stage).values()]
    named = {str(section["api_key_env"]) for section in keyed if section.get("api_key_env")}
    return {name: os.environ[name] for name in sorted(named) if name in os.environ}


def _check_keys(recipe: Recipe, stages: Sequence[str], secrets: Mapping[str, str]) -> None:
    """Raises ValueError for a key that a stage still to be run will miss, before any is run."""
    keyed = {stage: _keyed_sections(recipe, stage) for stage in stages}
    if not any(unusable_api_keys(sections, secrets) for sections in keyed.values()):
        return
    to_run = stages_left(recipe, stages)
    missed = {
        name: section
        for stage in stages
        if stage in to_run
        for name, section in keyed[stage].items()
    }
    problems = unusable_api_keys(missed, secrets)
    if problems:
        raise ValueError(f"{recipe.path}: {'; '.join(problems)}")


def _keyed_sections(recipe: Recipe, stage: str) -> dict[str, Mapping[str, object]]:
    """Returns the sections that say whom a stage asks, by the name that messages give them."""
    own = _mapping(recipe.values.get(stage))
    match stage:
        case "group" | "anchor":
            return {"embedder": _mapping(recipe.values.get("embedder"))}
        case "discover" | "label":
            return {"teacher": {**_mapping(recipe.values.get("teacher")), **own}}
        case "eval":
            return {"eval": own}
        case "reliability" | "score":
            own = _mapping(recipe.values.get("score"))
            scorers = recipe.mapping("scorers").items()
            return {
                "score": own,
                **{f"scorers.{name}": {**own, **_mapping(entry)} for name, entry in scorers},
            }
        case "baseline":
            named = recipe.mapping("baselines").items()
            return {f"baselines.{name}": _mapping(entry) for name, entry in named}
        case _:
            return {}


def _mapping(section: object) -> Mapping[str, object]:
    # What is no mapping is refused, with file and section, by the stage that reads it.
    return section if isinstance(section, Mapping) else {}


def _refuse(error: Exception) -> int:
    message: object = error
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    logger.error("%s", message, exc_info=logger.isEnabledFor(logging.DEBUG))
    return 2


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser()
    arguments, others = parser.parse_known_args(argv)
    # argparse takes no positional words after an option: `mira run RECIPE --workers 2 seed=3`.
    wrong = [word for word in others if word.startswith("-") or "=" not in word]
    if wrong or (others and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(wrong or others)}")
    if others:
        arguments.overrides = [*arguments.overrides, *others]
    return arguments


def _set_up_logging(level: str) -> None:
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(
            console=Console(stderr=True), show_path=False, markup=False
        )
        handler.setFormatter(logging.Formatter("%(message)s", datefmt="%H:%M:%S"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # What megatron-core says on every machine without CUDA, and torch about itself.
    warnings.filterwarnings("ignore", module=r"megatron\.")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("mira_megatron").setLevel(level.upper())


if __name__ == "__main__":
    sys.exit(main())
