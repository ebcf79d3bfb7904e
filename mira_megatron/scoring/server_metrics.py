"""What a vLLM server tells of itself at /metrics, and what a run makes of it.

Prefix-cache hits, its queue, and how often it stood idle. Servers without such a page are asked
once. Nothing on the page is trusted: a line that is not as expected is passed over.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# vLLM writes one line per engine and model. Counters end in _total.
_LINE = re.compile(
    r"^vllm:(num_requests_running|num_requests_waiting|prefix_cache_queries|prefix_cache_hits)"
    r"(?:_total)?(?:\{[^\n]*\})? ([0-9.eE+]+)\s*$",
    re.MULTILINE,
)
_POLLS_TO_HOLD = 3  # a queue of a moment is only the next step's work


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerMetrics:
    """One look at a server: requests now, and prompt tokens looked up since it was started."""

    num_running: float
    num_waiting: float
    num_queried: float
    num_hit: float


def parse_metrics(page: str) -> ServerMetrics | None:
    """Returns what a page of metrics says, summed over engines; None where it is not vLLM's."""
    sums: dict[str, float] = {}
    for name, written in _LINE.findall(page):
        try:
            value = float(written)
        except ValueError:
            continue
        if math.isfinite(value):
            sums[name] = sums.get(name, 0.0) + value
    if "num_requests_running" not in sums or "num_requests_waiting" not in sums:
        return None
    return ServerMetrics(
        num_running=sums["num_requests_running"],
        num_waiting=sums["num_requests_waiting"],
        num_queried=sums.get("prefix_cache_queries", 0.0),
        num_hit=sums.get("prefix_cache_hits", 0.0),
    )


class MetricsWatch:
    """The looks at one server over a run."""

    def __init__(self) -> None:
        self.is_there = True  # as far as is known
        self._last: ServerMetrics | None = None
        self._num_queueing = 0  # looks in a row
        self.num_looks = 0  # while there was work
        self.num_idle_looks = 0
        self.num_queried = 0.0  # prompt tokens, over the run
        self.num_hit = 0.0

    @property
    def is_queueing(self) -> bool:
        """Returns whether requests have been waiting in the server's own queue for some time."""
        return self._num_queueing >= _POLLS_TO_HOLD

    def add(self, metrics: ServerMetrics | None, *, has_work: bool) -> None:
        """Takes in a look; `has_work` says whether there was anything to ask the server.

        None: the server has no such page, and none is asked for any more.
        """
        if metrics is None:
            self.is_there = False
            return
        last, self._last = self._last, metrics
        self._num_queueing = self._num_queueing + 1 if metrics.num_waiting > 0 else 0
        if has_work:
            self.num_looks += 1
            self.num_idle_looks += metrics.num_running == 0 and metrics.num_waiting == 0
        if last is None:
            return
        if metrics.num_queried < last.num_queried or metrics.num_hit < last.num_hit:
            # The server was restarted, and counts from nothing.
            self.num_queried += metrics.num_queried
            self.num_hit += metrics.num_hit
        else:
            self.num_queried += metrics.num_queried - last.num_queried
            self.num_hit += metrics.num_hit - last.num_hit
