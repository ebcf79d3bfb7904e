"""Which jobs in the queue may stay there when a recipe is submitted again.

One that waits for a job that is gone will be cancelled by SLURM or refuse to run, and so will what
waits for it in turn: those are not kept, but cancelled and sent anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.launchers.job_file import JOBS, JobFile
from mira_megatron.launchers.job_graph import REST, PlannedJob
from mira_megatron.launchers.submissions import InQueue, read_submissions

_AFTER_OK = "afterok"


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """The jobs of a graph that are in the queue, and its arrays that are not of it any more."""

    kept: Mapping[str, str]  # SLURM's number by name
    dead: Mapping[str, str]  # in the queue, and to be cancelled: they would not run
    arrays: Mapping[str, str]  # at work on the last parts, so that the graph has only their rest


def queue_of(
    jobs: Sequence[PlannedJob],
    files: Mapping[str, JobFile],
    queued: Mapping[str, InQueue],
    run_folder: Path,
) -> Queue:
    """Returns what is to become of the jobs in the queue.

    Raises ValueError where some of them are of the recipe as it was before.
    """
    _check_recipe(jobs, files, queued)
    planned = {job.name for job in jobs}
    name_of = _names_by_number(run_folder)
    in_queue = {each.job_id for each in queued.values()}
    kept: dict[str, str] = {}
    dead: dict[str, str] = {}
    for job in jobs:  # in running order: those that it waits for have been seen
        own = queued.get(job.name)
        if own is None:
            continue

        def goes_on(kind: str, number: str) -> bool:
            """Returns whether a job is in the queue, or what it was to do is done."""
            if kind == _AFTER_OK:
                name = name_of.get(number)
                return number in kept.values() or (name is not None and name not in planned)
            # What an array left that has ended or was cancelled, a new one may do.
            return number in in_queue and number not in dead.values()

        can_run = not own.is_waiting or (
            all(name in kept for name in job.after_ok)
            and all(goes_on(kind, number) for kind, number in _waited_for(own.dependency))
        )
        (kept if can_run else dead)[job.name] = own.job_id
    arrays = {
        name: queued[name].job_id
        for name in (job.name.removesuffix(REST) for job in jobs if job.is_rest)
        if name in queued and name not in planned
    }
    return Queue(kept=kept, dead=dead, arrays=arrays)


def _check_recipe(
    jobs: Sequence[PlannedJob], files: Mapping[str, JobFile], queued: Mapping[str, InQueue]
) -> None:
    outdated = {
        job.name: queued[job.name].job_id
        for job in jobs
        if job.name in queued
        and JobFile.read(files[job.name].path).recipe_digest != files[job.name].recipe_digest
    }
    if outdated:
        raise ValueError(
            f"{', '.join(outdated)}: in the queue for this recipe as it was before. They would "
            f"refuse to run. End them with `scancel {' '.join(outdated.values())}`, or undo the "
            "change"
        )


def _waited_for(dependency: str) -> list[tuple[str, str]]:
    """Returns kind and number of what a job waits for: `afterok:7:8,afterany:9_*(unfulfilled)`."""
    found = []
    for wait in dependency.split(","):
        kind, _, numbers = wait.partition(":")
        found += [(kind, number) for number in re.findall(r"(?:^|:)(\d+)", numbers)]
    return found


def _names_by_number(run_folder: Path) -> dict[str, str]:
    return {
        each.job_id: folder.name
        for folder in (run_folder / JOBS).glob("*/")
        for each in read_submissions(folder)
    }
