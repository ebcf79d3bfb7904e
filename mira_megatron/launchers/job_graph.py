"""A recipe on a cluster as jobs that wait for each other. Nothing is submitted here.

One job per stage, per arm where arms are trained. Who waits for whom is what the units of the
recipe read, so there is no second table of it. A shared stage is two jobs: an array whose elements
claim parts, and then, however those ended, one job that does what they left, usually nothing. Only
the second is waited for, so that a failed element does not lose what the others did.

Stages that are done are left out. Which source groups there are need not be known yet: units that
stand in for them wait for the same stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import NotYetKnown
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.launchers.job_file import JobFile, recipe_digest
from mira_megatron.launchers.stage_needs import StageNeeds, stage_needs
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import STAGES, recipe_units, stage_units
from mira_megatron.stage import Run, Unit, unit_state

# Arms are trained beside each other, each by a job of its own.
_JOB_PER_UNIT = ("midtrain", "held-out", "instruct-sft", "eval")
# What is said of all arms is said of those that are whole where one failed.
WHATEVER_BECAME = ("ablation",)
REST = "-rest"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedJob:
    """One job, or an array of them, before it is written down."""

    name: str
    stage: str
    only: str | None  # the unit that it is, where a stage has a job for each
    num_units: int  # that are not done
    needs: StageNeeds
    elements: int  # of the array; 0: it is none
    is_rest: bool  # it does what the array before it left
    after_ok: tuple[str, ...]  # names of jobs that must have ended well
    after_any: tuple[str, ...]  # names of jobs that must have ended

    @property
    def num_gpus(self) -> int:
        """Returns the GPUs it holds while all of it runs."""
        return self.needs.nodes * self.needs.gpus * max(1, self.elements)


def job_graph(recipe: Recipe, cluster: Cluster) -> list[PlannedJob]:
    """Returns the jobs that are left to do, in the order in which they may be submitted.

    Raises ValueError for settings that are wrong, for a unit that holds another configuration's
    results, and where recipe and cluster do not fit together.
    """
    units = recipe_units(recipe)
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    left: dict[str, list[Unit]] = {}
    for unit in units:
        state = unit_state(unit, run)
        if state == "different":
            raise ValueError(
                f"{recipe.run_folder / unit.folder}: {unit.label} was made with other settings. "
                f"`mira status {recipe.path}` shows it; use another run folder or name"
            )
        if state != "done":
            left.setdefault(_job_name(unit), []).append(unit)
    unfounded = _stages_without_groups(recipe)
    job_of = {unit.folder: name for name, of_job in left.items() for unit in of_job}
    jobs: list[PlannedJob] = []
    for name, of_job in left.items():
        before = _before(of_job, name, job_of)
        if of_job[0].stage in unfounded:
            before |= {each for each in left if left[each][0].stage == "group"}
        jobs += _jobs(recipe, cluster, name, of_job, tuple(each for each in left if each in before))
    return [_whatever_became(job) for job in _without_implied(_after_the_rest(jobs))]


def job_file(
    job: PlannedJob, recipe: Recipe, overrides: Sequence[str], cluster: Cluster
) -> JobFile:
    """Returns what `mira job` is to be told of a job."""
    return JobFile(
        name=job.name,
        stage=job.stage,
        only=job.only,
        kind=job.needs.kind,
        recipe=recipe.path,
        overrides=tuple(overrides),
        recipe_digest=recipe_digest(recipe),
        run_folder=recipe.run_folder,
        # The rest is done alone: claims of those that were killed need not be waited for.
        shared=bool(job.elements),
        workers=job.needs.cpus,
        nproc_per_node=max(1, job.needs.gpus),
        max_failures=cluster.max_failures,
        server=job.needs.server,
    )


def job_name(stage: str, only: str | None) -> str:
    """Returns a name that no other job has: capitals become a dot and the small letter.

    A dot, which stands before a seed, becomes two.
    """
    if only is None:
        return stage
    name = re.sub(r"[A-Z.]", lambda found: f".{found[0].lower()}", only)
    return f"{stage}-{name}"


def _job_name(unit: Unit) -> str:
    return job_name(unit.stage, unit.name if unit.stage in _JOB_PER_UNIT else None)


def _before(units: Sequence[Unit], name: str, job_of: Mapping[str, str]) -> set[str]:
    """Returns the jobs that make what these units read."""
    folders = {folder for unit in units for folder in (*unit.upstream, *unit.waits_for)}
    return {job_of[folder] for folder in folders if folder in job_of} - {name}


def _stages_without_groups(recipe: Recipe) -> set[str]:
    """Returns the stages whose units cannot be told before the source groups are found."""
    waiting = set()
    for stage in STAGES:
        try:
            stage_units(recipe, stage)
        except NotYetKnown:
            waiting.add(stage)
    return waiting


def _jobs(
    recipe: Recipe, cluster: Cluster, name: str, units: Sequence[Unit], before: tuple[str, ...]
) -> list[PlannedJob]:
    """Returns a stage's job; of a shared stage the array, unless one part is left, and the rest."""
    stage = units[0].stage
    only = units[0].name if stage in _JOB_PER_UNIT else None
    needs = stage_needs(recipe, cluster, stage, only)
    job = PlannedJob(
        name=name,
        stage=stage,
        only=only,
        num_units=len(units),
        needs=needs,
        elements=0,
        is_rest=False,
        after_ok=before,
        after_any=(),
    )
    if needs.kind != "stage" or not any(unit.can_be_shared for unit in units):
        return [job]
    cap = cluster.resources(stage).elements or cluster.array_cap
    missing = _num_missing_parts(recipe.run_folder, units)
    rest = replace(job, name=f"{name}{REST}", is_rest=True)
    if missing is not None and missing <= 1:
        return [rest]
    elements = cap if missing is None else min(cap, missing)
    return [replace(job, elements=elements), replace(rest, after_any=(name,))]


def _num_missing_parts(run_folder: Path, units: Sequence[Unit]) -> int | None:
    """Returns how many parts are not there yet, at most; None while records are not."""
    missing = 0
    for unit in units:
        if not unit.can_be_shared:
            continue
        records = read_manifest(run_folder / _records_of(unit))
        if records is None:
            return None
        names = [part.path for part in records.parts if part.path.endswith(".parquet")]
        missing += sum(not (run_folder / unit.folder / name).is_file() for name in names)
    return missing


def _records_of(unit: Unit) -> str:
    """Returns the folder of the records whose parts a shared unit's are."""
    return next(each for each in unit.upstream if each.startswith(layout.records("")))


def _after_the_rest(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Returns the jobs with every array that is waited for replaced by what does its rest."""
    final = {job.name.removesuffix(REST): job.name for job in jobs if job.is_rest}
    return [
        replace(job, after_ok=tuple(final.get(each, each) for each in job.after_ok)) for job in jobs
    ]


def _whatever_became(job: PlannedJob) -> PlannedJob:
    """Returns a job that waits for the end of others, good or bad, where its stage is such."""
    if job.stage not in WHATEVER_BECAME:
        return job
    return replace(job, after_ok=(), after_any=(*job.after_ok, *job.after_any))


def _without_implied(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Returns the jobs without waits that follow from others; those for any end imply nothing."""
    direct = {job.name: set(job.after_ok) for job in jobs}
    ancestors: dict[str, set[str]] = {}
    for job in jobs:  # in running order: those before are there
        ancestors[job.name] = direct[job.name].union(*(ancestors[each] for each in job.after_ok))
    return [
        replace(
            job,
            after_ok=tuple(
                each
                for each in job.after_ok
                if not any(each in ancestors[other] for other in job.after_ok)
            ),
        )
        for job in jobs
    ]
