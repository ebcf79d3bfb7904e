"""Jobs of `mira submit` on a real SLURM are killed, cancelled, preempted and kept from running.

Each ends as docs/slurm-survival.md says: no work is lost, and nothing runs on unfinished input.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from fake_teacher import FakeTeacher, serving
from gated_scorer import GatedScorer
from slurm_cluster import SlurmCluster, wait_until
from slurm_drills import IN_FLIGHT, NUM_PARTS, NUM_RECORDS, DrillRun, anchored, undisturbed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def finished(slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> DrillRun:
    """A run that nothing happened to."""
    with serving(FakeTeacher()) as scorer:
        return undisturbed(tmp_path_factory.mktemp("undisturbed"), slurm, scorer.url)


@pytest.fixture
def run(finished: DrillRun, gated_scorer: GatedScorer, tmp_path: Path) -> DrillRun:
    """A run whose records are to be scored; its gate is closed."""
    gated_scorer.gate.clear()
    return anchored(finished, tmp_path / "drill", gated_scorer.url)


def wait_for_worker(run: DrillRun, scorer: GatedScorer) -> None:
    """Waits until one has all the requests open that it may."""
    wait_until(
        lambda: scorer.num_waiting >= IN_FLIGHT and bool(run.owners()),
        lambda: f"{scorer.num_waiting} wait, {run.owners()}\n{run.logs()}",
    )


def test_shard_killed_twice_is_run_again_and_loses_nothing(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer
) -> None:
    jobs = run.submit(max_failures=2)
    wait_for_worker(run, gated_scorer)
    element = f"{jobs['score']}_0"
    for number in (1, 2):
        wait_until(lambda: element in run.owners(), run.logs)
        os.kill(run.owners()[element], signal.SIGKILL)
        wait_for_failures(run, number)
    assert "failed 2 times, the last time: mira score was ended by signal 9" in run.status()
    gated_scorer.gate.set()
    run.wait(jobs["aggregate"], "COMPLETED")
    assert set(run.slurm.states(jobs["score"]).values()) == {"COMPLETED"}
    run.assert_scored_as(finished.digests())
    assert len(run.failures("score")) == 2
    # What was in flight when the two were killed was asked again, and nothing else.
    assert gated_scorer.asked.total() <= NUM_RECORDS + 2 * IN_FLIGHT


def wait_for_failures(run: DrillRun, number: int) -> None:
    wait_until(lambda: len(run.failures("score")) == number, run.logs)


def test_cancelled_job_stays_cancelled_and_the_next_submission_goes_on(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer
) -> None:
    gated_scorer.gate.set()
    gated_scorer.seconds_per_answer = 0.2
    jobs = run.submit(max_failures=0)
    run.wait_for_ratings(2)
    run.slurm.command("scancel", jobs["score"], jobs["score-rest"])
    run.wait(jobs["score"], "CANCELLED")
    run.wait(jobs["aggregate"], "CANCELLED")  # what it waits for cannot come any more
    kept = run.stamps()
    assert 2 <= len(kept) < NUM_PARTS
    assert not run.is_done("record_scores/drill/notes")
    assert not run.failures("score")
    assert "it never started: cancelled" in run.status()
    gated_scorer.seconds_per_answer = 0
    again = run.submit()
    run.wait(again["aggregate"], "COMPLETED")
    assert {name: run.stamps()[name] for name in kept} == kept
    run.assert_scored_as(finished.digests())


def test_work_of_a_cancelled_array_is_not_done_by_its_rest(
    run: DrillRun, gated_scorer: GatedScorer
) -> None:
    gated_scorer.gate.set()
    gated_scorer.seconds_per_answer = 0.2
    jobs = run.submit(max_failures=0)
    run.wait_for_ratings(1)
    run.slurm.command("scancel", jobs["score"])
    run.wait(jobs["score-rest"], "FAILED")
    run.wait(jobs["aggregate"], "CANCELLED")
    assert "was cancelled, so what it left is not done" in run.logs()
    assert not run.is_done("record_scores/drill/notes")


@pytest.mark.parametrize(
    "preempt",
    [
        ("scancel", "--batch", "--signal=USR1"),  # as before a time limit
        ("scancel", "--signal=USR1"),  # to every process but the script
        ("scontrol", "requeue"),
    ],
)
def test_preempted_job_goes_on_and_that_is_no_failure(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer, preempt: tuple[str, ...]
) -> None:
    jobs = run.submit(max_failures=0)
    wait_for_worker(run, gated_scorer)
    first = next(iter(run.owners().values()))
    run.slurm.command(*preempt, f"{jobs['score']}_0")
    gated_scorer.gate.set()  # what is in flight is answered, and kept
    wait_until(lambda: "requeued once" in run.status(), lambda: f"{run.status()}\n{run.logs()}")
    run.wait(jobs["aggregate"], "COMPLETED")
    assert not Path(f"/proc/{first}").exists()
    assert not run.failures("score")
    run.assert_scored_as(finished.digests())
    assert gated_scorer.asked.total() <= NUM_RECORDS + IN_FLIGHT


def test_drained_node_ends_what_runs_and_starts_the_rest_when_it_is_back(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer
) -> None:
    jobs = run.submit()
    wait_for_worker(run, gated_scorer)
    node = f"nodename={run.slurm.node}"
    run.slurm.command("scontrol", "update", node, "state=drain", "reason=drill")
    try:
        gated_scorer.gate.set()
        run.wait(jobs["score"], "COMPLETED")
        (rest,) = run.slurm.jobs(jobs["score-rest"]).values()
        assert rest.state == "PENDING"
        assert not run.is_done("record_scores/drill/notes")
    finally:
        run.slurm.command("scontrol", "update", node, "state=resume")
    run.wait(jobs["aggregate"], "COMPLETED")
    run.assert_scored_as(finished.digests())


def test_server_that_is_never_ready_ends_the_job_and_nothing_runs_after_it(
    run: DrillRun,
) -> None:
    server = "import time; print('loading weights', flush=True); time.sleep(3600)"
    never = {
        "commands": [[sys.executable, "-c", server]],
        "health_urls": ["http://127.0.0.1:9/health"],
        "ready_seconds": 1,
        "stop_seconds": 5,
    }
    jobs = run.submit(max_failures=1, servers={"score": never})
    run.wait(jobs["score"], "FAILED")
    run.wait(jobs["aggregate"], "CANCELLED")
    reasons = [failure["reason"] for failure in run.failures("score")]
    assert len(reasons) == 2
    assert all("was not ready within ready_seconds=1" in reason for reason in reasons)
    assert all("loading weights" in reason for reason in reasons)
    assert not run.ratings()
    status = run.status()
    assert "failed 2 times, the last time: http://127.0.0.1:9/health was not ready" in status
    assert "max_failures=1: not run again" in status
