"""How many requests one endpoint gets at once: found by trying, as TCP finds its window.

It starts with a few and doubles while all of them are used and nothing is refused. What says "too
much" (429, 503, a timeout) cuts it by a fifth, once per burst; from then on it grows slowly. It
never grows on the answers to fewer requests than it allows: those prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_LIMIT = 8
COOL_DOWN_SECONDS = 15.0  # one burst of refusals is one sign, not many
_CUT = 0.8
_STEP = 1 / 16
_SATURATED = 0.8  # of the limit, in use at some moment of a window


class Concurrency:
    """The limit of one endpoint, and what is in flight to it.

    `clock` gives seconds that only grow. `is_held` keeps the limit from growing: requests wait in
    the server's own queue.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        assert most > 0, "JudgeConfig refuses max_in_flight below 1"
        self._most = most
        self._clock = clock
        self._cool_until = clock()
        self.num_in_flight = 0
        self.is_held = False
        self._peak = 0  # in flight at once, in this window
        self.restart()

    def restart(self) -> None:
        """Begins again with a few: nothing is known of an endpoint that comes back."""
        self._limit = float(min(FIRST_LIMIT, self._most))
        self._is_starting = True
        self._begin_window()

    @property
    def limit(self) -> int:
        """Returns how many requests may be in flight, at least 1."""
        return int(self._limit)

    @property
    def room(self) -> int:
        """Returns how many more may be sent; negative after a cut."""
        return int(self._limit) - self.num_in_flight

    def start(self) -> None:
        """Counts a request that is sent."""
        self.num_in_flight += 1
        self._peak = max(self._peak, self.num_in_flight)

    def end(self) -> None:
        """Counts a request that came back, whatever came of it."""
        assert self.num_in_flight > 0, "a request came back that was never sent"
        self.num_in_flight -= 1

    def grow(self) -> None:
        """Counts an answer; after as many as the limit (a window), the limit may be raised."""
        self._num_answers += 1
        if self._num_answers < self.limit:
            return
        is_saturated = self._peak >= _SATURATED * self.limit
        is_cooling = not self._is_starting and self._clock() < self._cool_until
        if is_saturated and not self.is_held and not is_cooling:
            step = self._limit if self._is_starting else max(1.0, self._limit * _STEP)
            self._limit = min(float(self._most), self._limit + step)
        self._begin_window()

    def cut(self) -> None:
        """Lowers the limit, unless it was lowered a moment ago."""
        now = self._clock()
        if now < self._cool_until:
            return
        self._cool_until = now + COOL_DOWN_SECONDS
        self._limit = max(1.0, self._limit * _CUT)
        self._is_starting = False
        self._begin_window()

    def _begin_window(self) -> None:
        self._num_answers = 0
        self._peak = self.num_in_flight
