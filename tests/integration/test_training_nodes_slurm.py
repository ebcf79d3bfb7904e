"""A training on two nodes of a real SLURM, each with a `mira job` of its own.

Four ranks that find each other and add up; what they train is played (training_job.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from job_runs import JobRun, new_job_run
from marked_processes import MARK
from slurm_cluster import SlurmCluster, running_slurm, wait_until
from training_job import TRAINING

from mira_megatron.launchers.cluster import load_cluster
from mira_megatron.launchers.job_failures import Failure, read_failures
from mira_megatron.launchers.job_graph import PlannedJob
from mira_megatron.launchers.sbatch import sbatch_script, sbatch_words
from mira_megatron.launchers.stage_needs import StageNeeds

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
ONE_MACHINE = HERE.parents[1] / "launchers" / "clusters" / "one_machine.yaml"
RANKS_OF_NODE = {"0": (0, 1), "1": (2, 3)}


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[SlurmCluster]:
    """A real SLURM of two nodes."""
    with running_slurm(num_cpus=2, num_nodes=2) as cluster:
        yield cluster


class Sent:
    """A training that was sent to two nodes."""

    def __init__(
        self, slurm: SlurmCluster, folder: Path, behaviour: str, max_failures: int = 0
    ) -> None:
        self.slurm, self.run = slurm, new_job_run(folder)
        (folder / "train.py").write_text(TRAINING)
        file = self.run.job(kind="train", nproc_per_node=2, max_failures=max_failures)
        self.folder = file.folder
        needs = StageNeeds(
            kind="train", nodes=2, gpus=0, cpus=1, time="00:10:00", partition="", server=None
        )
        job = PlannedJob(
            name="ingest",
            stage="ingest",
            only=None,
            num_units=1,
            needs=needs,
            elements=0,
            is_rest=False,
            after_ok=(),
            after_any=(),
        )
        program = (sys.executable, str(HERE / "training_job.py"), str(folder), behaviour)
        cluster = replace(
            load_cluster(ONE_MACHINE),
            commands={"default": program},
            environment=("SLURM_CONF", "PYTHONPATH", MARK),
        )
        script = self.folder / "script.sh"
        script.write_text(sbatch_script(job, file, cluster, folder))
        path = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "PYTHONPATH": str(HERE.parents[1])}
        self.number = slurm.command(*sbatch_words(script, job, {}), **path).strip()

    def ended(self) -> str:
        """Returns the state in which the job has ended."""
        return self.slurm.wait(self.number)[self.number]

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("log-*"))

    def ranks(self, attempt: int) -> dict[int, tuple[str, int]]:
        """Returns the node of every rank, and the step that it began with."""
        found = self.run.folder.glob(f"ran-{attempt}-*")
        words = {int(path.name.rpartition("-")[2]): path.read_text().split() for path in found}
        return {rank: (node, int(step)) for rank, (node, step) in words.items()}

    def failures(self) -> list[Failure]:
        return read_failures(self.folder)


def begun_with(step: int) -> dict[int, tuple[str, int]]:
    return {rank: (node, step) for node, ranks in RANKS_OF_NODE.items() for rank in ranks}


def assert_done(run: JobRun) -> None:
    assert run.is_done
    assert run.order.count("finished") == 1


def test_training_on_two_nodes_is_one_and_ends_well_on_both(
    two_nodes: SlurmCluster, tmp_path: Path
) -> None:
    sent = Sent(two_nodes, tmp_path, "well")
    assert sent.ended() == "COMPLETED", sent.log()
    assert sent.ranks(0) == begun_with(0)
    assert_done(sent.run)
    assert sent.run.order == ["prepared", "finished"]  # the first node's, and no other's
    assert not sent.failures()


def test_training_that_is_preempted_ends_on_both_nodes_and_goes_on(
    two_nodes: SlurmCluster, tmp_path: Path
) -> None:
    sent = Sent(two_nodes, tmp_path, "waits")
    wait_until(
        lambda: len(list(tmp_path.glob("waits-*"))) == 4,
        sent.log,
        is_over=lambda: two_nodes.has_ended(sent.number),
    )
    two_nodes.command("scancel", "--batch", "--signal=USR1", sent.number)
    assert sent.ended() == "COMPLETED", sent.log()
    assert sent.ranks(1) == begun_with(2)
    assert_done(sent.run)
    assert not sent.failures()


def test_rank_that_fails_on_the_other_node_is_one_failure_and_all_go_on(
    two_nodes: SlurmCluster, tmp_path: Path
) -> None:
    sent = Sent(two_nodes, tmp_path, "fails", max_failures=1)
    assert sent.ended() == "COMPLETED", sent.log()
    assert sent.ranks(1) == begun_with(2)
    assert_done(sent.run)
    assert {failure.restart for failure in sent.failures()} == {0}
    assert sent.run.order.count("prepared") == 2


def test_training_that_always_fails_on_one_node_ends_the_job_with_its_reason(
    two_nodes: SlurmCluster, tmp_path: Path
) -> None:
    sent = Sent(two_nodes, tmp_path, "always fails")
    assert sent.ended() == "FAILED", sent.log()
    assert two_nodes.jobs(sent.number)[sent.number].exit_code == 1
    assert not sent.run.is_done
    reasons = [failure.reason for failure in sent.failures() if failure.node == 1]
    assert reasons == ["rank 3 of the training ended with exit code 9"]
    assert "max_failures=0: not run again" in sent.log()
