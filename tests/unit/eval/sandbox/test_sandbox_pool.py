from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sandboxed_jobs import LIMITS, limited, python_job

from mira_megatron.eval.sandbox.contract import Job, Outcome, Sandbox
from mira_megatron.eval.sandbox.pool import may_have_waited, run_jobs

DONE = Outcome(
    exit_code=0,
    signal=None,
    is_timed_out=False,
    is_out_of_memory=False,
    cpu_seconds=0,
    wall_seconds=0,
    peak_bytes=0,
    stdout=b"",
    stderr=b"",
    num_output_bytes=0,
    results=b"",
    num_result_bytes=0,
    isolation=3,
)
WAITED = replace(DONE, exit_code=None, signal=9, is_timed_out=True, cpu_seconds=1)


def jobs(num: int) -> list[Job]:
    """Returns jobs that are told apart by their first word."""
    return [Job(argv=(str(index),), limits=LIMITS) for index in range(num)]


class StandIn:
    """Answers as it is told; a job named in `held` waits until it is let go."""

    level = 3

    def __init__(self, held: set[str] | None = None) -> None:
        self.held = held or set()
        self.let_go = threading.Event()
        self.held_started = threading.Event()
        self.others_done = threading.Event()
        self.num_running = 0
        self.seen: list[tuple[str, int]] = []  # job and how many ran, itself included
        self.first: dict[str, Outcome] = {}  # given once, and not before a held job runs
        self.lock = threading.Lock()

    def run(self, job: Job) -> Outcome:
        name = job.argv[0]
        with self.lock:
            self.num_running += 1
            self.seen.append((name, self.num_running))
            outcome = self.first.pop(name, DONE)
            if len(self.seen) >= 20:
                self.others_done.set()
        if outcome is not DONE and self.held:
            assert self.held_started.wait(60)
        if name in self.held:
            self.held_started.set()
            assert self.let_go.wait(60)
        with self.lock:
            self.num_running -= 1
        return replace(outcome, stdout=name.encode())


def test_outcomes_come_in_the_order_of_the_jobs(sandbox: Sandbox) -> None:
    programs = [f"import time; time.sleep({0.3 if i == 0 else 0}); print({i})" for i in range(5)]
    outcomes = run_jobs(sandbox, map(python_job, programs), workers=3)
    assert [outcome.stdout for outcome in outcomes] == [b"%d\n" % i for i in range(5)]


def test_slow_job_stalls_no_other() -> None:
    stand_in = StandIn(held={"0"})
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.extend(run_jobs(stand_in, jobs(30), 2)))
    thread.start()
    assert stand_in.others_done.wait(60)
    stand_in.let_go.set()
    thread.join(60)
    assert [outcome.stdout for outcome in outcomes] == [b"%d" % i for i in range(30)]


def test_jobs_are_taken_as_they_are_needed() -> None:
    num_taken = 0

    def endless() -> Iterator[Job]:
        nonlocal num_taken
        while True:
            num_taken += 1
            yield Job(argv=("x",), limits=LIMITS)

    outcomes = run_jobs(StandIn(), endless(), workers=2)
    for _ in range(10):
        next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert num_taken <= 2 * 64 + 10


def test_job_that_may_have_waited_is_run_again_alone() -> None:
    stand_in = StandIn()
    stand_in.first = {"3": WAITED, "4": WAITED}
    outcomes = list(run_jobs(stand_in, jobs(10), workers=4))
    assert [outcome.num_runs for outcome in outcomes] == [1, 1, 1, 2, 2, 1, 1, 1, 1, 1]
    assert not any(outcome.is_timed_out for outcome in outcomes)
    again = [num_running for name, num_running in stand_in.seen if name in "34"][-2:]
    assert 1 in again


def test_second_runs_have_nothing_beside_them() -> None:
    stand_in = StandIn()
    stand_in.first = {str(index): WAITED for index in range(20)}
    list(run_jobs(stand_in, jobs(20), workers=4))
    seen: set[str] = set()
    for name, num_running in stand_in.seen:
        assert num_running == 1 or name not in seen
        seen.add(name)


def test_second_run_waits_for_those_that_run() -> None:
    stand_in = StandIn(held={"1"})
    stand_in.first = {"0": WAITED}
    # Long enough for a second run that does not wait to start.
    letting_go = threading.Timer(0.3, stand_in.let_go.set)
    letting_go.start()
    list(run_jobs(stand_in, jobs(2), workers=2))
    assert stand_in.seen[-1] == ("0", 1)
    assert len(stand_in.seen) == 3


def test_second_timeout_counts() -> None:
    stand_in = StandIn()
    outcomes = run_jobs(stand_in, jobs(1), 1, is_contended=lambda job, outcome: True)
    assert [outcome.num_runs for outcome in outcomes] == [2]
    assert len(stand_in.seen) == 2


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (DONE, False),
        (WAITED, True),
        (replace(WAITED, cpu_seconds=16), False),  # of 30 s
        (replace(DONE, exit_code=1), False),
    ],
)
def test_only_time_that_was_not_computed_is_contended(outcome: Outcome, expected: bool) -> None:
    assert may_have_waited(jobs(1)[0], outcome) is expected


def test_sleeping_program_is_run_twice_for_real(sandbox: Sandbox) -> None:
    job = python_job("import time; time.sleep(300)", limits=limited(wall_seconds=0.5))
    (outcome,) = run_jobs(sandbox, [job], workers=1)
    assert (outcome.is_timed_out, outcome.num_runs) == (True, 2)


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers=0"):
        list(run_jobs(StandIn(), [], workers=0))
