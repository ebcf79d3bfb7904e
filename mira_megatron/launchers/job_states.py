"""What has become of a run's jobs, from the queue and the run folder alone.

done         every unit of the job has its manifest
running      on nodes, or some of an array's elements are
waiting      in the queue
ended        an array that left something to the job after it, which is in the queue
failed       not in the queue and not finished: what the runner wrote down, and the log's last lines
prepared     written, and never sent
unknown      not finished, and the queue cannot be looked at
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.launchers.job_failures import read_failures
from mira_megatron.launchers.job_file import JOB_FILE, JOBS, JobFile
from mira_megatron.launchers.job_graph import REST
from mira_megatron.launchers.last_lines import last_lines, shown
from mira_megatron.launchers.squeue import QueuedJob, QueueUnknown, queued_jobs
from mira_megatron.launchers.submissions import read_submissions, sent_by_hand
from mira_megatron.stage import Unit

_NUM_LINES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """One job of a run."""

    name: str
    job_id: str  # as SLURM has it, of its last submission; "" where it was never sent
    state: str  # see above
    detail: str  # where and since when, or why not
    lines: tuple[str, ...] = ()  # what a failed one wrote last


def job_states(
    run_folder: Path,
    states: Sequence[tuple[Unit, str]],
    queue: Callable[[Sequence[str]], list[QueuedJob]] = queued_jobs,
    by_hand: Callable[[Path], Mapping[str, str]] = sent_by_hand,
) -> tuple[list[JobState], str]:
    """Returns every job of a run in the order of its stages, and why the queue is unknown, or "".

    `states` are those of the recipe's units; `queue` tells which jobs wait or run,
    `by_hand` the numbers of those that wait and that nobody has written down yet.
    """
    jobs, numbers, broken = _jobs(run_folder)
    numbers |= {name: job_id for name, job_id in by_hand(run_folder).items() if name in numbers}
    problem, queued = "", []
    unfinished = {job.name for job in jobs if not _is_done(job, states)}
    asked = sorted({numbers[name] for name in unfinished if numbers[name]})
    try:
        queued = queue(asked)
    except QueueUnknown as error:
        problem = str(error)
    of_job = {name: [row for row in queued if row.job_id == numbers[name]] for name in numbers}
    order = {stage: place for place, stage in enumerate(dict.fromkeys(u.stage for u, _ in states))}
    jobs.sort(key=lambda job: (order.get(job.stage, len(order)), len(job.name), job.name))
    found = []
    for job in jobs:
        number = numbers[job.name]
        if job.name not in unfinished:
            state = JobState(name=job.name, job_id=number, state="done", detail="")
        elif of_job[job.name]:
            state = _in_queue(job, number, of_job[job.name])
        elif not number:
            state = JobState(name=job.name, job_id="", state="prepared", detail="not submitted")
        elif problem:
            state = _failed(job, number, state="unknown")
        elif of_job.get(f"{job.name}{REST}"):
            state = _failed(job, number, state="ended", more=f"{job.name}{REST} does what it left")
        else:
            state = _failed(job, number, state="failed")
        found.append(state)
    return [*found, *broken], problem


def _jobs(run_folder: Path) -> tuple[list[JobFile], dict[str, str], list[JobState]]:
    """Returns a run's jobs, SLURM's number of each, and those whose files cannot be read."""
    jobs, numbers, broken = [], {}, []
    for path in sorted((run_folder / JOBS).glob(f"*/{JOB_FILE}")):
        try:
            job = JobFile.read(path)
            submissions = read_submissions(path.parent)
        except ValueError as error:
            name = path.parent.name
            broken.append(JobState(name=name, job_id="", state="unknown", detail=str(error)))
            continue
        jobs.append(job)
        numbers[job.name] = submissions[-1].job_id if submissions else ""
    return jobs, numbers, broken


def _is_done(job: JobFile, states: Sequence[tuple[Unit, str]]) -> bool:
    own = [
        state for unit, state in states if unit.stage == job.stage and job.only in (None, unit.name)
    ]
    return bool(own) and all(state == "done" for state in own)


def _in_queue(job: JobFile, number: str, rows: Sequence[QueuedJob]) -> JobState:
    running = [row for row in rows if not row.is_waiting]
    waiting = [row for row in rows if row.is_waiting]
    words = []
    if running:
        nodes = ", ".join(sorted({row.nodes for row in running if row.nodes}))
        since = min((row.since for row in running if row.since), default="")
        many = f"{len(running)} " if len(rows) > 1 else ""
        words.append(f"{many}on {nodes or '?'} since {since or '?'}")
    if waiting:
        reasons = Counter(row.reason or "no reason told" for row in waiting)
        many = f"{len(waiting)} waiting: " if len(rows) > 1 else ""
        words.append(many + ", ".join(reasons))
    restarts = sum(row.restarts for row in rows)
    if restarts:
        words.append(f"requeued {_times(restarts)}")
    words += _failure_words(job, number)
    return JobState(
        name=job.name,
        job_id=number,
        state="running" if running else "waiting",
        detail=shown("; ".join(words)),
    )


def _failed(job: JobFile, number: str, *, state: str, more: str = "") -> JobState:
    """Returns a job that is not in the queue, as far as that is known, and not finished."""
    # SLURM knows an element as 7_0 in the name of its log.
    logs = [*job.folder.glob(f"log-{number}.txt"), *job.folder.glob(f"log-{number}_*.txt")]
    newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    words = [more] if more else []
    words += _failure_words(job, number)
    if newest is None and state == "failed":
        words.append("it never started: cancelled, or what it waits for failed")
    elif not words and state == "failed":
        words.append("its runner wrote down no failure: cancelled, killed, out of time or refused")
    lines = () if newest is None else (f"{newest}:", *last_lines(newest, _NUM_LINES))
    return JobState(
        name=job.name, job_id=number, state=state, detail=shown("; ".join(words)), lines=lines
    )


def _failure_words(job: JobFile, number: str) -> list[str]:
    failures = [
        each
        for each in read_failures(job.folder)
        if each.job == number or each.job.startswith(f"{number}_")
    ]
    if not failures:
        return []
    # Of what a server wrote last, too, only the beginning: the log has it.
    reason = failures[-1].reason.partition("\n")[0]
    return [
        f"failed {_times(len({(f.job, f.restart) for f in failures}))}, the last time: {reason}"
    ]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"
