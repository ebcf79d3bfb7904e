"""`mira job`: what each exit code means, and what is kept between attempts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from job_runs import JobRun, new_job_run, told_to_end_once

from mira_megatron.file_lock import held_lock
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.launchers.job_runner import DONE, FAILED, REFUSED, RUN_AGAIN, run_job

SLURM = JobPlace(job="7", number=7)


@pytest.fixture
def job_run(tmp_path: Path) -> JobRun:
    return new_job_run(tmp_path)


def test_stage_is_run_to_its_manifest_and_then_never_again(job_run: JobRun) -> None:
    job_run.write_notes()
    job = job_run.job()
    words = [sys.executable, "-m", "mira_megatron.cli", "job", str(job.path)]
    assert subprocess.run(words, check=False).returncode == DONE
    assert job_run.is_done
    (job_run.folder / "notes.jsonl").unlink()
    assert run_job(job.path, SLURM) == DONE


def test_recipe_changed_since_the_job_was_submitted_is_refused(job_run: JobRun) -> None:
    job = job_run.job()
    with (job_run.folder / "recipe.yaml").open("a") as recipe:
        recipe.write("seed: 8\n")
    with pytest.raises(ValueError, match=r"recipe.yaml: changed since this job was submitted"):
        run_job(job.path, SLURM)


def test_job_started_in_another_folder_is_refused(
    job_run: JobRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = job_run.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(tmp_path / "run"), "run"))
    monkeypatch.chdir(job_run.folder)
    job = job_run.job()
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match="Start it in the folder that it was submitted from"):
        run_job(job.path, SLURM)


@pytest.mark.parametrize("kind", ["stage", "train"])
def test_nothing_is_run_on_input_that_is_not_finished(job_run: JobRun, kind: str) -> None:
    job = job_run.job("discover", kind=kind)
    with pytest.raises(ValueError, match=r"records/notes, which is not finished"):
        run_job(job.path, SLURM, trainings=lambda *_: [job_run.training("")])
    assert not (job_run.folder / "order").exists()


def test_what_the_stage_refuses_is_refused_and_no_failure(job_run: JobRun) -> None:
    job = job_run.job()  # its raw file is not there
    assert run_job(job.path, SLURM) == REFUSED
    assert not list(job.folder.glob("failures*"))


def test_unit_that_another_process_writes_is_waited_for_and_no_failure(job_run: JobRun) -> None:
    job_run.write_notes()
    job = job_run.job(max_failures=0)
    with held_lock(job_run.recipe.run_folder / ".locks/records.notes.lock", "unused"):
        assert run_job(job.path, SLURM, in_use_seconds=0) == RUN_AGAIN
    assert not list(job.folder.glob("failures*"))
    assert run_job(job.path, SLURM) == DONE


def test_training_that_another_job_runs_is_waited_for_and_no_failure(job_run: JobRun) -> None:
    job = job_run.job(kind="train", max_failures=0)
    trainings = [job_run.training("")]
    with held_lock(job_run.recipe.run_folder / ".locks/ingest.notes.training", "unused"):
        assert (
            run_job(job.path, SLURM, trainings=lambda *_: trainings, in_use_seconds=0) == RUN_AGAIN
        )
        assert not (job_run.folder / "order").exists()
    assert run_job(job.path, SLURM, trainings=lambda *_: trainings) == DONE
    assert not list(job.folder.glob("failures*"))


def test_stage_that_is_killed_is_run_again_as_often_as_it_may_fail(job_run: JobRun) -> None:
    os.mkfifo(job_run.folder / "notes.jsonl")  # who reads it waits
    job = job_run.job(max_failures=1)
    for restart, code in enumerate([RUN_AGAIN, FAILED]):
        with killed_child():
            assert run_job(job.path, JobPlace(job="7", number=7, restart=restart)) == code
    assert job_run.reasons() == ["mira ingest was ended by signal 9"] * 2
    # The third does not try; a submission of its own does.
    assert run_job(job.path, JobPlace(job="7", number=7, restart=2)) == FAILED
    (job_run.folder / "notes.jsonl").unlink()
    job_run.write_notes()
    assert run_job(job.path, JobPlace(job="8", number=8)) == DONE


def test_training_is_prepared_run_finished_and_taken_over(job_run: JobRun) -> None:
    assert job_run.train() == DONE
    assert job_run.is_done
    assert job_run.order == ["prepare", "finish"]
    ((rank, local_rank, world_size, address, _),) = job_run.ranks
    assert (rank, local_rank, world_size, address) == ("0", "0", "1", "127.0.0.1")


def test_training_that_fails_twice_then_works_is_finished(job_run: JobRun) -> None:
    codes = [job_run.train("fails-twice", restart) for restart in range(3)]
    assert codes == [RUN_AGAIN, RUN_AGAIN, DONE]
    assert job_run.reasons() == ["rank 0 of the training ended with exit code 7"] * 2
    assert job_run.is_done
    assert job_run.order == ["prepare", "prepare", "prepare", "finish"]


def test_training_that_ends_with_0_unfinished_is_not_taken_over(job_run: JobRun) -> None:
    codes = [job_run.train("stops-early", restart, max_failures=1) for restart in range(3)]
    assert codes == [RUN_AGAIN, FAILED, FAILED]
    assert not job_run.is_done
    assert job_run.order == ["prepare", "finish"] * 2
    assert all("ended with exit code 75" in reason for reason in job_run.reasons())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_training_told_to_end_saves_and_goes_on_from_there(
    job_run: JobRun, number: signal.Signals
) -> None:
    with told_to_end_once(job_run.folder / "waiting", number):
        assert job_run.train("waits", max_failures=0) == RUN_AGAIN
    assert (job_run.folder / "saved-0").read_text() == "2"
    assert not job_run.is_done
    assert job_run.order == ["prepare"]
    assert job_run.train("waits", 1, max_failures=0) == DONE


def test_rank_that_fails_ends_the_others(job_run: JobRun) -> None:
    assert job_run.train("last-fails", nproc_per_node=3) == RUN_AGAIN
    assert job_run.reasons() == ["rank 2 of the training ended with exit code 9"]
    ranks = sorted(job_run.ranks)
    assert [rank[:3] for rank in ranks] == [[str(n), str(n), "3"] for n in range(3)]
    assert len({port for *_, port in ranks}) == 1


def test_training_laid_out_for_other_nodes_is_refused(job_run: JobRun) -> None:
    job = job_run.job(kind="train")
    with pytest.raises(ValueError, match="laid out for 2 nodes, but this job has 1"):
        run_job(job.path, SLURM, trainings=lambda *_: [job_run.training("", num_nodes=2)])


@contextmanager
def killed_child() -> Iterator[None]:
    """Kills the next child of this process that is a stage."""
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.is_set():
            for path in Path("/proc").glob("[0-9]*"):
                with suppress(OSError, ValueError):
                    parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                    words = (path / "cmdline").read_bytes().split(b"\0")
                    if parent == os.getpid() and b"--workers" in words:
                        os.kill(int(path.name), signal.SIGKILL)
                        return
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
