"""A graph of jobs for people: a table, what its hours rest on, and what became of each job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from mira_megatron.launchers.cluster import Cluster, seconds_of
from mira_megatron.launchers.job_graph import PlannedJob
from mira_megatron.launchers.submit import Submitted
from mira_megatron.planning.operations import GpuHours
from mira_megatron.written_numbers import MISSING, decimal, short
from mira_megatron.written_tables import terminal_table

_SECONDS_PER_HOUR = 3600


def print_graph(
    console: Console, jobs: Sequence[PlannedJob], hours: Mapping[str, GpuHours], cluster: Cluster
) -> None:
    """Prints the jobs, what they hold and wait for, and what their hours rest on."""
    if not jobs:
        console.print("Every stage of this recipe is done: nothing to submit.")
        return
    table = terminal_table(f"Jobs on {cluster.name}")
    table.add_column("Job", no_wrap=True)
    for heading in ("Array", "Nodes", "GPUs", "Limit", "GPU-hours"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("After", overflow="fold")
    for job in jobs:
        needs = job.needs
        table.add_row(
            Text(job.name),
            str(job.elements) if job.elements else "",
            str(needs.nodes),
            str(needs.gpus) if needs.gpus else "",
            needs.time,
            _hours(hours.get(job.name)),
            Text(_after(job)),
        )
    console.print(table)
    console.print("GPUs: of one node. Array: so many elements, each with what is shown.")
    alike: dict[tuple[str, bool], list[str]] = {}  # arms and seeds are trained beside each other
    for job in jobs:
        if (told := hours.get(job.name)) is not None:
            is_known = told.value is not None
            alike.setdefault((_rests_on(job, told), is_known), []).append(job.name)
    for (rests_on, is_known), names in alike.items():
        each = " each" if is_known and len(names) > 1 else ""
        console.print(Text(f"{', '.join(names)}:{each} {rests_on}"), soft_wrap=True)
    if hours:
        console.print(Text(_total(hours)), soft_wrap=True)


def print_submitted(console: Console, submitted: Submitted) -> None:
    """Prints SLURM's number of every job that was sent or was in the queue."""
    for name, job_id in submitted.kept.items():
        console.print(Text(f"{name}: in the queue as job {job_id}, kept"), soft_wrap=True)
    for name, job_id in submitted.sent.items():
        console.print(Text(f"{name}: submitted as job {job_id}"), soft_wrap=True)


def _hours(hours: GpuHours | None) -> str:
    if hours is None:
        return ""
    return MISSING if hours.value is None else _written(hours.value)


def _written(hours: float) -> str:
    return decimal(hours, 1) if hours < 100 else short(hours)


def _after(job: PlannedJob) -> str:
    return ", ".join([*job.after_ok, *(f"{name} (any end)" for name in job.after_any)])


def _rests_on(job: PlannedJob, hours: GpuHours) -> str:
    if hours.value is None:
        return f"{hours.basis}."
    wall = hours.value / job.num_gpus
    told = f"{_written(wall)} hours on {job.num_gpus} GPUs. {hours.basis}."
    limit = seconds_of(job.needs.time, "time") / _SECONDS_PER_HOUR
    if wall > limit:
        told += f" Longer than its limit of {job.needs.time}: it is put back in the queue."
    return told


def _total(hours: Mapping[str, GpuHours]) -> str:
    known = [each.value for each in hours.values() if each.value is not None]
    unknown = len(hours) - len(known)
    tail = f", without {unknown} of {len(hours)} jobs that hold GPUs" if unknown else ""
    return f"GPU-hours in all: {_written(sum(known))}{tail}."
