"""A server on two nodes of a real SLURM, each with a `mira job` of its own, and what may befall it.

The scorer is served by two halves that cannot live without each other (half_server.py), as a
teacher is that no node can hold alone.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_teacher import FakeTeacher, serving
from gated_scorer import GatedScorer
from half_server import HANDED_ON
from slurm_cluster import SlurmCluster, running_slurm, wait_until
from slurm_drills import IN_FLIGHT, NUM_RECORDS, DrillRun, anchored, undisturbed
from vllm_server import free_port

pytestmark = pytest.mark.integration

HALF = Path(__file__).parent / "half_server.py"
NODES = (0, 1)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[SlurmCluster]:
    """A real SLURM of two nodes."""
    with running_slurm(num_cpus=2, num_nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def finished(two_nodes: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> DrillRun:
    """A run that nothing happened to."""
    with serving(FakeTeacher()) as scorer:
        return undisturbed(tmp_path_factory.mktemp("undisturbed"), two_nodes, scorer.url)


@pytest.fixture
def run(finished: DrillRun, gated_scorer: GatedScorer, tmp_path: Path) -> DrillRun:
    """A run whose records are to be scored; its gate is closed."""
    gated_scorer.gate.clear()
    return anchored(finished, tmp_path / "drill", "http://127.0.0.1:9/v1")


def submit(run: DrillRun, scorer: GatedScorer, max_failures: int, **server: Any) -> dict[str, str]:
    """Sends the run; a server's half on each of two nodes answers its questions."""
    port = free_port()
    words = [sys.executable, str(HALF), "{node}", str(free_port()), str(port), scorer.url]
    served = {
        "commands": [words],
        "health_urls": [f"http://127.0.0.1:{port}/health"],
        "ready_seconds": 120,
        "stop_seconds": 10,
        **server,
    }
    return run.submit(
        max_failures=max_failures, servers={"score": served}, stages={"score": {"nodes": 2}}
    )


def log(run: DrillRun, node: int) -> str:
    path = run.jobs / "score" / f"server-0-{node}-0.txt"
    return path.read_text() if path.exists() else ""


def halves(run: DrillRun) -> dict[int, int]:
    """Returns the process of each half, as it was started last, by node."""
    found = {node: re.findall(r"has pid (\d+)", log(run, node)) for node in NODES}
    return {node: int(pids[-1]) for node, pids in found.items() if pids}


def are_alive(run: DrillRun) -> bool:
    pids = halves(run).values()
    return len(pids) == len(NODES) and all(Path(f"/proc/{pid}").exists() for pid in pids)


def said(run: DrillRun, scorer: GatedScorer) -> str:
    servers = "\n".join(f"node {node}: {log(run, node)}" for node in NODES)
    return f"{scorer.num_waiting} wait; {halves(run)}\n{servers}\n{run.logs()}"


def wait_for_questions(run: DrillRun, scorer: GatedScorer) -> None:
    """Waits until both halves serve, and as many questions are open as may be."""
    wait_until(
        lambda: scorer.num_waiting >= IN_FLIGHT and are_alive(run),
        lambda: said(run, scorer),
        is_over=lambda: run.slurm.has_ended(run.numbers()["score"]),
    )


def assert_nothing_serves(run: DrillRun) -> None:
    """Fails where a half outlives its job."""
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in halves(run).values()),
        lambda: f"{halves(run)} go on\n{run.logs()}",
        seconds=30,
    )


def test_server_on_two_nodes_answers_and_ends_on_both(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer
) -> None:
    gated_scorer.gate.set()
    jobs = submit(run, gated_scorer, max_failures=0)
    run.wait(jobs["aggregate"], "COMPLETED")
    run.assert_scored_as(finished.digests())
    assert gated_scorer.asked.total() == NUM_RECORDS
    assert "half 0 ended in order" in log(run, 0)
    assert not run.failures("score")  # though the other half may see the first one end
    ran = run.slurm.command("scontrol", "show", "job", jobs["score"])
    assert "NumNodes=2" in ran
    assert_nothing_serves(run)


def test_half_that_is_killed_on_the_other_node_is_one_failure_and_loses_nothing(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer
) -> None:
    jobs = submit(run, gated_scorer, max_failures=1)
    gated_scorer.gate.set()
    gated_scorer.seconds_per_answer = 0.1
    run.wait_for_ratings(2)
    gated_scorer.gate.clear()
    wait_for_questions(run, gated_scorer)
    kept = run.stamps()
    before = halves(run)
    os.kill(before[1], signal.SIGKILL)
    wait_until(
        lambda: halves(run)[0] != before[0],
        lambda: said(run, gated_scorer),
        is_over=lambda: run.slurm.has_ended(jobs["score"]),
    )
    gated_scorer.seconds_per_answer = 0
    gated_scorer.gate.set()
    run.wait(jobs["aggregate"], "COMPLETED")
    run.assert_scored_as(finished.digests())
    assert {name: run.stamps()[name] for name in kept} == kept
    failures = run.failures("score")
    assert {failure["restart"] for failure in failures} == {0}  # counted once, by whoever saw it
    assert any("a server was ended by signal 9" in failure["reason"] for failure in failures)
    assert gated_scorer.asked.total() <= NUM_RECORDS + IN_FLIGHT
    assert_nothing_serves(run)


@pytest.mark.parametrize(
    "preempt",
    [("scancel", "--batch", "--signal=USR1"), ("scancel", "--signal=USR1")],
    ids=["by_the_script", "every_process"],
)
def test_preempted_job_gets_its_answers_from_both_halves_before_they_end(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer, preempt: tuple[str, ...]
) -> None:
    jobs = submit(run, gated_scorer, max_failures=0)
    wait_for_questions(run, gated_scorer)
    before = halves(run)
    run.slurm.command(*preempt, jobs["score"])
    wait_until(
        lambda: run.logs().count("SIGUSR1: told to end") == len(NODES),
        lambda: said(run, gated_scorer),
    )
    assert HANDED_ON not in log(run, 0)
    gated_scorer.gate.set()
    run.wait(jobs["aggregate"], "COMPLETED")
    assert not run.failures("score")
    assert halves(run)[1] != before[1]  # served anew
    _, first, second = log(run, 0).split("has pid")
    assert first.count(HANDED_ON) == IN_FLIGHT  # what was open when it was told, and no more
    assert second.count(HANDED_ON) == NUM_RECORDS - IN_FLIGHT  # what was answered was kept
    run.assert_scored_as(finished.digests())
    assert_nothing_serves(run)


def test_half_that_never_comes_ends_the_job_on_both_nodes(
    run: DrillRun, gated_scorer: GatedScorer
) -> None:
    wait = "import time; print('waiting for the other half', flush=True); time.sleep(3600)"
    jobs = submit(
        run,
        gated_scorer,
        max_failures=1,
        commands=[[sys.executable, "-c", wait]],
        ready_seconds=1,
    )
    run.wait(jobs["score"], "FAILED")
    run.wait(jobs["aggregate"], "CANCELLED")
    failures = run.failures("score")
    assert [failure["restart"] for failure in failures] == [0, 1]
    assert all("was not ready within ready_seconds=1" in each["reason"] for each in failures)
    assert run.slurm.jobs(jobs["score"])[jobs["score"]].exit_code == 1
    assert not run.ratings()


def test_job_whose_first_process_is_killed_ends_on_both_nodes_and_the_next_goes_on(
    run: DrillRun, finished: DrillRun, gated_scorer: GatedScorer
) -> None:
    """Nobody puts it back; the other node ends since its half cannot live alone."""
    jobs = submit(run, gated_scorer, max_failures=2)
    wait_for_questions(run, gated_scorer)
    os.kill(runner_of(halves(run)[0]), signal.SIGKILL)
    run.wait(jobs["score"], "FAILED")
    run.wait(jobs["aggregate"], "CANCELLED")
    assert_nothing_serves(run)
    gated_scorer.gate.set()
    again = submit(run, gated_scorer, max_failures=0)
    run.wait(again["aggregate"], "COMPLETED")
    run.assert_scored_as(finished.digests())


def runner_of(pid: int) -> int:
    """Returns the process that started another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_cancelled_job_leaves_no_half_behind(run: DrillRun, gated_scorer: GatedScorer) -> None:
    jobs = submit(run, gated_scorer, max_failures=0)
    wait_for_questions(run, gated_scorer)
    run.slurm.command("scancel", jobs["score"])
    gated_scorer.gate.set()
    run.wait(jobs["score"], "CANCELLED")
    run.wait(jobs["aggregate"], "CANCELLED")
    assert not run.failures("score")
    assert_nothing_serves(run)
