"""The jobs of a run on the terminal, where it has been sent to a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mira_megatron.launchers.job_file import JOBS
from mira_megatron.launchers.job_states import JobState, job_states
from mira_megatron.stage import Unit
from mira_megatron.written_tables import terminal_table

_STYLES = {"done": "green", "running": "cyan", "failed": "red", "unknown": "yellow"}


def print_jobs(console: Console, run_folder: Path, states: Sequence[tuple[Unit, str]]) -> None:
    """Prints the jobs of a run, and what failed ones wrote last; nothing where it has no jobs."""
    if not (run_folder / JOBS).is_dir():
        return
    jobs, problem = job_states(run_folder, states)
    if not jobs:
        return
    table = terminal_table("Jobs")
    for heading in ("Job", "SLURM", "State", "Where, or why"):
        table.add_column(heading, overflow="fold")
    for job in jobs:
        state = Text(job.state, _STYLES.get(job.state, ""))
        table.add_row(Text(job.name), Text(job.job_id), state, Text(job.detail))
    console.print(table)
    if problem:
        console.print(Text(f"Which jobs wait or run is not known: {problem}"), soft_wrap=True)
    for job in jobs:
        _print_lines(console, job)


def _print_lines(console: Console, job: JobState) -> None:
    if job.state != "failed" or not job.lines:
        return
    log, *lines = job.lines
    console.print(Text(f"{job.name}, last of {log}"), soft_wrap=True)
    for line in lines:
        console.print(Text(f"    {line}"), soft_wrap=True)
