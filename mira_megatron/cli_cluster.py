"""What `mira` does about clusters: `submit`, `job` and `doctor`."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mira_megatron.cli_words import print_json, wide_console
from mira_megatron.config import Recipe, load_recipe

if TYPE_CHECKING:
    from mira_megatron.launchers.cluster import Cluster
    from mira_megatron.launchers.job_graph import PlannedJob
    from mira_megatron.launchers.job_place import JobPlace


def run_job(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Runs what a job of a cluster is told, and returns the exit code that its script reads."""
    place = importlib.import_module("mira_megatron.launchers.job_place").place_from(environment)
    of_recipes = ("overrides", "only", "workers", "max_failures")
    given = [word for word in of_recipes if getattr(arguments, word) not in (None, [])]
    if arguments.stage is None and given:
        raise ValueError(
            f"{given[0].replace('_', '-')} belongs to `mira job RECIPE --stage STAGE`. A job.json "
            "holds its own, which `mira submit` writes"
        )
    file = arguments.file if arguments.stage is None else _written_by_hand(arguments, place)
    if place.is_head:
        submissions = importlib.import_module("mira_megatron.launchers.submissions")
        submissions.note_started(file.parent, environment)
    runner = importlib.import_module("mira_megatron.launchers.job_runner")
    code: int = runner.run_job(file, place)
    return code


def _written_by_hand(arguments: argparse.Namespace, place: JobPlace) -> Path:
    """Returns the file of the job that the command line describes."""
    recipe = load_recipe(arguments.file, arguments.overrides)
    written: Path = (
        importlib.import_module("mira_megatron.launchers.hand_job")
        .hand_job(
            recipe,
            arguments.overrides,
            arguments.stage,
            place,
            only=arguments.only,
            workers=1 if arguments.workers is None else arguments.workers,
            max_failures=2 if arguments.max_failures is None else arguments.max_failures,
        )
        .path
    )
    return written


def submit_recipe(
    arguments: argparse.Namespace, recipe: Recipe, environment: Mapping[str, str]
) -> None:
    """Shows the jobs that are left, and sends them or writes their scripts."""
    launchers = "mira_megatron.launchers"
    cluster = importlib.import_module(f"{launchers}.cluster").load_cluster(arguments.cluster)
    if arguments.dry_run:
        models = importlib.import_module(f"{launchers}.stand_ins")
        with models.stand_ins(recipe) as (shown, missing):
            _show_graph(shown, cluster)
        if missing:
            told = f"Not on this machine, which its jobs need: {', '.join(missing)}."
            Console().print(Text(told), soft_wrap=True)
        return
    submit = importlib.import_module(f"{launchers}.submit")
    if arguments.scripts:
        # Who sends by hand may prepare it elsewhere; the jobs themselves need the models.
        models = importlib.import_module(f"{launchers}.stand_ins")
        with models.stand_ins(recipe) as (shown, _):
            jobs = importlib.import_module(f"{launchers}.job_graph").job_graph(shown, cluster)
        lines = submit.write_scripts(jobs, recipe, arguments.overrides, cluster, environment)
        Console().print(Text(lines), soft_wrap=True)
        return
    if jobs := _show_graph(recipe, cluster):
        sent = submit.submit(jobs, recipe, arguments.overrides, cluster, environment)
        table = importlib.import_module(f"{launchers}.graph_table")
        table.print_submitted(Console(), sent)


def _show_graph(recipe: Recipe, cluster: Cluster) -> list[PlannedJob]:
    jobs: list[PlannedJob] = importlib.import_module("mira_megatron.launchers.job_graph").job_graph(
        recipe, cluster
    )
    hours = importlib.import_module("mira_megatron.planning.gpu_hours")
    table = importlib.import_module("mira_megatron.launchers.graph_table")
    table.print_graph(wide_console(), jobs, hours.gpu_hours(jobs, recipe, cluster.gpu), cluster)
    return jobs


def run_doctor(arguments: argparse.Namespace) -> int:
    """Looks at a recipe, at one training, or at what is installed, and returns the exit code."""
    words = ("config", "run_folder", "rubric", "group", "base")
    given = [word for word in words if getattr(arguments, word) is not None]
    if arguments.recipe is not None:
        if given:
            raise ValueError(
                f"--{given[0].replace('_', '-')} looks at a single training and RECIPE at all of "
                "its own: give one of them"
            )
        if arguments.eval:
            raise ValueError("--eval looks at this machine and not at a RECIPE: give it alone")
        return _preflight(arguments)
    for word in ("cluster", "verify", "json"):
        if getattr(arguments, word):
            raise ValueError(f"--{word} needs a RECIPE: mira doctor RECIPE --{word}")
    for word in ("suite", "data_folder"):
        if getattr(arguments, word) and not arguments.eval:
            raise ValueError(f"--{word.replace('_', '-')} goes with --eval")
    if arguments.eval:
        if given:
            raise ValueError("--eval looks at this machine and not at a training: give it alone")
        checks = importlib.import_module("mira_megatron.doctor.eval_checks")
        suite, data_folder = arguments.suite, arguments.data_folder
        return int(checks.run(Console(), suite=suite, data_folder=data_folder))
    doctor = importlib.import_module("mira_megatron.doctor.doctor")
    if given and len(given) < len(words):
        missing = ", ".join(f"--{word.replace('_', '-')}" for word in words if word not in given)
        raise ValueError(f"to look at a training, doctor also needs {missing}")
    training = None
    if given:
        training = doctor.Training(
            recipe=arguments.config,
            folders=doctor.GroupFolders(
                run_folder=arguments.run_folder, rubric=arguments.rubric, group=arguments.group
            ),
            base_folder=arguments.base,
        )
    code: int = doctor.run(Console(), training)
    return code


def _preflight(arguments: argparse.Namespace) -> int:
    preflight = importlib.import_module("mira_megatron.doctor.preflight")
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    cluster = None
    if arguments.cluster is not None:
        clusters = importlib.import_module("mira_megatron.launchers.cluster")
        cluster = clusters.load_cluster(arguments.cluster)
    findings = preflight.preflight(recipe, cluster, verify_all=arguments.verify)
    if arguments.json:
        print_json(preflight.findings_json(findings))
    else:
        preflight.print_findings(Console(), findings)
    code: int = preflight.exit_code(findings)
    return code
