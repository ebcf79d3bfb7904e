"""Sharing a stage from the command line: workers on this machine, or as Ray tasks.

A worker is one more `mira STAGE RECIPE --share`, told what this command was told.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence

from mira_megatron.config import Recipe
from mira_megatron.launchers.processes import run_workers
from mira_megatron.launchers.units_at_once import (
    SECTIONS,
    UnitsAtOnce,
    check_threads,
    fitting_number,
)


def check_sharing(arguments: argparse.Namespace, recipes: Sequence[Recipe]) -> None:
    """Raises ValueError for words on sharing that do not go together, or not with a recipe."""
    if arguments.units_at_once is not None and arguments.units_at_once < 1:
        raise ValueError(f"--units-at-once {arguments.units_at_once} must be at least 1")
    if arguments.share or arguments.processes is not None or (arguments.units_at_once or 1) > 1:
        is_whole_run = arguments.command in ("run", "ablate")
        for recipe in recipes:
            check_threads(recipe, list(SECTIONS) if is_whole_run else [arguments.command])
    if arguments.processes is not None and arguments.processes < 1:
        raise ValueError(f"--processes {arguments.processes} must be at least 1")
    if arguments.ray is None:
        if arguments.gpus_per_task is not None:
            raise ValueError("--gpus-per-task is for the tasks of --ray")
        return
    if "=" in arguments.ray:
        raise ValueError(
            f"--ray {arguments.ray}: this is no address. Give settings before --ray, or say "
            "--ray=ADDRESS"
        )
    if arguments.share or arguments.missing or arguments.reparse:
        raise ValueError(
            "--ray starts workers that share: leave out --share, --missing and --reparse"
        )
    if arguments.gpus_per_task is not None and arguments.gpus_per_task < 0:
        raise ValueError(f"--gpus-per-task {arguments.gpus_per_task:g} must be at least 0")


def units_at_once(arguments: argparse.Namespace, recipe: Recipe) -> UnitsAtOnce | None:
    """Returns what has several models made at once, None where one at a time is."""
    number = arguments.units_at_once
    if number is None:
        number = fitting_number(recipe, arguments.workers)
    if number == 1:
        return None
    return UnitsAtOnce(
        recipe=recipe,
        number=number,
        workers=arguments.workers,
        log_level=arguments.log_level,
    )


def run_sharing_workers(
    arguments: argparse.Namespace, recipe: Recipe, secrets: Mapping[str, str]
) -> int:
    """Starts the workers that were asked for, if any; returns their worst exit code.

    What they leave behind is then this process's to do.
    """
    if arguments.ray is not None:
        return _run_on_ray(arguments, recipe, secrets)
    if arguments.processes is not None:
        workers = max(1, arguments.workers // arguments.processes)
        num_threads = workers if arguments.command in SECTIONS else None
        words = _worker_words(arguments, workers)
        return run_workers(words, arguments.processes, num_threads)
    return 0


def _run_on_ray(arguments: argparse.Namespace, recipe: Recipe, secrets: Mapping[str, str]) -> int:
    """Has Ray tasks share a stage until it is done; returns the worst exit code."""
    ray_tasks = importlib.import_module("mira_megatron.launchers.ray_tasks")
    worker_gpus = importlib.import_module("mira_megatron.launchers.worker_gpus")
    gpus = arguments.gpus_per_task
    code: int = ray_tasks.run_ray_workers(
        ray_tasks.RayWorkers(
            words=_worker_words(arguments, workers=1),
            address=arguments.ray,
            num_tasks=arguments.processes,
            gpus_per_task=worker_gpus.gpus_of_a_worker(recipe) if gpus is None else gpus,
            secrets=secrets,
        ),
        recipe,
    )
    return code


def _worker_words(arguments: argparse.Namespace, workers: int) -> list[str]:
    """Returns the words of one of those that share the stage."""
    words = [arguments.command, str(arguments.recipe), *arguments.overrides, "--share"]
    words += [] if arguments.only is None else [f"--only={arguments.only}"]
    return [*words, "--workers", str(workers), "--log-level", arguments.log_level]
