"""launchers/slurm/score_array.sh on a real SLURM: elements share, die and are made up for."""

from __future__ import annotations

import os
import signal
import sys
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_teacher import FakeTeacher, serving
from gated_scorer import GatedScorer
from shared_smoke import IN_FLIGHT, NUM_PARTS, NUM_RECORDS, SharedSmoke, asks
from slurm_cluster import SlurmCluster, wait_until
from smoke_runs import assert_done, mira
from tiny_chat_model import write_tiny_chat_model

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[2] / "launchers" / "slurm" / "score_array.sh"
# `mira`, as an activated environment has it on PATH.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def submit(slurm: SlurmCluster, elements: str, *words: str, **environment: str) -> str:
    """Returns the job of an array that scores; what its elements write lies in `logs`."""
    log = f"--output={slurm.folder}/%A_%a.log"
    return slurm.submit(
        f"--array={elements}", log, "--chdir=/", SCRIPT, *words, PATH=PATH, **environment
    )


def logs(slurm: SlurmCluster, job: str) -> str:
    return "\n".join(path.read_text() for path in sorted(slurm.folder.glob(f"{job}_*.log")))


def assert_all_done(slurm: SlurmCluster, job: str, num_elements: int) -> None:
    done = {f"{job}_{number}": "COMPLETED" for number in range(num_elements)}
    assert slurm.wait(job) == done, logs(slurm, job)


def wait_for(slurm: SlurmCluster, job: str, scorer: GatedScorer, num_workers: int) -> None:
    """Waits until so many workers have all the requests open that they may."""
    wait_until(
        lambda: scorer.num_waiting >= num_workers * IN_FLIGHT,
        lambda: f"{scorer.num_waiting} wait; {slurm.jobs(job)}\n{logs(slurm, job)}",
        is_over=lambda: slurm.has_ended(job),
    )


@pytest.fixture(scope="module")
def by_rules(anchored_smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns the digests of a run that the rule judge scored in one process."""
    run = SharedSmoke.copy(anchored_smoke, tmp_path_factory.mktemp("alone") / "run")
    assert_done(mira("score", *run.words))
    return run.digests()


@pytest.fixture(scope="module")
def by_endpoint(anchored_smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns the digests of a run that an endpoint scored, asked by one process."""
    with serving(FakeTeacher()) as scorer:
        folder = tmp_path_factory.mktemp("alone") / "run"
        run = SharedSmoke.copy(anchored_smoke, folder, asks(scorer.url))
        assert_done(mira("score", *run.words))
    return run.digests()


def test_array_scores_what_one_process_does(
    slurm: SlurmCluster, anchored_smoke: Path, by_rules: dict[str, str], tmp_path: Path
) -> None:
    run = SharedSmoke.copy(anchored_smoke, tmp_path / "run")
    job = submit(slurm, "0-2", *run.words)
    assert_all_done(slurm, job, 3)
    assert run.digests() == by_rules
    assert_all_done(slurm, submit(slurm, "0-1", *run.words), 2)  # there is nothing left to do


def test_elements_killed_and_cancelled_are_made_up_for_by_the_same_command(
    slurm: SlurmCluster,
    anchored_smoke: Path,
    by_endpoint: dict[str, str],
    gated_scorer: GatedScorer,
    tmp_path: Path,
) -> None:
    run = SharedSmoke.copy(anchored_smoke, tmp_path / "run", asks())
    gated_scorer.seconds_per_answer = 0.02
    job = submit(slurm, "0-1", *run.words, MIRA_ENDPOINTS=gated_scorer.url)
    wait_until(
        lambda: len(run.ratings()) >= 2,
        lambda: logs(slurm, job),
        is_over=lambda: slurm.has_ended(job),
    )
    gated_scorer.gate.clear()
    wait_for(slurm, job, gated_scorer, 2)
    os.kill(run.owner_of(f"{job}_0"), signal.SIGKILL)
    slurm.command("scancel", f"{job}_1")
    wait_until(
        lambda: "stopping. Waiting" in logs(slurm, job),
        lambda: logs(slurm, job),
        is_over=lambda: slurm.has_ended(job),
    )
    gated_scorer.gate.set()
    assert slurm.wait(job) == {f"{job}_0": "FAILED", f"{job}_1": "CANCELLED"}
    assert slurm.jobs(job)[f"{job}_0"].exit_code == 128 + signal.SIGKILL
    kept = run.stamps()
    assert 2 <= len(kept) < NUM_PARTS
    # The one that was told to end gave back what it had not finished; the other could not.
    held = {owner["job"]: claim.stat().st_mtime for claim, owner in run.claims()}
    assert held[f"{job}_1"] == 0 < held[f"{job}_0"]
    assert "parts missing, 0 of them claimed by workers that are alive" in run.missing
    again = submit(slurm, "0-1", *run.words, MIRA_ENDPOINTS=gated_scorer.url)
    assert_all_done(slurm, again, 2)
    assert run.missing == ""
    assert {name: run.stamps()[name] for name in kept} == kept
    assert run.digests() == by_endpoint
    # Only what the killed one had in flight was asked for again.
    assert gated_scorer.asked.total() <= NUM_RECORDS + IN_FLIGHT


def test_element_suspended_and_taken_for_dead_does_not_count_twice(
    slurm: SlurmCluster,
    anchored_smoke: Path,
    by_endpoint: dict[str, str],
    gated_scorer: GatedScorer,
    tmp_path: Path,
) -> None:
    run = SharedSmoke.copy(anchored_smoke, tmp_path / "run", asks(gated_scorer.url))
    gated_scorer.gate.clear()
    late = submit(slurm, "0", *run.words)
    wait_for(slurm, late, gated_scorer, 1)
    slurm.command("scontrol", "suspend", f"{late}_0")
    for claim, _ in run.claims():
        os.utime(claim, (1, 1))  # as if it had not been touched for long
    gated_scorer.gate.set()
    assert_all_done(slurm, submit(slurm, "0-1", *run.words), 2)
    whole = run.stamps()
    slurm.command("scontrol", "resume", f"{late}_0")
    assert_all_done(slurm, late, 1)
    assert run.stamps() == whole
    assert run.digests() == by_endpoint


def test_every_element_loads_the_model_where_no_server_runs(
    slurm: SlurmCluster, anchored_smoke: Path, tmp_path: Path
) -> None:
    model = write_tiny_chat_model(tmp_path / "model")
    here = (
        f"score={{engine: transformers, model_path: '{model}', max_tokens: 4, "
        "max_model_len: 3250, max_failed_fraction: 1.0}"
    )
    alone = SharedSmoke.copy(anchored_smoke, tmp_path / "alone", here)
    array = SharedSmoke.copy(anchored_smoke, tmp_path / "array", here)
    assert_done(mira("score", *alone.words))
    assert_all_done(slurm, submit(slurm, "0-1", *array.words), 2)
    assert array.digests() == alone.digests()
    ends = [pq.read_table(part)["status"].to_pylist() for part in array.ratings().values()]
    assert {"unparsed", "too_long"} <= set(chain.from_iterable(ends))  # some were answered
