"""Several `mira score --share` on one run: one row per record, and one request.

The scorer holds back its answers until as many requests wait as workers that are to be at work
make, so that no timing decides who does what.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml  # OmegaConf brings it
from fake_teacher import FakeTeacher, error, good, serving
from gated_scorer import GatedScorer
from jsonl_corpora import write_jsonl
from smoke_runs import assert_done, assert_refused, mira
from teacher_recipes import NUM_NOTES, num_stored, part_digests, run_folder, totals
from test_score_faults import RATINGS, score_recipe
from test_teacher_faults import IN_FLIGHT, kill_after, started, wait_until

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources

NOTES = range(480)
NUM_PARTS = 6


@pytest.fixture
def scorer(gated_scorer: GatedScorer) -> GatedScorer:
    return gated_scorer


def shared_recipe(folder: Path, scorer: FakeTeacher) -> Path:
    """Writes a recipe over 480 notes in 6 parts.

    A worker claims what it looks ahead to, which is one part of these or two.
    """
    path = score_recipe(folder, scorer)
    rows = [{"text": f"Note {number} of many: {number % 7 * 'and so '}on."} for number in NOTES]
    write_jsonl(folder / "notes.jsonl", rows)
    recipe = yaml.safe_load(path.read_text())
    recipe["ingest"]["records_per_part"] = len(NOTES) // NUM_PARTS
    recipe["run_folder"] = str(folder / "many")
    path.write_text(yaml.safe_dump(recipe))
    run_stages(load_recipe(path), ["ingest", "anchor"], Resources())
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns the digests of a run by one process alone."""
    with serving(FakeTeacher()) as scorer:
        recipe = shared_recipe(tmp_path_factory.mktemp("undisturbed"), scorer)
        assert_done(mira("score", recipe))
    assert len(part_digests(recipe, RATINGS)) == NUM_PARTS
    return part_digests(recipe, RATINGS)


def waiting(scorer: GatedScorer, num_requests: int, *words: object) -> subprocess.Popen[bytes]:
    """Returns a worker that was started and has its requests waiting."""
    worker = started(*words)
    wait_until(lambda: scorer.num_waiting >= num_requests, worker)
    return worker


def test_workers_share_a_run_and_ask_about_every_record_once(
    tmp_path: Path, scorer: GatedScorer, undisturbed: dict[str, str]
) -> None:
    recipe = shared_recipe(tmp_path, scorer)
    scorer.gate.clear()
    workers = [
        waiting(scorer, IN_FLIGHT * number, "score", recipe, "--share") for number in (1, 2, 3)
    ]
    in_use = mira("score", recipe)
    assert_refused(in_use, "another process is working on score notes", exit_code=75)
    scorer.gate.set()
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert part_digests(recipe, RATINGS) == undisturbed
    assert set(scorer.asked.values()) == {1}
    assert scorer.asked.total() == len(NOTES)
    assert sorted(path.name for path in (run_folder(recipe) / RATINGS).iterdir()) == [
        "manifest.json",
        *sorted(undisturbed),
    ]


def test_worker_killed_in_the_middle_is_made_up_for_by_a_fresh_one(
    tmp_path: Path, scorer: GatedScorer, undisturbed: dict[str, str]
) -> None:
    recipe = shared_recipe(tmp_path, scorer)
    scorer.seconds_per_answer = 0.02
    kill_after(60, scorer, "score", recipe, "--share")
    scorer.seconds_per_answer = 0.0
    (line,) = mira("score", recipe, "--missing").output.splitlines()
    assert line.endswith("of 6 parts missing, 0 of them claimed by workers that are alive")
    wait_until_answered(scorer)
    num_asked, num_kept = scorer.asked.total(), num_stored(recipe)
    assert num_asked - num_kept <= IN_FLIGHT
    assert_done(mira("score", recipe, "--share"))
    assert scorer.asked.total() - num_asked == len(NOTES) - num_kept
    assert part_digests(recipe, RATINGS) == undisturbed


def wait_until_answered(scorer: FakeTeacher) -> None:
    """Waits until the scorer has ended what was in flight at a kill."""
    with subprocess.Popen(["sleep", "60"]) as clock:
        wait_until(lambda: scorer._num_open == 0, clock)
        clock.kill()


def test_worker_killed_beside_another_is_made_up_for_by_that_one(
    tmp_path: Path, scorer: GatedScorer, undisturbed: dict[str, str]
) -> None:
    recipe = shared_recipe(tmp_path, scorer)
    scorer.seconds_per_answer = 0.02
    killed = started("score", recipe, "--share")
    wait_until(lambda: scorer.num_answered >= 20, killed)
    scorer.gate.clear()
    scorer.seconds_per_answer = 0.0
    wait_until(lambda: scorer.num_waiting >= IN_FLIGHT, killed)
    other = waiting(scorer, 2 * IN_FLIGHT, "score", recipe, "--share")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    scorer.gate.set()
    assert other.wait(60) == 0
    assert part_digests(recipe, RATINGS) == undisturbed
    assert scorer.asked.total() <= len(NOTES) + IN_FLIGHT


def is_stopped(pid: int) -> bool:
    """Returns whether every thread of a process stands still."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)


def test_worker_that_was_taken_for_dead_does_not_count_twice(
    tmp_path: Path, scorer: GatedScorer, undisturbed: dict[str, str]
) -> None:
    recipe = shared_recipe(tmp_path, scorer)
    folder = run_folder(recipe) / RATINGS
    scorer.gate.clear()
    late = waiting(scorer, IN_FLIGHT, "score", recipe, "--share")
    os.kill(late.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: is_stopped(late.pid), late)  # else it may go on claiming
        for claim in (folder / ".scratch/claims").glob("part-*"):
            os.utime(claim, (1, 1))  # as if it had not been touched for long
        scorer.gate.set()
        assert_done(mira("score", recipe, "--share"))
        manifest = (folder / "manifest.json").read_bytes()
        assert part_digests(recipe, RATINGS) == undisturbed
        files = {path.name: path.stat().st_ino for path in folder.iterdir()}
    finally:
        os.kill(late.pid, signal.SIGCONT)
    assert late.wait(60) == 0
    assert (folder / "manifest.json").read_bytes() == manifest
    assert totals(recipe, RATINGS) == {"ok": len(NOTES)}
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == files
    assert sorted(files) == ["manifest.json", *sorted(undisturbed)]


def test_processes_of_one_machine_share_a_stage(
    tmp_path: Path, scorer: GatedScorer, undisturbed: dict[str, str]
) -> None:
    recipe = shared_recipe(tmp_path, scorer)
    result = mira("score", recipe, "--processes=2")
    assert_done(result)
    assert part_digests(recipe, RATINGS) == undisturbed
    assert set(scorer.asked.values()) == {1}
    lines = result.output.splitlines()
    for number in (1, 2):
        assert any(line.startswith(f"[{number}] ") for line in lines), result.output


def test_processes_measure_how_far_a_judge_that_samples_repeats_itself(
    tmp_path: Path, scorer: GatedScorer
) -> None:
    recipe = shared_recipe(tmp_path, scorer)
    sampled = ("score.temperature=0.7", "score.retest_records=20")
    assert_done(mira("score", recipe, *sampled, "--processes=3"))
    assert totals(recipe, RATINGS) == {"ok": len(NOTES)}
    (manifest,) = run_folder(recipe).glob("retest/**/manifest.json")
    assert json.loads(manifest.read_bytes())["counts"]["num_in"] == 20
    another = ("score.temperature=0.7", "score.retest_records=10")
    assert_done(mira("score", recipe, *another))
    assert json.loads(manifest.read_bytes())["counts"]["num_in"] == 10


def test_too_many_failures_of_all_workers_together_are_refused_and_asked_again_alone(
    tmp_path: Path, scorer: GatedScorer
) -> None:
    recipe = score_recipe(tmp_path, scorer)
    allowed = "score.max_failed_fraction=0.3"
    scorer.fault = lambda asked, text: (error(500) if asked.number % 2 else good)(asked, text)
    for _ in range(2):
        assert_refused(mira("score", recipe, allowed, "--share"), "max_failed_fraction=0.3")
    scorer.fault = good
    assert_done(mira("score", recipe, allowed))
    assert totals(recipe, RATINGS) == {"ok": NUM_NOTES}
    assert_refused(mira("score", recipe, "--processes=0"), "--processes 0 must be at least 1")
