"""When a job was sent: submitted.json in its folder, and squeue for what was sent by hand.

SLURM tells the script of a job in the queue, so that one that `sbatch` was given by hand is known
by its script's path, whether somebody wrote its number down or not.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from mira_megatron.atomic_files import write_json
from mira_megatron.file_lock import waited_lock
from mira_megatron.launchers.job_file import JOBS, SCRIPT, SUBMITTED
from mira_megatron.launchers.slurm_commands import told_by

_SCHEMA_VERSION = 1
_LOCK = ".submitted.lock"
# The script's path comes last: it may hold blanks.
_COLUMNS = "%F|%T|%E|%o"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One time that a job was sent."""

    job_id: str  # as SLURM has it; of an array, the whole array's
    time: str  # ISO 8601, UTC
    cluster: str
    elements: int  # of the array, 0: it is none
    dependency: str  # as sbatch was told, "" for none


@dataclass(frozen=True, kw_only=True, slots=True)
class InQueue:
    """A job of a run that waits or runs."""

    job_id: str
    is_waiting: bool  # all of it: of an array no element has started
    dependency: str  # as sbatch was told; of one sent by hand what squeue knows of it


def read_submissions(folder: Path) -> list[Submission]:
    """Returns when a job was sent, in order; none where it never was.

    Raises ValueError for a file that is not ours.
    """
    path = folder / SUBMITTED
    if not path.is_file():
        return []
    try:
        content = orjson.loads(path.read_bytes())
        if content["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"schema_version={content['schema_version']!r}")
        return [Submission(**entry) for entry in content["submissions"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not as `mira submit` writes it ({error}). Look at `squeue` for jobs that "
            "run, then move the file away"
        ) from error


def note_submission(folder: Path, submission: Submission) -> None:
    """Writes down that a job was sent, unless that is known."""
    # The job's own processes write it, too, where it was sent by hand, and may be quicker.
    with waited_lock(folder / _LOCK):
        before = read_submissions(folder)
        if all(each.job_id != submission.job_id for each in before):
            submissions = [asdict(each) for each in (*before, submission)]
            content = {"schema_version": _SCHEMA_VERSION, "submissions": submissions}
            write_json(folder / SUBMITTED, content)


def note_started(folder: Path, environment: Mapping[str, str]) -> None:
    """Writes down the job that this process is of, as SLURM's variables tell; nothing without."""
    job_id = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID", "")
    elements = environment.get("SLURM_ARRAY_TASK_COUNT", "0")
    if job_id.isdecimal() and folder.is_dir():
        note_submission(
            folder,
            Submission(
                job_id=job_id,
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                cluster=environment.get("SLURM_CLUSTER_NAME", ""),
                elements=int(elements) if elements.isdecimal() else 0,
                dependency=environment.get("SLURM_JOB_DEPENDENCY", ""),
            ),
        )


def jobs_in_queue(run_folder: Path, environment: Mapping[str, str]) -> dict[str, InQueue]:
    """Returns the jobs of a run that wait or run, by name; of one that was sent twice, the later.

    Raises ValueError where squeue fails.
    """
    user = pwd.getpwuid(os.getuid()).pw_name
    words = ["squeue", "--noheader", f"--user={user}", f"--format={_COLUMNS}"]
    lines = [line.split("|", 3) for line in told_by(words, environment).splitlines()]
    rows = [line for line in lines if len(line) == 4 and line[0].isdecimal()]
    found: dict[str, InQueue] = {}
    for folder in sorted((run_folder / JOBS).glob("*/")):
        sent = {each.job_id: each.dependency for each in read_submissions(folder)}
        script = (folder / SCRIPT).resolve()
        own = [row for row in rows if row[0] in sent or Path(row[3]).resolve() == script]
        if own:
            found[folder.name] = _last(own, sent)
    return found


def sent_by_hand(run_folder: Path) -> dict[str, str]:
    """Returns the numbers of jobs in the queue that submitted.json does not know, by name.

    None where there is no squeue, or it does not answer.
    """
    try:
        queued = jobs_in_queue(run_folder, os.environ)
    except ValueError:
        return {}
    return {
        name: each.job_id
        for name, each in queued.items()
        if each.job_id not in {sent.job_id for sent in read_submissions(run_folder / JOBS / name)}
    }


def _last(rows: Sequence[list[str]], sent: Mapping[str, str]) -> InQueue:
    job_id = max((row[0] for row in rows), key=int)
    last = [row for row in rows if row[0] == job_id]
    return InQueue(
        job_id=job_id,
        is_waiting=all(row[1] == "PENDING" for row in last),
        dependency=sent.get(job_id, last[0][2]),
    )
