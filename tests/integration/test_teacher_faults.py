"""A teacher that fails: typed failures, no answer lost or paid for twice, a ceiling that holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_teacher import (
    FakeTeacher,
    by_record,
    chinese,
    error,
    garbage,
    good,
    half,
    number_of,
    refusal,
    serving,
    silence,
)
from smoke_runs import assert_done, assert_refused, mira
from teacher_recipes import (
    JUDGMENTS,
    NUM_NOTES,
    RATINGS,
    num_stored,
    part_digests,
    rows,
    teacher_recipe,
    totals,
    with_given_anchors,
)

# Each fault, and what becomes of a record whose teacher has it.
FAULTS = {
    good: "ok",
    garbage: "unparsed",
    refusal: "refused",
    half: "partial",
    chinese: "ok",
    silence: "failed: timeout",
    error(500): "failed: http_500",
    error(400): "failed: http_400",
    error(429, until_attempt=2, **{"Retry-After": "1"}): "ok",
    error(500, until_attempt=2): "ok",
}

IN_FLIGHT = 4  # as teacher_section has it


@pytest.fixture
def teacher() -> Iterator[FakeTeacher]:
    with serving(FakeTeacher()) as teacher:
        yield teacher


def test_discovery_by_a_teacher_with_every_fault_ends_with_its_failures_counted(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    teacher.fault = by_record(*FAULTS)
    recipe = teacher_recipe(tmp_path, teacher, timeout_seconds=2.0, max_in_flight=16)
    assert_done(mira("discover", recipe))
    assert totals(recipe, JUDGMENTS) == expected_totals(teacher)
    answers = rows(recipe, JUDGMENTS, "answers").to_pylist()
    assert len(answers) == NUM_NOTES
    judgments = Counter(rows(recipe, JUDGMENTS)["record_id"].to_pylist())
    for answer in answers:
        assert answer["num_judgments"] == judgments[answer["record_id"]]
        assert (answer["num_judgments"] > 0) == (answer["status"] in ("ok", "partial"))
        assert (answer["reason"] is None) == (answer["status"] == "ok")


def test_labelling_by_a_teacher_with_every_fault_ends_with_its_failures_counted(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    teacher.fault = by_record(*FAULTS)
    recipe = teacher_recipe(tmp_path, teacher, timeout_seconds=2.0, max_in_flight=16)
    assert_done(mira("label", with_given_anchors(recipe)))
    found = totals(recipe, RATINGS)
    assert found.pop("distill") + found.pop("reliability") == NUM_NOTES
    assert found == expected_totals(teacher)
    for rating in rows(recipe, RATINGS).to_pylist():
        has_scores = any(score is not None for score in rating["scores"])
        assert has_scores == (rating["status"] in ("ok", "partial"))


def test_answer_in_chinese_is_read_and_its_reasoning_is_not(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    teacher.fault = chinese
    recipe = teacher_recipe(tmp_path, teacher)
    assert_done(mira("discover", recipe))
    assert_done(mira("label", with_given_anchors(recipe)))
    judgments = rows(recipe, JUDGMENTS)
    assert set(judgments["score"].to_pylist()) == {7.0}
    assert "命名规范" in judgments["dimension"].to_pylist()
    ratings = rows(recipe, RATINGS)
    assert {score for scores in ratings["scores"].to_pylist() for score in scores} == {7.0}
    assert set(ratings["reasoning"].to_pylist()) == {"[A1] x: 1/10 — 草稿"}


def test_unreadable_answers_are_asked_for_again_at_most_so_often(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    teacher.fault = garbage
    recipe = teacher_recipe(tmp_path, teacher, max_attempts=3)
    assert_done(mira("discover", recipe))
    assert teacher.asked.total() == 3 * NUM_NOTES
    assert set(rows(recipe, JUDGMENTS, "answers")["num_attempts"].to_pylist()) == {3}
    assert totals(recipe, JUDGMENTS) == {"unparsed": NUM_NOTES}


def test_more_failures_than_allowed_stop_with_a_message_and_lose_no_answer(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    teacher.fault = by_record(good, good, good, error(500))
    recipe = teacher_recipe(tmp_path, teacher, max_failed_fraction=0.1)
    refused = mira("discover", recipe)
    assert_refused(
        refused, "discover notes", f"of {NUM_NOTES} records", "http_500", "max_failed_fraction=0.1"
    )
    assert num_stored(recipe) == teacher.num_answered > 0
    teacher.fault = good
    assert_done(mira("discover", recipe))
    assert totals(recipe, JUDGMENTS) == {"ok": NUM_NOTES}
    assert num_stored(recipe) == teacher.num_answered == NUM_NOTES


def test_endpoint_that_is_not_there_is_named_at_once(tmp_path: Path, teacher: FakeTeacher) -> None:
    recipe = teacher_recipe(tmp_path, teacher, max_failed_fraction=0.1)
    dead = "http://127.0.0.1:9/v1"
    refused = mira("discover", recipe, f"teacher.endpoints=[{dead}]")
    assert_refused(refused, "failed: connection", f"Nothing usable came from {dead}")


def test_killed_and_run_again_sends_no_answered_request_twice(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    undisturbed = teacher_recipe(tmp_path / "undisturbed", teacher)
    assert_done(mira("discover", undisturbed))
    recipe = teacher_recipe(tmp_path / "killed", teacher)
    teacher.asked.clear()
    teacher.num_answered, teacher.seconds_per_answer = 0, 0.05
    for num_kills, num_answered in enumerate((15, 30, 45), start=1):
        kill_after(num_answered, teacher, "discover", recipe)
        time.sleep(0.2)  # the teacher ends what was in flight
        assert teacher.asked.total() - num_stored(recipe) <= IN_FLIGHT * num_kills
    num_asked, num_kept = teacher.asked.total(), num_stored(recipe)
    assert_done(mira("discover", recipe))
    assert teacher.asked.total() - num_asked == NUM_NOTES - num_kept
    assert num_stored(recipe) == NUM_NOTES
    assert part_digests(recipe, JUDGMENTS) == part_digests(undisturbed, JUDGMENTS)


def test_spend_ceiling_stops_and_a_raised_one_goes_on_without_repeating(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    # An answer costs 100 + 50 tokens; before it is there, its prompt's bytes + 2,048 tokens.
    prices = {"price_per_million_prompt_tokens": 1000, "price_per_million_output_tokens": 1000}
    recipe = teacher_recipe(tmp_path, teacher, spend_ceiling=10, **prices)
    refused = mira("discover", recipe)
    assert_refused(refused, "spend_ceiling=10.0", f"of {NUM_NOTES} records are left to ask")
    assert 0 < num_stored(recipe) * 0.15 <= 10
    assert num_stored(recipe) == teacher.asked.total() < NUM_NOTES
    assert_refused(mira("discover", recipe), "spend_ceiling=10.0")
    assert_done(mira("discover", recipe, "teacher.spend_ceiling=100"))
    assert set(teacher.asked.values()) == {1}


def test_record_that_failed_in_an_interrupted_run_is_asked_about_by_the_next(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    prices = {"price_per_million_prompt_tokens": 1000, "price_per_million_output_tokens": 1000}
    recipe = teacher_recipe(tmp_path, teacher, spend_ceiling=10, **prices)
    teacher.fault = by_record(good, good, error(400))
    assert_refused(mira("discover", recipe), "spend_ceiling=10.0")
    parts = (tmp_path / "recipe" / JUDGMENTS).glob("answers-*.parquet")
    assert "failed" in {status for part in parts for status in statuses(part)}
    teacher.fault = good
    assert_done(mira("discover", recipe, "teacher.spend_ceiling=100"))
    assert totals(recipe, JUDGMENTS) == {"ok": NUM_NOTES}


def test_spend_ceiling_holds_over_runs_that_are_killed_and_requests_without_an_answer(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    # At most the prompt's bytes + 2,048 tokens each: four in flight, or one more after any run.
    prices = {"price_per_million_prompt_tokens": 0, "price_per_million_output_tokens": 1000}
    recipe = teacher_recipe(tmp_path, teacher, spend_ceiling=10, **prices)
    teacher.fault = silence
    process = started("discover", recipe)
    wait_until(lambda: teacher.asked.total() == IN_FLIGHT, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert_refused(mira("discover", recipe), "8.1920 of spend_ceiling=10.0 is spent")
    assert teacher.asked.total() == IN_FLIGHT


def test_interrupted_run_keeps_what_is_in_flight(tmp_path: Path, teacher: FakeTeacher) -> None:
    recipe = teacher_recipe(tmp_path, teacher)
    teacher.seconds_per_answer = 0.3
    process = started("discover", recipe)
    wait_until(lambda: teacher.asked.total() >= 2 * IN_FLIGHT, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert num_stored(recipe) == teacher.asked.total() < NUM_NOTES


def test_terminated_run_keeps_what_is_in_flight_and_asks_nothing_twice(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    recipe = teacher_recipe(tmp_path, teacher)
    teacher.seconds_per_answer = 0.5
    process = started("discover", recipe)
    wait_until(lambda: teacher.asked.total() >= 2 * IN_FLIGHT, process)
    for _ in range(3):  # srun and a script's trap may both pass it on
        process.terminate()
        time.sleep(0.02)
    assert process.wait() == 128 + signal.SIGTERM
    num_answered = teacher.asked.total()
    assert num_stored(recipe) == num_answered < NUM_NOTES
    teacher.seconds_per_answer = 0.0
    assert_done(mira("discover", recipe))
    assert set(teacher.asked.values()) == {1}
    assert teacher.asked.total() == NUM_NOTES


def test_terminated_run_that_a_script_started_in_the_background_keeps_what_is_in_flight(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    recipe = teacher_recipe(tmp_path, teacher)
    teacher.seconds_per_answer = 0.5
    process = started("discover", recipe, on_interrupt=signal.SIG_IGN)
    wait_until(lambda: teacher.asked.total() >= 2 * IN_FLIGHT, process)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert num_stored(recipe) == teacher.asked.total() < NUM_NOTES


def test_terminated_run_ends_at_once_when_it_is_interrupted_then(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    recipe = teacher_recipe(tmp_path, teacher, timeout_seconds=600)
    teacher.fault = silence
    process = started("discover", recipe)
    wait_until(lambda: teacher.asked.total() >= IN_FLIGHT, process)
    process.terminate()
    time.sleep(0.2)
    assert process.poll() is None  # it waits for answers
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGTERM


def test_answers_folder_that_another_process_asks_with_is_refused(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    answers = f"teacher.answers_folder={tmp_path / 'shared'}"
    recipes = [teacher_recipe(tmp_path / name, teacher) for name in ("one", "other")]
    assert_done(mira("status", recipes[1], answers))  # the first command may take its time
    teacher.seconds_per_answer = 0.3
    process = started("discover", recipes[0], answers)
    wait_until(lambda: teacher.asked.total() >= 1, process)
    in_use = mira("discover", recipes[1], answers)
    assert_refused(in_use, "another process", "answers_folder", exit_code=75)
    process.send_signal(signal.SIGINT)
    process.wait()
    teacher.seconds_per_answer = 0.0
    assert_done(mira("discover", recipes[1], answers))
    assert set(teacher.asked.values()) == {1}


def expected_totals(teacher: FakeTeacher) -> dict[str, int]:
    """Returns how many of the records asked about are to end how."""
    outcomes = list(FAULTS.values())
    prompts = {prompt for prompt, _ in teacher.asked}
    return dict(Counter(outcomes[number_of(prompt) % len(outcomes)] for prompt in prompts))


def statuses(part: Path) -> list[str]:
    return list(pq.read_table(part, columns=["status"])["status"].to_pylist())


def kill_after(num_answered: int, teacher: FakeTeacher, *words: object) -> None:
    """Runs `mira` until the teacher has answered so often, and ends it as kill -9 does."""
    process = started(*words)
    try:
        wait_until(lambda: teacher.num_answered >= num_answered, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def started(
    *words: object,
    on_interrupt: Callable[[int, FrameType | None], Any] | int = signal.default_int_handler,
) -> subprocess.Popen[bytes]:
    """Returns a running `mira`, in a process group of its own."""
    # A shell's background job ignores interrupts, and what it starts inherits that.
    before = signal.signal(signal.SIGINT, on_interrupt)
    command = [sys.executable, "-m", "mira_megatron.cli", *map(str, words), "--workers=1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    return process


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Waits while the process runs."""
    while not is_so():
        assert process.poll() is None, "the run ended too early"
        time.sleep(0.005)
