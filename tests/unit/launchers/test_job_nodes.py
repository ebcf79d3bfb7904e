"""Jobs on several nodes: what SLURM's variables say, turns, and failures that are counted once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_runs import new_job_run

from mira_megatron.launchers.job_children import Stopped
from mira_megatron.launchers.job_failures import JobFailures
from mira_megatron.launchers.job_place import JobPlace, place_from
from mira_megatron.launchers.job_runner import FAILED, RUN_AGAIN, run_job
from mira_megatron.launchers.node_turns import NodeTurns

ELEMENT = {
    "SLURM_JOB_ID": "12",
    "SLURM_ARRAY_JOB_ID": "10",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_RESTART_COUNT": "3",
}


def test_place_without_slurm_is_the_only_one() -> None:
    assert place_from({}) == JobPlace()


def test_place_of_an_element_is_told_by_slurm() -> None:
    place = place_from(ELEMENT)
    assert place == JobPlace(job="10_1", number=12, restart=3, element="1")
    assert place.is_head


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_NNODES": "2"}, "MIRA_HEAD_NODE does not name the host"),
        ({"SLURM_PROCID": "1"}, "SLURM_PROCID=1 on node 0: `mira job` runs once per node"),
        ({"SLURM_NODEID": "one"}, "SLURM_NODEID='one' must be a whole number"),
    ],
)
def test_place_that_does_not_fit_is_refused(environment: Mapping[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        place_from(environment)


@given(st.integers(0, 2**32), st.integers(0, 100))
def test_port_is_one_that_no_system_gives_away_and_changes_with_the_attempt(
    number: int, restart: int
) -> None:
    place = JobPlace(job="x", number=number, restart=restart)
    later = JobPlace(job="x", number=number, restart=restart + 1)
    assert 20_000 <= place.port < 30_000
    assert place.port != later.port
    assert place.attempt != later.attempt


def node(number: int, restart: int = 0, job: str = "7") -> JobPlace:
    return JobPlace(job=job, restart=restart, node=number, num_nodes=2, head="n0")


def test_attempt_that_fails_on_two_nodes_is_one_failure(tmp_path: Path) -> None:
    times = iter(range(100))
    for place in (node(0), node(1), node(1, restart=1)):
        JobFailures(tmp_path, place, 1, now=lambda: next(times)).add(1, f"{place.node}")
    counted = JobFailures(tmp_path, node(0), 1)
    assert [failure.restart for failure in counted.of_this_job()] == [0, 1]
    assert counted.are_too_many
    assert not JobFailures(tmp_path, node(0), 2).are_too_many
    assert not JobFailures(tmp_path, node(0, job="8"), 0).are_too_many  # submitted again


def test_failures_of_another_element_do_not_count(tmp_path: Path) -> None:
    JobFailures(tmp_path, JobPlace(job="7_1", element="1"), 0).add(1, "no")
    assert not JobFailures(tmp_path, JobPlace(job="7_10", element="10"), 0).are_too_many


def test_without_slurm_every_failure_is_an_attempt(tmp_path: Path) -> None:
    times = iter(range(100))
    failures = JobFailures(tmp_path, JobPlace(), 1, now=lambda: next(times))
    failures.add(1, "first")
    failures.add(1, "second")
    assert [failure.reason for failure in failures.of_this_job()] == ["first", "second"]
    assert not failures.are_too_many  # who runs a job by hand may do so again


def test_nodes_wait_for_the_turn_of_their_attempt(tmp_path: Path) -> None:
    before, head, other = (NodeTurns(tmp_path, node(*at)) for at in ((0,), (0, 1), (1, 1)))
    before.give("of an earlier attempt")
    heard: list[str | None] = []

    def listen() -> None:
        while (name := other.wait(lambda: None, poll_seconds=0.01)) is not None:
            heard.append(name)

    listening = threading.Thread(target=listen)
    listening.start()
    head.give("first")
    while not heard:
        time.sleep(0.01)
    head.give("second")
    while len(heard) < 2:
        time.sleep(0.01)
    head.give(None)
    listening.join()
    assert heard == ["first", "second"]


def test_node_that_is_told_to_end_waits_for_no_turn(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        NodeTurns(tmp_path, node(1)).wait(Stopped, poll_seconds=0.01)


def test_what_the_head_ended_is_no_failure_of_another_node(tmp_path: Path) -> None:
    NodeTurns(tmp_path, node(0)).give(None)
    assert NodeTurns(tmp_path, node(1)).wait(lambda: ValueError("its server ended")) is None


def test_node_helps_with_the_training_that_the_head_names(tmp_path: Path) -> None:
    run = new_job_run(tmp_path)
    job = run.job(kind="train", nproc_per_node=2, max_failures=0)
    training = run.training("", num_nodes=2)
    NodeTurns(job.folder, node(0)).give("notes")
    head = threading.Thread(target=_give_end, args=(job.folder, tmp_path))
    head.start()
    place = JobPlace(job="7", node=1, num_nodes=2, head="127.0.0.1")
    assert run_job(job.path, place, trainings=lambda *_: [training]) == 0
    head.join()
    assert sorted(rank[:4] for rank in run.ranks) == [
        ["2", "0", "4", "127.0.0.1"],
        ["3", "1", "4", "127.0.0.1"],
    ]
    assert {port for *_, port in run.ranks} == {str(place.port)}
    assert not (tmp_path / "order").exists()  # preparing and finishing is the head's


def _give_end(job: Path, folder: Path) -> None:
    while not all((folder / f"saved-{rank}").exists() for rank in (2, 3)):
        time.sleep(0.01)
    turns = NodeTurns(job, node(0))
    turns.give("notes")  # as it did before
    turns.end(0)


def test_node_whose_rank_fails_writes_down_a_failure_of_its_own(tmp_path: Path) -> None:
    run = new_job_run(tmp_path)
    job = run.job(kind="train", nproc_per_node=2, max_failures=0)
    NodeTurns(job.folder, node(0)).give("notes")
    place = JobPlace(job="7", node=1, num_nodes=2, head="127.0.0.1")
    training = run.training("last-fails", num_nodes=2)
    assert run_job(job.path, place, trainings=lambda *_: [training]) == FAILED
    assert [path.name for path in job.folder.glob("failures*")] == ["failures-0-node1.json"]


def test_node_ends_with_the_exit_code_of_a_head_that_refuses(tmp_path: Path) -> None:
    job = new_job_run(tmp_path).job("discover", kind="train")
    with pytest.raises(ValueError, match="records/notes, which is not finished"):
        run_job(job.path, node(0), trainings=lambda *_: [])
    assert run_job(job.path, node(1), trainings=lambda *_: []) == FAILED


def test_node_ends_with_the_exit_code_that_the_head_gives(tmp_path: Path) -> None:
    job = new_job_run(tmp_path).job(kind="train")
    for code in (0, 1, 2, 75):
        NodeTurns(job.folder, node(0)).end(code)
        assert run_job(job.path, node(1), trainings=lambda *_: []) == code


def test_ranks_of_a_node_are_ended_when_another_node_has_failed(tmp_path: Path) -> None:
    run = new_job_run(tmp_path)
    job = run.job(kind="train", nproc_per_node=1, max_failures=1)
    other = JobFailures(job.folder, node(1), 1)

    def fail() -> None:
        while not (tmp_path / "ranks").exists():
            time.sleep(0.01)
        other.add(9, "rank 1 of the training ended with exit code 9")

    failing = threading.Thread(target=fail)
    failing.start()
    head = JobPlace(job="7", node=0, num_nodes=2, head="127.0.0.1")
    training = run.training("last-fails", num_nodes=2)  # rank 0 goes on for ever
    assert run_job(job.path, head, trainings=lambda *_: [training]) == RUN_AGAIN
    failing.join()
    assert [path.name for path in job.folder.glob("failures*")] == ["failures-0-node1.json"]
    assert NodeTurns(job.folder, node(1)).end_code == RUN_AGAIN


def test_node_that_is_told_to_end_waits_for_the_head_which_may_be_saving(tmp_path: Path) -> None:
    run = new_job_run(tmp_path)
    job = run.job(kind="train", nproc_per_node=1)
    head = NodeTurns(job.folder, node(0))
    head.give("notes")

    def tell() -> None:
        while not (tmp_path / "waiting").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)
        head.end(0)

    telling = threading.Thread(target=tell)
    telling.start()
    place = JobPlace(job="7", node=1, num_nodes=2, head="127.0.0.1")
    training = run.training("waits", num_nodes=2)
    assert run_job(job.path, place, trainings=lambda *_: [training]) == 0
    telling.join()
