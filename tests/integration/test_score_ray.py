"""`mira score --ray` on a real Ray: tasks share, die and are started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_teacher import FakeTeacher, serving
from gated_scorer import GatedScorer
from ray_cluster import RayCluster, running_ray
from shared_smoke import IN_FLIGHT, NUM_RECORDS, SharedSmoke, asks
from slurm_cluster import wait_until
from smoke_runs import assert_done, mira
from vllm_server import free_port

pytestmark = pytest.mark.integration

KEYED = "score.api_key_env=SMOKE_KEY"
KEY = {"SMOKE_KEY": "known to the driver alone"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with running_ray(num_cpus=4) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alone(anchored_smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns the digests of a run that one process scored."""
    with serving(FakeTeacher()) as scorer:
        folder = tmp_path_factory.mktemp("alone") / "run"
        run = SharedSmoke.copy(anchored_smoke, folder, asks(scorer.url))
        assert_done(mira("score", *run.words))
    return run.digests()


def wait_for(is_so: Callable[[], bool], driver: subprocess.Popen[bytes], output: Path) -> None:
    """Waits while the driver runs."""
    wait_until(is_so, output.read_text, is_over=lambda: driver.poll() is not None)


def owners(run: SharedSmoke) -> set[int]:
    """Returns the processes that have claims on parts not there yet, and are alive."""
    pids = {int(owner["pid"]) for _, owner in run.claims()}
    return {pid for pid in pids if _parent(pid) > 0}


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    state, parent = stat.rpartition(")")[2].split()[:2]
    return 0 if state == "Z" else int(parent)


def test_tasks_that_die_are_started_again_and_the_result_is_that_of_one_process(
    cluster: RayCluster,
    anchored_smoke: Path,
    alone: dict[str, str],
    gated_scorer: GatedScorer,
    tmp_path: Path,
) -> None:
    run = SharedSmoke.copy(anchored_smoke, tmp_path / "run", asks(gated_scorer.url))
    gated_scorer.gate.clear()
    output = tmp_path / "driver.log"
    driver = cluster.driver(output, "score", *run.words, KEYED, "--processes=2", **KEY)
    wait_for(lambda: gated_scorer.num_waiting >= 2 * IN_FLIGHT, driver, output)
    of_mira, of_ray = sorted(owners(run))
    os.kill(of_mira, signal.SIGKILL)
    os.kill(_parent(of_ray), signal.SIGKILL)
    wait_for(lambda: output.read_text().count("started again") == 2, driver, output)
    gated_scorer.gate.set()
    assert driver.wait(300) == 0, output.read_text()
    said = output.read_text()
    assert "was ended by signal 9; started again" in said
    assert "died (WorkerCrashedError); started again" in said
    for number in (1, 2):
        assert any(line.startswith(f"[{number}] ") for line in said.splitlines()), said
    assert run.digests() == alone
    # Only what the one had in flight that nobody could tell to end was asked for again.
    assert gated_scorer.asked.total() <= NUM_RECORDS + IN_FLIGHT
    assert gated_scorer.api_keys == set(KEY.values())
    assert KEY["SMOKE_KEY"] not in said


def test_interrupt_ends_all_tasks_with_what_is_in_flight_kept(
    cluster: RayCluster,
    anchored_smoke: Path,
    alone: dict[str, str],
    gated_scorer: GatedScorer,
    tmp_path: Path,
) -> None:
    run = SharedSmoke.copy(anchored_smoke, tmp_path / "run", asks(gated_scorer.url))
    gated_scorer.gate.clear()
    output = tmp_path / "driver.log"
    driver = cluster.driver(output, "score", *run.words, "--processes=2")
    wait_for(lambda: gated_scorer.num_waiting >= 2 * IN_FLIGHT, driver, output)
    workers = owners(run)
    assert len(workers) == 2
    os.kill(driver.pid, signal.SIGINT)
    # Both have heard it: of them, not of the driver.
    wait_for(lambda: output.read_text().count("stopping. Waiting") == 2, driver, output)
    gated_scorer.gate.set()
    assert driver.wait(300) == 130, output.read_text()
    assert [_parent(pid) for pid in workers] == [0, 0]
    assert {claim.stat().st_mtime for claim, _ in run.claims()} == {0}  # given back
    num_asked = gated_scorer.asked.total()
    assert 2 * IN_FLIGHT <= num_asked < NUM_RECORDS
    assert_done(mira("score", *run.words))
    assert run.digests() == alone
    assert gated_scorer.asked.total() == NUM_RECORDS


def test_task_that_dies_again_and_again_is_given_up(
    cluster: RayCluster, anchored_smoke: Path, gated_scorer: GatedScorer, tmp_path: Path
) -> None:
    run = SharedSmoke.copy(anchored_smoke, tmp_path / "run", asks(gated_scorer.url))
    gated_scorer.gate.clear()
    output = tmp_path / "driver.log"
    driver = cluster.driver(output, "score", *run.words, "--processes=1")
    killed: set[int] = set()

    def kill_worker() -> bool:
        for pid in owners(run) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return driver.poll() is not None

    wait_until(kill_worker, output.read_text)
    assert driver.returncode == 1
    assert len(killed) == 1 + 3 + 3  # at first, as a task again, and for what is left
    assert "workers died too often" in output.read_text()
    assert "0 of them claimed by workers that are alive" in run.missing


def test_cluster_that_is_not_there_is_told(
    cluster: RayCluster, anchored_smoke: Path, tmp_path: Path
) -> None:
    run = SharedSmoke.copy(anchored_smoke, tmp_path / "run")
    output = tmp_path / "driver.log"
    nowhere = replace(cluster, address=f"127.0.0.1:{free_port()}")
    driver = nowhere.driver(output, "score", *run.words)
    assert driver.wait(300) == 2, output.read_text()
    assert f"--ray {nowhere.address}: no Ray cluster" in output.read_text()
    assert "Traceback" not in output.read_text()
