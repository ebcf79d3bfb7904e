"""Runs jobs side by side and gives their outcomes back in order.

A job that the clock ended although it had hardly computed may have waited for other jobs. It is run
once more with nothing beside it, and that outcome counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from threading import Condition

from mira_megatron.eval.sandbox.contract import Job, Outcome, Sandbox

CONTENDED_FRACTION = 0.5
# Jobs that may be done before an earlier one is: what is held is this many outcomes per worker.
_WINDOW_PER_WORKER = 64


def run_jobs(
    sandbox: Sandbox,
    jobs: Iterable[Job],
    workers: int,
    is_contended: Callable[[Job, Outcome], bool] | None = None,
) -> Iterator[Outcome]:
    """Yields one outcome per job, in order.

    Jobs are taken from the iterable as they are needed, 64 per worker ahead of the one that is
    yielded next. `is_contended` says which outcomes are not believed; by default `may_have_waited`.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be 1 or more")
    runner = _Runner(sandbox, is_contended or may_have_waited)
    waiting: deque[Future[Outcome]] = deque()
    left = iter(jobs)
    with ThreadPoolExecutor(workers, thread_name_prefix="sandbox") as pool:
        try:
            while True:
                room = _WINDOW_PER_WORKER * workers - len(waiting)
                waiting.extend(pool.submit(runner.run, job) for job in islice(left, room))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def may_have_waited(job: Job, outcome: Outcome) -> bool:
    """True = the clock ended it with less than half of the time computed."""
    computed_enough = outcome.cpu_seconds >= CONTENDED_FRACTION * job.limits.wall_seconds
    return outcome.is_timed_out and not computed_enough


class _Runner:
    """Jobs that share the machine, and now and then one that has it alone."""

    def __init__(self, sandbox: Sandbox, is_contended: Callable[[Job, Outcome], bool]) -> None:
        self.sandbox = sandbox
        self.is_contended = is_contended
        self.changed = Condition()
        self.num_running = 0
        self.num_wanting_alone = 0
        self.is_one_alone = False

    def run(self, job: Job) -> Outcome:
        with self.among_others():
            outcome = self.sandbox.run(job)
        if not self.is_contended(job, outcome):
            return outcome
        with self.alone():
            return replace(self.sandbox.run(job), num_runs=2)

    @contextmanager
    def among_others(self) -> Iterator[None]:
        with self.changed:
            # Who wants to be alone goes first, or would wait as long as there are others.
            self.changed.wait_for(lambda: not self.is_one_alone and not self.num_wanting_alone)
            self.num_running += 1
        try:
            yield
        finally:
            with self.changed:
                self.num_running -= 1
                self.changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self.changed:
            self.num_wanting_alone += 1
            self.changed.wait_for(lambda: not self.is_one_alone and not self.num_running)
            self.num_wanting_alone -= 1
            self.is_one_alone = True
        try:
            yield
        finally:
            with self.changed:
                self.is_one_alone = False
                self.changed.notify_all()
