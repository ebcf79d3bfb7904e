"""launchers/slurm/{distil,midtrain,instruct_sft}.sh, sent by hand to a real SLURM."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster, wait_until
from smoke_runs import (
    ARM,
    SMALL,
    SMOKE,
    Undisturbed,
    assert_done,
    before,
    copy_stages,
    differences,
    smoke,
)

from mira_megatron.file_lock import held_lock

pytestmark = pytest.mark.integration

SCRIPTS = Path(__file__).parents[2] / "launchers" / "slurm"
STAGE_OF = {"distil": "distill", "midtrain": "midtrain", "instruct_sft": "instruct-sft"}
# `mira`, as an activated environment has it on PATH.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"


def sent(slurm: SlurmCluster, script: str, run_folder: Path, *more: str, **variables: str) -> str:
    """Returns the number of a job that runs a script on the small smoke run."""
    words = [SMOKE, f"run_folder={run_folder}", *SMALL, *more]
    log = f"--output={slurm.folder}/%j.log"
    return slurm.submit(log, SCRIPTS / f"{script}.sh", *words, PATH=PATH, **variables)


def log(slurm: SlurmCluster, job: str) -> str:
    path = slurm.folder / f"{job}.log"
    return path.read_text() if path.exists() else ""


def assert_ended(slurm: SlurmCluster, job: str, state: str) -> None:
    assert slurm.wait(job) == {job: state}, log(slurm, job)


def others(undisturbed: Path, run_folder: Path) -> list[str]:
    """Returns what is not as in a run that one command made, but for the job's own files."""
    return [name for name in differences(undisturbed, run_folder) if not name.startswith("jobs")]


def test_scripts_train_what_the_commands_do(
    slurm: SlurmCluster, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """All three, one after the other, each on what the one before has left."""
    run_folder = tmp_path / "run $(touch gone) 'of' 50%j"
    copy_stages(undisturbed.folder, run_folder, before("distill"))
    assert_ended(slurm, sent(slurm, "distil", run_folder), "COMPLETED")
    for stage in ("reliability", "score", "aggregate", "tokenize", "select", "sensitivity"):
        assert_done(smoke(stage, run_folder))
    assert_done(smoke("blend", run_folder))
    assert_ended(slurm, sent(slurm, "midtrain", run_folder, MIRA_ONLY=ARM), "COMPLETED")
    assert_done(smoke("instruct-data", run_folder))
    assert_ended(slurm, sent(slurm, "instruct_sft", run_folder), "COMPLETED")
    assert_done(smoke("report", run_folder))
    assert not others(undisturbed.folder, run_folder)
    assert not list(tmp_path.rglob("gone"))
    jobs = {path.name for path in (run_folder / "jobs").iterdir()}
    assert jobs == {"hand-distill", f"hand-midtrain-{ARM}", "hand-instruct-sft"}
    status = smoke("status", run_folder).output
    assert all(name in status for name in jobs)


@contextmanager
def waiting(slurm: SlurmCluster, run_folder: Path, **variables: str) -> Iterator[str]:
    """Yields a job whose stage waits for another process, until the block ends."""
    lock = run_folder / ".locks" / f"checkpoints.{ARM}.lock"
    with held_lock(lock, "held by a test before"):
        job = sent(slurm, "midtrain", run_folder, **variables)
        wait_until(
            lambda: "another process has what it writes" in log(slurm, job),
            lambda: f"{slurm.jobs(job)}\n{log(slurm, job)}",
            is_over=lambda: slurm.has_ended(job),
        )
        yield job


@pytest.fixture
def blended(undisturbed: Undisturbed, tmp_path: Path) -> Path:
    """A run that has all that mid-training needs."""
    return copy_stages(undisturbed.folder, tmp_path / "run", before("midtrain"))


@pytest.mark.parametrize(
    ("preempt", "back"),
    [(("scancel", "--signal=USR1"), 1), (("scontrol", "requeue"), 0)],
    ids=["signal", "requeue"],
)
def test_job_that_is_preempted_goes_back_into_the_queue_and_ends_well(
    slurm: SlurmCluster, undisturbed: Undisturbed, blended: Path, preempt: Sequence[str], back: int
) -> None:
    with waiting(slurm, blended) as job:
        slurm.command(*preempt, job)
    assert_ended(slurm, job, "COMPLETED")
    assert log(slurm, job).count("not finished: back into the queue") == back
    assert "Restarts=1" in slurm.command("scontrol", "show", "job", job)
    made = blended / f"checkpoints/{ARM}"
    assert not differences(undisturbed.folder / f"checkpoints/{ARM}", made)


def test_job_that_is_cancelled_stays_cancelled(slurm: SlurmCluster, blended: Path) -> None:
    with waiting(slurm, blended) as job:
        slurm.command("scancel", job)
        assert_ended(slurm, job, "CANCELLED")
    assert "told to end" in log(slurm, job)
    assert "back into the queue" not in log(slurm, job)


def test_job_whose_input_is_not_finished_is_refused(
    slurm: SlurmCluster, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run_folder = copy_stages(undisturbed.folder, tmp_path / "run", before("blend"))
    job = sent(slurm, "midtrain", run_folder)
    assert_ended(slurm, job, "FAILED")
    assert slurm.jobs(job)[job].exit_code == 2
    assert f"blends/{ARM}, which is not finished" in log(slurm, job)


def test_stage_that_is_killed_is_run_again_as_often_as_may_be(
    slurm: SlurmCluster, blended: Path
) -> None:
    killed = "midtrain.training.train_iters=100000"
    job = sent(slurm, "midtrain", blended, killed, MIRA_MAX_FAILURES="1")
    told: set[int] = set()
    while not slurm.has_ended(job):
        for pid in stages(blended, killed) - told:
            os.kill(pid, signal.SIGKILL)
            told.add(pid)
        time.sleep(0.1)
    assert len(told) == 2
    assert_ended(slurm, job, "FAILED")
    assert slurm.jobs(job)[job].exit_code == 1
    assert "failed 2 times, and max_failures=1: not run again" in log(slurm, job)
    assert "failed 2 times" in smoke("status", blended, killed).output


def stages(run_folder: Path, setting: str) -> set[int]:
    """Returns the processes that train, and not those that started them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if {f"run_folder={run_folder}", setting, "mira_megatron.cli"} <= set(words):
                found.add(int(path.parent.name))
    return found
