"""Limits on resources and nothing else: no protection from a program that means harm.

For programs that a person has read, where neither bubblewrap nor Apptainer can be used. The job
starts in a folder of the host, which is not called /work: name files relative to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from mira_megatron.eval.sandbox.contract import Job, Outcome, SandboxError
from mira_megatron.eval.sandbox.launch import Command, launching_user, run_command
from mira_megatron.eval.sandbox.started import first_process, job_environment, outcome_of
from mira_megatron.eval.sandbox.work_folder import work_folder


class LimitsOnlySandbox:
    """Runs jobs as ordinary processes, held to their limits."""

    def __init__(self, level: int = 1) -> None:
        self.level = level

    def run(self, job: Job) -> Outcome:
        """Returns what the job did; raises SandboxError where it could not be started."""
        with work_folder(job.files) as folder:

            def render(results: int, status: int) -> Command:
                place = {"HOME": str(folder), "TMPDIR": str(folder)}
                return Command(
                    # The kernel counts all processes of the user together.
                    argv=first_process(job, num_other_processes=1 + _num_tasks_of_user()),
                    environment=job_environment(job, results) | place,
                    cwd=str(folder),
                )

            try:
                return outcome_of(run_command(job, render), self.level)
            except OSError as error:
                raise SandboxError(f"{job.argv[0]} could not be started: {error}") from error


def _num_tasks_of_user() -> int:
    """Returns how many processes and threads run as the user that jobs are started as."""
    user = launching_user()
    wanted = os.geteuid() if user is None else user
    num_tasks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == wanted:
                num_tasks += len(os.listdir(folder / "task"))
        except FileNotFoundError:
            continue  # it has ended
    return num_tasks
