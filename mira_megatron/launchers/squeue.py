"""Which jobs wait or run, as squeue tells it; no accounting is needed, and no SLURM either."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from mira_megatron.launchers.slurm_commands import slurm_environment

_SECONDS = 20.0
# Widths, not separators: squeue cuts and pads columns, and a reason may hold any character.
_COLUMNS = {
    "ArrayJobID": 20,
    "State": 20,
    "RestartCnt": 12,
    "StartTime": 24,
    "NodeList": 200,
    "Reason": 120,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedJob:
    """A job, or an element of an array, that waits or runs."""

    job_id: str  # of an element, the whole array's
    state: str  # RUNNING, PENDING, COMPLETING, ...
    restarts: int  # how often it was put back into the queue
    since: str  # when it started, or is expected to; "" where that is not known
    nodes: str
    reason: str  # why it waits

    @property
    def is_waiting(self) -> bool:
        """Returns whether it has not started."""
        return self.state == "PENDING"


class QueueUnknown(Exception):
    """The queue cannot be looked at; says why."""


def queued_jobs(job_ids: Sequence[str], *, command: str = "squeue") -> list[QueuedJob]:
    """Returns those of these jobs that wait or run, an array's elements one by one.

    Raises QueueUnknown where squeue is not there, fails, or does not answer.
    """
    if not job_ids:
        return []
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    words = [command, "--noheader", "--array", f"--jobs={','.join(job_ids)}", f"--Format={columns}"]
    try:
        result = subprocess.run(
            words,
            env=slurm_environment(os.environ),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise QueueUnknown("there is no squeue here") from error
    except subprocess.TimeoutExpired as error:
        raise QueueUnknown(f"squeue did not answer within {_SECONDS:.0f} s") from error
    if result.returncode and "Invalid job id" in result.stderr:
        return []  # of one job that SLURM has forgotten; of several it leaves such out
    if result.returncode:
        said = " ".join((result.stderr or result.stdout).split())
        raise QueueUnknown(f"squeue ended with {result.returncode}: {said}")
    return [_job(line) for line in result.stdout.splitlines() if line.strip()]


def _job(line: str) -> QueuedJob:
    values, start = {}, 0
    for name, width in _COLUMNS.items():
        values[name] = line[start : start + width].strip()
        start += width
    restarts = values["RestartCnt"]
    return QueuedJob(
        job_id=values["ArrayJobID"],
        state=values["State"],
        restarts=int(restarts) if restarts.isdecimal() else 0,
        since="" if values["StartTime"] == "N/A" else values["StartTime"],
        nodes=values["NodeList"],
        reason="" if values["Reason"] == "None" else values["Reason"],
    )
