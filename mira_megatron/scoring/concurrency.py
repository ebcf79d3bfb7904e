"""How many requests one endpoint gets at once: found by trying, as TCP finds its window.

It starts with a few and doubles while all of them are used and nothing is refused. Requests refused
for being too many (429, 503) lower the limit by as many, so that what the server took is what it
gets; no burst takes more than half. A timeout tells only that it was too much: the limit falls by a
fifth. From then on the limit grows by a sixteenth, once the last growth was used without a refusal;
one that is refused is tried ever more seldom. It never grows on the answers to fewer requests than
it allows: those prove nothing.

A burst is whatever was on its way when the limit fell. Its refusals are one sign, however many.
Nothing here looks at a clock: a server that answers in minutes is to be tried as often, by its
answers, as one that answers in milliseconds.
"""

from __future__ import annotations

FIRST_LIMIT = 16
MOST_CALM_WINDOWS = 32  # before a growth that was refused at once is tried again
_CUT_DIVISOR = 5
_STEP_DIVISOR = 16
_SATURATED = 0.8  # of the limit, in use at some moment of a window


class Concurrency:
    """The limit of one endpoint, and what is in flight to it.

    `is_held` keeps the limit from growing: requests wait in the server's own queue. `burst` is the
    number of the burst that a request sent now belongs to, for `refuse` and `cut`.
    """

    def __init__(self, most: int) -> None:
        assert most > 0, "JudgeConfig refuses max_in_flight below 1"
        self._most = most
        self.burst = 0
        self.num_in_flight = 0
        self.is_held = False
        self._peak = 0  # in flight at once, in this window
        self._num_windows = 0  # without a refusal, since the limit last changed
        self.restart()

    def restart(self) -> None:
        """Begins again with a few: nothing is known of an endpoint that comes back."""
        self.limit = min(FIRST_LIMIT, self._most)
        self.burst += 2  # what was sent before tells nothing of it either
        self._is_starting = True
        self._least = 1  # that the burst before this one may lower the limit to
        self._is_trial = False  # whether nothing has proved the last growth yet
        self._calm_windows = 1  # that a growth takes
        self._begin_calm()

    @property
    def room(self) -> int:
        """Returns how many more may be sent; negative after a cut."""
        return self.limit - self.num_in_flight

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
        if self._is_trial and self._peak >= self.limit:
            self._is_trial, self._calm_windows = False, 1
        self._num_windows += 1
        self._begin_window()
        is_calm = not self._is_trial and self._num_windows >= self._calm_windows
        may_grow = self._is_starting or is_calm
        if is_saturated and may_grow and not self.is_held and self.limit < self._most:
            step = self.limit if self._is_starting else max(1, self.limit // _STEP_DIVISOR)
            self.limit = min(self._most, self.limit + step)
            self._is_trial = True
            self._num_windows = 0

    def refuse(self, burst: int) -> bool:
        """Lowers the limit by a request of this burst that was refused for being too many.

        Returns whether it is the first of its burst. Where less was in flight than allowed, that is
        what the limit falls from: more was not tried.
        """
        is_first = burst == self.burst
        if is_first:
            self._least = max(1, self.limit // 2)
            self.limit = min(self.limit, max(self._least, self._peak, self._last_peak))
            self._note_burst()
        if burst >= self.burst - 1:
            self.limit = max(self._least, self.limit - 1)
            self._begin_calm()
        return is_first

    def cut(self, burst: int) -> None:
        """Lowers the limit for a request of this burst that was not answered in time."""
        if burst != self.burst:
            return
        self.limit = max(1, self.limit - -(-self.limit // _CUT_DIVISOR))
        self._least = self.limit
        self._note_burst()
        self._begin_calm()

    def _note_burst(self) -> None:
        self.burst += 1
        if self._is_trial and not self._is_starting:
            self._calm_windows = min(2 * self._calm_windows, MOST_CALM_WINDOWS)
        self._is_starting = self._is_trial = False

    def _begin_calm(self) -> None:
        self._num_windows = 0
        self._begin_window()

    def _begin_window(self) -> None:
        self._num_answers = 0
        self._last_peak, self._peak = self._peak, self.num_in_flight
