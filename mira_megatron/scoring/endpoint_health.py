"""Whether an endpoint may be asked: failures in a row take it out, a probe brings it back.

A server that is restarted is nothing else. An endpoint that answers probes and still fails every
request is looked at ever more seldom, until it answers a request.
"""

from __future__ import annotations

FAILURES_IN_A_ROW = 3
LONGEST_PROBE_SECONDS = 60.0


class EndpointHealth:
    """What is known of one endpoint. `probe_seconds` is the time before the first look at it."""

    def __init__(self, probe_seconds: float) -> None:
        self._first_probe_seconds = probe_seconds
        self._num_failures = 0
        self._num_looks = 0  # since the last answer to a request
        self.is_drained = False
        self.has_answered = False  # anything, ever

    @property
    def is_doubtful(self) -> bool:
        """Returns whether the last request failed."""
        return self._num_failures > 0

    @property
    def is_failing(self) -> bool:
        """Returns whether too many requests failed in a row."""
        return self._num_failures >= FAILURES_IN_A_ROW

    @property
    def probe_seconds(self) -> float:
        """Returns how long to wait before the next look."""
        doubled = self._first_probe_seconds * 2.0 ** min(self._num_looks, 16)
        return min(doubled, max(LONGEST_PROBE_SECONDS, self._first_probe_seconds))

    def answered(self) -> None:
        """Notes a request that was answered: the endpoint is well."""
        self.has_answered = True
        self.is_drained = False
        self._num_failures = self._num_looks = 0

    def failed(self) -> None:
        """Notes a request that the endpoint did not answer as a server that is well does."""
        self._num_failures += 1

    def drain(self) -> None:
        """Takes the endpoint out."""
        self.is_drained = True

    def probed(self, *, is_well: bool) -> None:
        """Notes a look at an endpoint that is out; where it is well, it is to be asked again."""
        self._num_looks += 1
        if is_well:
            self.is_drained = False
            # A probe proves less than an answer: the next failure takes it out again.
            self._num_failures = FAILURES_IN_A_ROW - 1
