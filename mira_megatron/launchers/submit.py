"""Send a recipe's jobs to SLURM: the only module that calls sbatch.

Writes, for each job, under the run folder's `jobs/<name>/`: job.json and script.sh before it is
submitted, submitted.json (the numbers that SLURM gave it, in order) right after. A job that is
still in the queue is not sent twice; what is done is left out; so the same command again sends what
is missing. Needs no accounting: `squeue` and the run folder say it all.
"""

from __future__ import annotations

import logging
import os
import pwd
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.config import Recipe
from mira_megatron.file_lock import held_lock
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.launchers.job_file import JOBS, SCRIPT, SUBMITTED, JobFile
from mira_megatron.launchers.job_graph import REST, PlannedJob, job_file
from mira_megatron.launchers.sbatch import by_hand, sbatch_script, sbatch_words

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_LOCK = ".lock"
_USUAL_MODE = 0o755


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One time that a job was sent."""

    job_id: str  # as SLURM has it; of an array, the whole array's
    time: str  # ISO 8601, UTC
    cluster: str
    elements: int  # of the array, 0: it is none
    dependency: str  # as sbatch was told, "" for none


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """What became of the jobs of a graph: SLURM's numbers by name, in order."""

    sent: Mapping[str, str]
    kept: Mapping[str, str]  # in the queue from before


def submit(
    jobs: Sequence[PlannedJob],
    recipe: Recipe,
    overrides: Sequence[str],
    cluster: Cluster,
    environment: Mapping[str, str],
) -> Submitted:
    """Sends what is not in the queue yet, in order; returns what was sent and what was kept.

    `environment` is that of SLURM's commands. Raises ValueError where jobs in the queue are of the
    recipe as it was before, and where sbatch fails: then what was sent goes on, and is named.
    """
    folder = recipe.run_folder / JOBS
    folder.mkdir(parents=True, exist_ok=True)
    in_use = f"{folder}: another `mira submit` is at work here; wait for it to end"
    with held_lock(folder / _LOCK, in_use):
        files = {job.name: job_file(job, recipe, overrides, cluster) for job in jobs}
        queued = _queued(recipe.run_folder, environment)
        kept = _kept(jobs, files, queued)
        # Everything is rendered before anything is sent: a word that is refused stops it all.
        scripts = _scripts(jobs, files, cluster)
        sent: dict[str, str] = {}
        for job in jobs:
            if job.name not in kept and not _is_left_to_its_rest(job, kept):
                path = _write(files[job.name], scripts[job.name])
                words = sbatch_words(path, job, {**kept, **sent})
                sent[job.name] = _sbatch(words, path, sent, environment)
                _note(files[job.name].folder, job, words, sent[job.name], cluster)
    return Submitted(sent=sent, kept=kept)


def write_scripts(
    jobs: Sequence[PlannedJob], recipe: Recipe, overrides: Sequence[str], cluster: Cluster
) -> str:
    """Writes job.json and script.sh of every job; returns the shell's words to send them by hand.

    Raises ValueError where one of the jobs is in preparation by another process.
    """
    files = {job.name: job_file(job, recipe, overrides, cluster) for job in jobs}
    scripts = _scripts(jobs, files, cluster)
    for job in jobs:
        _write(files[job.name], scripts[job.name])
    return by_hand(list(jobs), {name: file.folder for name, file in files.items()})


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


def _scripts(
    jobs: Sequence[PlannedJob], files: Mapping[str, JobFile], cluster: Cluster
) -> dict[str, str]:
    here = Path.cwd()
    return {job.name: sbatch_script(job, files[job.name], cluster, here) for job in jobs}


def _write(file: JobFile, script: str) -> Path:
    file.write()
    path = file.folder / SCRIPT
    write_bytes(path, script.encode())
    path.chmod(_USUAL_MODE)
    return path


def _queued(run_folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the jobs of this run that wait or run, by name."""
    user = pwd.getpwuid(os.getuid()).pw_name
    words = ["squeue", "--noheader", f"--user={user}", "--format=%F"]
    in_queue = set(_told(words, environment).split())
    folders = [path.parent for path in (run_folder / JOBS).glob(f"*/{SUBMITTED}")]
    last = {path.name: read_submissions(path)[-1].job_id for path in folders}
    return {name: job_id for name, job_id in last.items() if job_id in in_queue}


def _kept(
    jobs: Sequence[PlannedJob], files: Mapping[str, JobFile], queued: Mapping[str, str]
) -> dict[str, str]:
    """Returns the jobs that are in the queue; ValueError for those of another recipe's content."""
    kept = {job.name: queued[job.name] for job in jobs if job.name in queued}
    outdated = {
        name: job_id
        for name, job_id in kept.items()
        if JobFile.read(files[name].path).recipe_digest != files[name].recipe_digest
    }
    if outdated:
        raise ValueError(
            f"{', '.join(outdated)}: in the queue for this recipe as it was before. They would "
            f"refuse to run. End them with `scancel {' '.join(outdated.values())}`, or undo the "
            "change"
        )
    return kept


def _is_left_to_its_rest(job: PlannedJob, kept: Mapping[str, str]) -> bool:
    """Whether an array has ended, and the job that does what it left is in the queue."""
    return bool(job.elements) and f"{job.name}{REST}" in kept


def _sbatch(
    words: Sequence[str], script: Path, sent: Mapping[str, str], environment: Mapping[str, str]
) -> str:
    """Returns SLURM's number of a job that was sent."""
    try:
        told = _told(words, environment).strip()
    except ValueError as error:
        raise ValueError(f"{script}: not submitted: {error}. {_so_far(sent)}") from error
    # --parsable: the number, and behind a semicolon the cluster's name where there are several.
    job_id = told.partition(";")[0]
    if not job_id.isdecimal():
        raise ValueError(f"{script}: sbatch answered {told!r} and no job's number. {_so_far(sent)}")
    return job_id


def _so_far(sent: Mapping[str, str]) -> str:
    if not sent:
        return "Nothing was submitted."
    jobs = ", ".join(f"{name} {job_id}" for name, job_id in sent.items())
    return (
        f"Submitted before, and not cancelled: {jobs}. Run the same command again once this is "
        f"put right, or end them with `scancel {' '.join(sent.values())}`"
    )


def _told(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Returns what a command of SLURM's wrote; ValueError with what it said when it failed."""
    try:
        result = subprocess.run(
            words, env=dict(environment), capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ValueError(
            f"{words[0]}: no such command. Submit where SLURM is installed, or look at the jobs "
            "with --dry-run"
        ) from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip()
        raise ValueError(f"`{shlex.join(words)}` ended with {result.returncode}: {said}")
    return result.stdout


def _note(
    folder: Path, job: PlannedJob, words: Sequence[str], job_id: str, cluster: Cluster
) -> None:
    """Writes down that a job was sent."""
    dependency = [word.partition("=")[2] for word in words if word.startswith("--dependency=")]
    submission = Submission(
        job_id=job_id,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        cluster=cluster.name,
        elements=job.elements,
        dependency=",".join(dependency),
    )
    submissions = [asdict(each) for each in (*read_submissions(folder), submission)]
    content = {"schema_version": _SCHEMA_VERSION, "submissions": submissions}
    write_json(folder / SUBMITTED, content)
    logger.info("%s: submitted as job %s", job.name, job_id)
