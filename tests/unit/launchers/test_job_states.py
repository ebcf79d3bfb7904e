"""What `mira status` says of jobs, from squeue's words and files of the run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from job_runs import JobRun, new_job_run

from mira_megatron.launchers.job_failures import JobFailures
from mira_megatron.launchers.job_file import JobFile
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.launchers.job_states import JobState, job_states
from mira_megatron.launchers.last_lines import last_lines
from mira_megatron.launchers.squeue import QueuedJob, QueueUnknown, queued_jobs
from mira_megatron.pipeline import run_stages, unit_states
from mira_megatron.stage import Resources


@pytest.fixture
def job_run(tmp_path: Path) -> JobRun:
    return new_job_run(tmp_path)


def sent(job: JobFile, *numbers: str) -> JobFile:
    """Writes down that a job was sent, with these numbers of SLURM's in order."""
    entry = {"time": "2026-01-01T00:00:00+00:00", "cluster": "c", "elements": 0, "dependency": ""}
    entries = [{**entry, "job_id": number} for number in numbers]
    content = {"schema_version": 1, "submissions": entries}
    (job.folder / "submitted.json").write_text(json.dumps(content))
    return job


def row(state: str, **values: object) -> QueuedJob:
    given = {"job_id": "7", "restarts": 0, "since": "", "nodes": "", "reason": ""}
    return QueuedJob(**{**given, "state": state, **values})  # type: ignore[arg-type]


def found(
    job_run: JobRun, *rows: QueuedJob, problem: str = ""
) -> tuple[dict[str, JobState], list[str]]:
    """Returns the states of jobs by name, and which of SLURM's numbers were asked for."""
    asked: list[str] = []

    def queue(job_ids: Sequence[str]) -> list[QueuedJob]:
        asked.extend(job_ids)
        if problem:
            raise QueueUnknown(problem)
        return list(rows)

    states = unit_states(job_run.recipe, ["ingest", "discover"])
    jobs, told = job_states(job_run.recipe.run_folder, states, queue)
    assert told == problem
    return {job.name: job for job in jobs}, asked


def test_job_is_done_by_its_manifests_whatever_the_queue_says(job_run: JobRun) -> None:
    job_run.write_notes()
    run_stages(job_run.recipe, ["ingest"], Resources())
    sent(job_run.job(), "7")
    jobs, asked = found(job_run, problem="there is no squeue here")
    assert jobs["ingest"].state == "done"
    assert asked == []


def test_running_job_says_where_since_when_and_how_often_it_was_put_back(job_run: JobRun) -> None:
    sent(job_run.job(), "5", "7")
    rows = [
        row("RUNNING", nodes="n1", since="2026-01-01T10:00:00", restarts=2),
        row("RUNNING", nodes="n2", since="2026-01-01T09:00:00"),
        row("PENDING", reason="Resources"),
    ]
    jobs, asked = found(job_run, *rows)
    assert asked == ["7"]  # the last of its numbers
    assert jobs["ingest"].state == "running"
    assert jobs["ingest"].detail == (
        "2 on n1, n2 since 2026-01-01T09:00:00; 1 waiting: Resources; requeued 2 times"
    )


def test_waiting_job_says_slurms_reason(job_run: JobRun) -> None:
    sent(job_run.job(), "7")
    jobs, _ = found(job_run, row("PENDING", reason="Dependency"))
    assert (jobs["ingest"].state, jobs["ingest"].detail) == ("waiting", "Dependency")


def test_failed_job_says_what_its_runner_wrote_and_its_log_ends_with(job_run: JobRun) -> None:
    job = sent(job_run.job(), "7")
    JobFailures(job.folder, JobPlace(job="6"), 2).add(1, "of an earlier submission")
    for restart in range(2):
        JobFailures(job.folder, JobPlace(job="7", restart=restart), 2).add(9, "rank 3 died\nmore")
    (job.folder / "log-6.txt").write_text("old\n")
    (job.folder / "log-7.txt").write_text("".join(f"line {n}\n" for n in range(9)) + "\x1b[31mred")
    jobs, _ = found(job_run)
    assert jobs["ingest"].state == "failed"
    assert jobs["ingest"].detail == "failed 2 times, the last time: rank 3 died"
    log, *lines = jobs["ingest"].lines
    assert log == f"{job.folder}/log-7.txt:"
    assert lines == ["line 5", "line 6", "line 7", "line 8", r"\x1b[31mred"]


def test_job_that_left_no_word_is_failed_and_one_without_a_log_never_started(
    job_run: JobRun,
) -> None:
    job = sent(job_run.job(), "7")
    jobs, _ = found(job_run)
    assert "it never started" in jobs["ingest"].detail
    (job.folder / "log-7_0.txt").write_text("")
    jobs, _ = found(job_run)
    assert "wrote down no failure: cancelled, killed, out of time or refused" in (
        jobs["ingest"].detail
    )


def test_array_whose_rest_is_in_the_queue_has_not_failed(job_run: JobRun) -> None:
    sent(job_run.job(), "6")
    sent(job_run.job(name="ingest-rest"), "7")
    jobs, _ = found(job_run, row("PENDING"))
    assert (jobs["ingest"].state, jobs["ingest-rest"].state) == ("ended", "waiting")


def test_without_a_queue_a_job_that_is_not_done_is_unknown(job_run: JobRun) -> None:
    sent(job_run.job(), "7")
    job_run.job(name="other", stage="discover")
    jobs, _ = found(job_run, problem="there is no squeue here")
    assert {name: job.state for name, job in jobs.items()} == {
        "ingest": "unknown",
        "other": "prepared",
    }


def test_job_file_that_cannot_be_read_hides_no_other(job_run: JobRun) -> None:
    sent(job_run.job(), "7")
    broken = job_run.job(name="broken")
    broken.path.write_text("{")
    jobs, _ = found(job_run, row("RUNNING", nodes="n1"))
    assert jobs["ingest"].state == "running"
    assert "not JSON" in jobs["broken"].detail


@pytest.fixture
def squeue(tmp_path: Path) -> Callable[[str], str]:
    """Returns a command in place of squeue, made of a Python script."""

    def make(script: str) -> str:
        path = tmp_path / "squeue"
        path.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_rows_of_squeue_are_read_by_their_widths(squeue: Callable[[str], str]) -> None:
    command = squeue(
        "form = [w for w in sys.argv if w.startswith('--Format=')][0].partition('=')[2]\n"
        "widths = [int(each.partition(':')[2]) for each in form.split(',')]\n"
        "for row in (['7', 'RUNNING', '2', '2026-01-01T00:00:00', 'n[1-2]', 'None'],\n"
        "            ['7', 'PENDING', '0', 'N/A', '', '(odd, reason) | x']):\n"
        "    print(''.join(v.ljust(w) for v, w in zip(row, widths)))"
    )
    assert queued_jobs(["7"], command=command) == [
        row("RUNNING", restarts=2, since="2026-01-01T00:00:00", nodes="n[1-2]"),
        row("PENDING", reason="(odd, reason) | x"),
    ]


def test_squeue_that_is_missing_or_fails_is_no_empty_queue(squeue: Callable[[str], str]) -> None:
    with pytest.raises(QueueUnknown, match="there is no squeue here"):
        queued_jobs(["7"], command="/nowhere/squeue")
    failing = squeue("sys.exit('slurm_load_jobs error: Unable to contact slurm controller')")
    with pytest.raises(QueueUnknown, match="Unable to contact"):
        queued_jobs(["7"], command=failing)
    forgotten = squeue("sys.exit('slurm_load_jobs error: Invalid job id specified')")
    assert queued_jobs(["7"], command=forgotten) == []
    assert queued_jobs([], command="/nowhere/squeue") == []


def test_last_lines_are_few_short_and_harmless(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\n10%\r90%\r\n\n\xff\x07" + b"y" * 400 + b"\n")
    progress, last = last_lines(log, 2)
    assert progress == "90%"
    assert last.startswith("\N{REPLACEMENT CHARACTER}\\x07y")
    assert len(last) == 300
    assert last_lines(log, 5, start=log.stat().st_size) == []
    assert last_lines(tmp_path / "none", 5) == []
