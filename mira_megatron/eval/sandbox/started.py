"""What every sandbox starts a job with, and how it reads its end."""

from __future__ import annotations

from mira_megatron.eval.sandbox.contract import RESULTS_VARIABLE, Job, Outcome
from mira_megatron.eval.sandbox.launch import Ended

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
_ENVIRONMENT = {
    "PATH": SEARCH_PATH,
    "HOME": "/work",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}
# The first process waits for the program and hands its exit code on: the kernel tells what a job
# used only of processes that were waited for. What a shell itself says of a killed program is no
# output of that program.
_WAIT = 'exec 9>&2 2>/dev/null; (exec "$@" 2>&9 9>&-); exit $?'
_KILLED_BASE = 128
_NUM_SIGNALS = 64
_SIGKILL = 9


def job_environment(job: Job, results: int) -> dict[str, str]:
    """Returns the only environment that the job sees."""
    return {**_ENVIRONMENT, **job.environment, RESULTS_VARIABLE: str(results)}


def first_process(job: Job, num_other_processes: int) -> list[str]:
    """Returns the command that runs the job's within its limits.

    The limit of processes leaves room for others that the kernel counts with the job's.
    """
    limits = job.limits
    return [
        *("/bin/sh", "-c", _WAIT, "sh", "prlimit"),
        f"--as={limits.memory_bytes}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.num_open_files}",
        f"--nproc={limits.num_processes + num_other_processes}",
        f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}",
        *("--core=0", "--", *job.argv),
    ]


def outcome_of(ended: Ended, level: int) -> Outcome:
    """Returns the outcome of a command whose program's signals come as 128 + N."""
    is_killed = ended.is_timed_out or ended.is_out_of_memory
    code = ended.return_code
    above = -code if code < 0 else code - _KILLED_BASE
    signal = _SIGKILL if is_killed else above if 0 < above <= _NUM_SIGNALS else None
    return Outcome(
        exit_code=code if signal is None else None,
        signal=signal,
        is_timed_out=ended.is_timed_out,
        is_out_of_memory=ended.is_out_of_memory,
        cpu_seconds=ended.cpu_seconds,
        wall_seconds=ended.wall_seconds,
        peak_bytes=None if is_killed else ended.peak_bytes,
        stdout=bytes(ended.stdout.kept),
        stderr=bytes(ended.stderr.kept),
        num_output_bytes=ended.stdout.num_bytes + ended.stderr.num_bytes,
        results=bytes(ended.results.kept),
        num_result_bytes=ended.results.num_bytes,
        isolation=level,
    )
