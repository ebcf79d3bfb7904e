"""Send a recipe's jobs to SLURM: the only module that calls sbatch.

Writes, for each job, under the run folder's `jobs/<name>/`: job.json and script.sh before it is
submitted, submitted.json (the numbers that SLURM gave it, in order) right after. A job that is
still in the queue is not sent twice; what is done is left out; so the same command again sends what
is missing. Needs no accounting: `squeue` and the run folder say it all.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mira_megatron.atomic_files import write_bytes
from mira_megatron.config import Recipe
from mira_megatron.file_lock import held_lock
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.launchers.job_file import JOB_FILE, JOBS, SCRIPT, JobFile
from mira_megatron.launchers.job_graph import REST, PlannedJob, job_file
from mira_megatron.launchers.kept_jobs import Queue, queue_of
from mira_megatron.launchers.sbatch import by_hand, sbatch_script, sbatch_words
from mira_megatron.launchers.slurm_commands import told_by
from mira_megatron.launchers.submissions import Submission, jobs_in_queue, note_submission

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_USUAL_MODE = 0o755


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

    A job that waits for one that is gone is cancelled and sent anew. `environment` is that of
    SLURM's commands. Raises ValueError where jobs in the queue are of the recipe as it was before,
    and where sbatch fails: then what was sent goes on, and is named.
    """
    with _prepared(jobs, recipe, overrides, cluster, environment) as ready:
        if ready.queue.dead:
            told_by(["scancel", "--quiet", *ready.queue.dead.values()], environment)
        for name, job_id in ready.queue.dead.items():
            logger.warning("%s: job %s waits for what is gone: cancelled, sent anew", name, job_id)
        sent: dict[str, str] = {}
        for job in ready.left:
            path = _write(ready.files[job.name], ready.scripts[job.name])
            words = sbatch_words(path, job, {**ready.known, **sent})
            sent[job.name] = _sbatch(words, path, sent, environment)
            _note(ready.files[job.name].folder, job, words, sent[job.name], cluster)
    return Submitted(sent=sent, kept=ready.queue.kept)


def write_scripts(
    jobs: Sequence[PlannedJob],
    recipe: Recipe,
    overrides: Sequence[str],
    cluster: Cluster,
    environment: Mapping[str, str],
) -> str:
    """Writes job.json and script.sh of every job; returns the shell's words to send them by hand.

    Where there is a squeue, jobs in the queue are left alone as by submit(). Raises ValueError as
    submit() does before it sends anything.
    """
    is_here = shutil.which("squeue", path=environment.get("PATH")) is not None
    # Of a run without jobs none can be in the queue.
    are_some = any((recipe.run_folder / JOBS).glob(f"*/{JOB_FILE}"))
    asked = environment if is_here and are_some else None
    with _prepared(jobs, recipe, overrides, cluster, asked) as ready:
        for job in ready.left:
            _write(ready.files[job.name], ready.scripts[job.name])
        folders = {name: file.folder for name, file in ready.files.items()}
        lines = by_hand(ready.left, folders, ready.known)
    dead = ready.queue.dead.values()
    return "\n".join([f"scancel --quiet {' '.join(dead)}", lines] if dead else [lines])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """Everything that is rendered before anything is sent: a word that is refused stops it all."""

    queue: Queue
    left: Sequence[PlannedJob]  # to be sent
    files: Mapping[str, JobFile]
    scripts: Mapping[str, str]

    @property
    def known(self) -> dict[str, str]:
        """Returns the numbers of jobs in the queue that others may wait for."""
        return {**self.queue.arrays, **self.queue.kept}


@contextmanager
def _prepared(
    jobs: Sequence[PlannedJob],
    recipe: Recipe,
    overrides: Sequence[str],
    cluster: Cluster,
    environment: Mapping[str, str] | None,
) -> Iterator[_Prepared]:
    """Yields what is to be sent, with the run's jobs to ourselves; None: there is no queue."""
    folder = recipe.run_folder / JOBS
    folder.mkdir(parents=True, exist_ok=True)
    in_use = f"{folder}: another `mira submit` is at work here; wait for it to end"
    with held_lock(folder / _LOCK, in_use):
        files = {job.name: job_file(job, recipe, overrides, cluster) for job in jobs}
        queued = {} if environment is None else jobs_in_queue(recipe.run_folder, environment)
        queue = queue_of(jobs, files, queued, recipe.run_folder)
        scripts = _scripts(jobs, files, cluster)
        left = [
            _after_its_array(job, queue)
            for job in jobs
            if job.name not in queue.kept and not _is_left_to_its_rest(job, queue.kept)
        ]
        yield _Prepared(queue=queue, left=left, files=files, scripts=scripts)


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


def _after_its_array(job: PlannedJob, queue: Queue) -> PlannedJob:
    """Returns a job that waits for its array where that is at work on the last part."""
    array = job.name.removesuffix(REST)
    return replace(job, after_any=(array,)) if job.is_rest and array in queue.arrays else job


def _is_left_to_its_rest(job: PlannedJob, kept: Mapping[str, str]) -> bool:
    """Whether an array has ended, and the job that does what it left is in the queue."""
    return bool(job.elements) and f"{job.name}{REST}" in kept


def _sbatch(
    words: Sequence[str], script: Path, sent: Mapping[str, str], environment: Mapping[str, str]
) -> str:
    """Returns SLURM's number of a job that was sent."""
    try:
        told = told_by(words, environment).strip()
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
    note_submission(folder, submission)
    logger.info("%s: submitted as job %s", job.name, job_id)
