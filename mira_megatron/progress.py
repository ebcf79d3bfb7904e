"""Progress of a long step: a bar on a terminal, a line now and then elsewhere.

Either says how many steps are done, how fast, and how long the rest will take; of asking a model
also tokens per second, how much of the prompts the server had in its cache, and how many records
failed. Speeds are those of the last minutes, and of what is done anew: what an earlier run finished
counts as done, and would otherwise make the rest look fast.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mira_megatron.written_numbers import decimal, duration, percent, short

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_BARS = 0.2
_WINDOW_SECONDS = 300.0  # over which speeds are taken
_NUM_SNAPSHOTS = 50  # in a window

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a step was at one moment."""

    seconds: float
    num_done: int  # anew
    num_prompt_tokens: int
    num_output_tokens: int


@dataclass(slots=True)
class Pace:
    """The speeds of the last minutes, from snapshots that are not much closer than needed."""

    snapshots: deque[Snapshot] = field(default_factory=deque)

    def note(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot, and forgets those that no window needs any more."""
        if len(self.snapshots) > 1:
            since_last_but_one = snapshot.seconds - self.snapshots[-2].seconds
            if since_last_but_one < _WINDOW_SECONDS / _NUM_SNAPSHOTS:
                self.snapshots.pop()
        self.snapshots.append(snapshot)
        while len(self.snapshots) > 2 and self._age(1) >= _WINDOW_SECONDS:
            self.snapshots.popleft()

    def per_second(self, name: str) -> float:
        """Returns how much of a snapshot's field came per second; 0 where no time has passed."""
        first, last = self.snapshots[0], self.snapshots[-1]
        seconds = last.seconds - first.seconds
        return (getattr(last, name) - getattr(first, name)) / seconds if seconds > 0 else 0.0

    def _age(self, index: int) -> float:
        return self.snapshots[-1].seconds - self.snapshots[index].seconds


class Tracker:
    """Called once per finished step, or with how many were finished; some 0.1 us when not due."""

    def __init__(
        self, total: int, clock: Clock, every: float, show: Callable[[], None], num_done: int = 0
    ) -> None:
        self.total = total
        self.num_done = num_done
        self._num_before = num_done  # what of these failed is not known
        self._num_anew = 0
        self.pace = Pace()
        self._clock = clock
        self._every = every
        self._show = show
        self._due = clock() + every
        self._num_prompt_tokens = self._num_output_tokens = self._num_failed = 0
        self._has_tokens = False
        self._cache_hit_rate: float | None = None
        self._note(clock())

    def __call__(self, num_done: int = 1, *, is_anew: bool = True) -> None:
        """Counts finished steps, and shows how far it is when that is due.

        Steps that were finished by an earlier run are not done anew, and tell nothing of the speed.
        """
        self.num_done += num_done
        if is_anew:
            self._num_anew += num_done
        now = self._clock()
        if now >= self._due:
            self._due = now + self._every
            self._note(now)
            self._show()

    def report(
        self,
        *,
        num_prompt_tokens: int = 0,
        num_output_tokens: int = 0,
        num_failed: int = 0,
        cache_hit_rate: float | None = None,
    ) -> None:
        """Adds what finished steps took; the cache's hit rate, in [0, 1], replaces the last one."""
        self._has_tokens = True
        self._num_prompt_tokens += num_prompt_tokens
        self._num_output_tokens += num_output_tokens
        self._num_failed += num_failed
        if cache_hit_rate is not None:
            self._cache_hit_rate = cache_hit_rate

    def facts(self) -> str:
        """Returns how fast it goes and how long it will take, as far as it is known, in words."""
        steps = self.pace.per_second("num_done")
        facts = [f"{_speed(steps)}/s"]
        if self._has_tokens:
            prompt, output = map(self.pace.per_second, ("num_prompt_tokens", "num_output_tokens"))
            facts.append(f"{short(prompt)} prompt and {short(output)} output tokens/s")
            facts.append(f"failed {percent(self._num_failed, self.num_done - self._num_before)}")
        if self._cache_hit_rate is not None:
            facts.append(f"cache hits {100 * self._cache_hit_rate:.1f}%")
        if steps > 0:
            facts.append(f"{duration(max(0, self.total - self.num_done) / steps)} left")
        return ", ".join(facts)

    def _note(self, now: float) -> None:
        tokens = (self._num_prompt_tokens, self._num_output_tokens)
        self.pace.note(Snapshot(now, self._num_anew, *tokens))


@contextmanager
def track(
    title: str,
    total: int,
    *,
    num_done: int = 0,
    clock: Clock = time.monotonic,
    console: Console | None = None,
) -> Iterator[Tracker]:
    """Yields what is to be called once per finished step out of `total`.

    `num_done` of these an earlier run has finished.
    """
    is_terminal = sys.stderr.isatty() if console is None else console.is_terminal
    if is_terminal:
        with _bar(title, total, num_done, clock, console or Console(stderr=True)) as tracker:
            yield tracker
    else:
        yield _lines(title, total, num_done, clock)


@contextmanager
def _bar(
    title: str, total: int, num_done: int, clock: Clock, console: Console
) -> Iterator[Tracker]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, completed=num_done, facts="")
        # Not at every step: rich takes longer for it than an answer that the store holds.
        tracker = Tracker(
            total,
            clock,
            _SECONDS_BETWEEN_BARS,
            lambda: progress.update(task, completed=tracker.num_done, facts=tracker.facts()),
            num_done,
        )
        yield tracker


def _lines(title: str, total: int, num_done: int, clock: Clock) -> Tracker:
    def show() -> None:
        done, of = f"{tracker.num_done:,}", f"{total:,}"
        logger.info("%s: %s of %s, %s", title, done, of, tracker.facts())

    tracker = Tracker(total, clock, _SECONDS_BETWEEN_LINES, show, num_done)
    return tracker


def _speed(per_second: float) -> str:
    return decimal(per_second, 2) if per_second < 10 else short(per_second)
