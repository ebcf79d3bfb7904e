"""The Apptainer sandbox: a job inside an image, for clusters where bubblewrap may not run.

/work is a folder of the host, since Apptainer has no way to fill one in memory: a file's size is
limited, the sum of them only by the disk. Whether Apptainer on this machine isolates as it promises
depends on how it was installed, and is measured as for every other sandbox.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mira_megatron.eval.sandbox.contract import Job, Outcome, SandboxError
from mira_megatron.eval.sandbox.launch import Command, run_command
from mira_megatron.eval.sandbox.started import (
    SEARCH_PATH,
    first_process,
    job_environment,
    outcome_of,
)
from mira_megatron.eval.sandbox.work_folder import work_folder

_SETUP_FAILED = 255
# Apptainer's own first process and the shell that waits for the program.
_NUM_OWN_PROCESSES = 2


class ApptainerSandbox:
    """Runs jobs with the machine's apptainer inside one image."""

    def __init__(self, image: Path, level: int = 4) -> None:
        self.image = image
        self.level = level

    def run(self, job: Job) -> Outcome:
        """Returns what the job did; raises SandboxError where Apptainer could not set it up."""
        with work_folder(job.files) as folder:

            def render(results: int, status: int) -> Command:
                return Command(
                    argv=apptainer_argv(job, self.image, folder, results),
                    environment={"PATH": os.environ.get("PATH", SEARCH_PATH), "HOME": str(folder)},
                )

            try:
                ended = run_command(job, render)
            except OSError as error:
                raise SandboxError(f"apptainer could not be started: {error}") from error
        if ended.return_code == _SETUP_FAILED and b"FATAL:" in ended.stderr.kept:
            said = bytes(ended.stderr.kept[-2000:]).decode(errors="replace").strip()
            raise SandboxError(f"apptainer did not start {job.argv[0]} in {self.image}: {said}")
        return outcome_of(ended, self.level)


def apptainer_argv(job: Job, image: Path, folder: Path, results: int) -> list[str]:
    """Returns the command that runs the job in the image, with `folder` as its /work."""
    environment = job_environment(job, results)
    return [
        *("apptainer", "--quiet", "exec", "--userns", "--containall", "--cleanenv", "--no-privs"),
        *("--net", "--network", "none", "--no-home", "--pwd", "/work"),
        *("--bind", f"{folder}:/work:rw"),
        *(word for path in job.read_only for word in ("--bind", f"{path}:{path}:ro")),
        *(word for pair in environment.items() for word in ("--env", "=".join(pair))),
        str(image),
        *first_process(job, num_other_processes=_NUM_OWN_PROCESSES),
    ]


def missing_apptainer(image: Path | None) -> str | None:
    """Returns why Apptainer cannot be used here; None where it and the image are there."""
    if shutil.which("apptainer") is None:
        return "apptainer is not installed"
    if image is None:
        return "no image was named for it"
    return None if image.exists() else f"{image} does not exist"
