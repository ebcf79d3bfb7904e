"""Several endpoints as one: who gets the next request, who waits, who is out of order.

A request goes where most room is, so an endpoint that is slow to answer gets less. What finds no
room waits in line. An endpoint that fails is taken out; one that says "later" (429, 503) to all it
gets is paused, ever longer, or for as long as it says itself. While all are out or say so, what
waits is let wait for `patience_seconds`, and then told to give up. No request is sent here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from yarl import URL

from mira_megatron.endpoints import base_url
from mira_megatron.scoring.chat_request import EndpointSettings
from mira_megatron.scoring.completion import Failure
from mira_megatron.scoring.concurrency import FIRST_LIMIT, Concurrency
from mira_megatron.scoring.endpoint_health import EndpointHealth
from mira_megatron.scoring.server_metrics import MetricsWatch

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 120.0  # also where a server asks for more
_LAST_CHOICE = 0.5  # some room, and less than any other endpoint that has room
LATER = ("http_429", "http_503")  # the server works, and has no place for this request now


class PooledEndpoint:
    """One endpoint: where it is, and how it does."""

    def __init__(self, url: str, settings: EndpointSettings) -> None:
        self.url = base_url(url)
        path = "completions" if settings.is_text else "chat/completions"
        self.chat_url = URL(f"{self.url}/{path}")
        self.models_url = URL(f"{self.url}/models")
        # A server's own pages are not under /v1.
        root = self.url.removesuffix("/v1")
        self.health_url, self.metrics_url = URL(f"{root}/health"), URL(f"{root}/metrics")
        self.concurrency = Concurrency(settings.max_in_flight)
        self.health = EndpointHealth(settings.probe_seconds)
        self.metrics = MetricsWatch()
        self.paused_until = 0.0
        self.num_pauses = 0  # since it last took a request
        self.num_sent = 0
        self.num_failed = 0


class EndpointPool:
    """Deals requests out over endpoints; made in a running event loop.

    `on_drained` is told of every endpoint that is taken out, to look at it until it is well;
    `on_room` whenever a place may have become free that nobody in line took, or none will.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: EndpointSettings,
        on_drained: Callable[[PooledEndpoint], None],
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.endpoints = [PooledEndpoint(url, settings) for url in urls]
        self._settings = settings
        self._on_drained = on_drained
        self._on_room = on_room
        # Who waits, and the endpoint that each would rather not have again.
        self._line: deque[tuple[asyncio.Future[PooledEndpoint | None], PooledEndpoint | None]]
        self._line = deque()
        self._timers: set[asyncio.TimerHandle] = set()
        self._giving_up: asyncio.TimerHandle | None = None
        self._refused_since: float | None = None  # nothing but "later" has come from anywhere
        self.given_up: Failure | None = None  # what patience ended with
        self._is_ending = False
        self._num_standing_by = min(FIRST_LIMIT, settings.max_in_flight)

    @property
    def has_room(self) -> bool:
        """Returns whether one more request is welcome.

        Also without room where an endpoint may come back by itself, for a few: nothing else tells
        the caller when it does.
        """
        now = self._loop.time()
        num_up = 0
        for each in self.endpoints:
            if not each.health.is_drained and each.paused_until <= now:
                num_up += 1
                if self._room(each) > 0 and not self._line:
                    return True
        return num_up < len(self.endpoints) and len(self._line) < self._num_standing_by

    @property
    def num_to_stand_by(self) -> int:
        """Returns how many more requests may be made ready than have room.

        Half of what is in flight: answers come in groups, and what is ready takes their places
        before any of the answers is looked at. None while an endpoint is out or says "later".
        """
        if self._line or not all(map(self._is_up, self.endpoints)):
            return 0
        return sum(each.concurrency.num_in_flight for each in self.endpoints) // 2

    @property
    def patience_seconds(self) -> float:
        """Returns how long to wait while all endpoints are out, or say "later".

        Where none ever answered, only as long as a request's retries take: the URL is wrong then,
        or the server was never started.
        """
        settings = self._settings
        if any(each.health.has_answered for each in self.endpoints):
            return settings.patience_seconds
        retries = settings.backoff_seconds * (2.0 ** min(settings.max_retries, 16) - 1)
        return min(retries, settings.patience_seconds)

    def has_other(self, endpoint: PooledEndpoint) -> bool:
        """Returns whether another endpoint than this is in order."""
        return any(each is not endpoint and not each.health.is_drained for each in self.endpoints)

    @property
    def is_closed(self) -> bool:
        """Returns whether nothing gets a place any more: all is to end, or patience has ended."""
        return self._is_ending or self.given_up is not None

    def take(self) -> PooledEndpoint | None:
        """Returns the endpoint to ask, with a place at it taken; None where that is to wait."""
        return self._best(None)

    async def wait(self, unlike: PooledEndpoint | None) -> PooledEndpoint | None:
        """Returns the endpoint to ask as soon as there is one, with a place at it taken.

        `unlike` has failed the request, and is asked only if no other has room. None: no endpoint
        can be reached, or what is in flight is to be the last.
        """
        if self.is_closed:
            return None
        endpoint = self._best(unlike)
        if endpoint is not None:
            return endpoint
        waiting: asyncio.Future[PooledEndpoint | None] = self._loop.create_future()
        self._line.append((waiting, unlike))
        return await waiting

    def release(self, endpoint: PooledEndpoint) -> None:
        """Frees a place that was not used."""
        endpoint.concurrency.end()
        self._serve()

    def give_back(self, endpoint: PooledEndpoint, failure: Failure | None, burst: int) -> None:
        """Frees a place, and notes what came of the request: a completion, or this.

        `burst` is what `endpoint.concurrency.burst` was when the request was sent.
        """
        concurrency, health = endpoint.concurrency, endpoint.health
        concurrency.end()
        endpoint.num_sent += 1
        if failure is None:
            self._took(endpoint)
        elif failure.kind in LATER:
            self._refused(endpoint, failure, burst)
        elif _is_ill(failure):
            endpoint.num_failed += 1
            health.has_answered |= failure.kind.startswith("http_")
            self._failed(endpoint, failure)
            if failure.kind == "timeout":
                concurrency.cut(burst)
        else:
            self._took(endpoint)
        if failure is not None and failure.is_passing and failure.wait_seconds > 0:
            self._pause(endpoint, min(failure.wait_seconds, LONGEST_WAIT_SECONDS))
        self._serve()

    def probed(self, endpoint: PooledEndpoint, *, is_well: bool) -> None:
        """Notes a look at an endpoint that is out; where it is well, those who wait go there."""
        endpoint.health.probed(is_well=is_well)
        if is_well:
            self._came_back(endpoint)
            self._serve()

    def end(self) -> None:
        """Sends those who wait away, and whoever comes to wait."""
        self._is_ending = True
        self._dismiss()

    def close(self) -> None:
        """Stops the clocks."""
        for timer in self._timers:
            timer.cancel()
        self._stop_giving_up()

    def _is_up(self, endpoint: PooledEndpoint) -> bool:
        return not endpoint.health.is_drained and endpoint.paused_until <= self._loop.time()

    def _room(self, endpoint: PooledEndpoint) -> float:
        """Returns how many more requests an endpoint gets.

        One that failed the last request gets one at a time, where there are others, until it
        answers: what fails at once has room at once, and would draw everything to itself.
        """
        if endpoint.health.is_doubtful and self.has_other(endpoint):
            return 0.0 if endpoint.concurrency.num_in_flight else _LAST_CHOICE
        return endpoint.concurrency.room

    def _best(self, unlike: PooledEndpoint | None) -> PooledEndpoint | None:
        best, most = None, 0.0
        for each in self.endpoints:
            room = self._room(each)
            if room > 0 and each is unlike:
                room = _LAST_CHOICE
            if room > most and self._is_up(each):
                best, most = each, room
        if best is not None:
            best.concurrency.start()
        return best

    def _serve(self) -> None:
        """Lets go who waits and finds room, first come, first served."""
        while self._line:
            waiting, unlike = self._line[0]
            if waiting.done():  # its request was cancelled
                self._line.popleft()
                continue
            endpoint = self._best(unlike)
            if endpoint is None:
                return
            self._line.popleft()
            waiting.set_result(endpoint)
        self._on_room()

    def _dismiss(self) -> None:
        for waiting, _ in self._line:
            if not waiting.done():
                waiting.set_result(None)
        self._line.clear()
        self._on_room()

    def _took(self, endpoint: PooledEndpoint) -> None:
        """Notes a request that a server took: whatever it made of it, it is at work."""
        endpoint.num_pauses = 0
        self._refused_since = self.given_up = None
        self._answered(endpoint)
        endpoint.concurrency.grow()

    def _refused(self, endpoint: PooledEndpoint, failure: Failure, burst: int) -> None:
        """Notes a request that is to come later.

        503 is also what a gateway says that has lost its server, and speaks against an endpoint:
        once per burst, or the first of too many at once would put one that is well out of order.
        """
        is_first = endpoint.concurrency.refuse(burst)
        endpoint.health.has_answered = True
        if failure.kind == "http_503":
            endpoint.num_failed += 1
            if is_first:
                self._failed(endpoint, failure)
        else:
            self._answered(endpoint)
        if endpoint.concurrency.num_in_flight:
            return
        # It takes nothing at all, so a free place there says nothing of when to come again.
        endpoint.num_pauses += 1
        backoff = self._settings.backoff_seconds * 2.0 ** min(endpoint.num_pauses - 1, 16)
        # A server that says when to come again knows: no longer than that, however often it does.
        self._pause(endpoint, min(backoff, failure.wait_seconds or backoff, LONGEST_WAIT_SECONDS))
        now = self._loop.time()
        if self._refused_since is None:
            self._refused_since = now
        has_none = not any(each.concurrency.num_in_flight for each in self.endpoints)
        if has_none and now - self._refused_since >= self.patience_seconds:
            self._give_up(failure)

    def _failed(self, endpoint: PooledEndpoint, failure: Failure) -> None:
        endpoint.health.failed()
        if not endpoint.health.is_drained and endpoint.health.is_failing:
            self._drain_if_wise(endpoint, failure)

    def _answered(self, endpoint: PooledEndpoint) -> None:
        was_drained = endpoint.health.is_drained
        endpoint.health.answered()
        if was_drained:
            self._came_back(endpoint)

    def _came_back(self, endpoint: PooledEndpoint) -> None:
        logger.info("endpoint %s: it answers again, and is asked again", endpoint.url)
        endpoint.concurrency.restart()
        self.given_up = None
        self._stop_giving_up()

    def _drain_if_wise(self, endpoint: PooledEndpoint, failure: Failure) -> None:
        """Takes an endpoint out, unless it is the last that answers at all, if badly."""
        if failure.kind != "connection" and not self.has_other(endpoint):
            return
        endpoint.health.drain()
        logger.warning(
            "endpoint %s: requests failed in a row (%s: %s). It is asked no more until it is well; "
            "the next look at it is in %.0f s",
            endpoint.url,
            failure.kind,
            failure.detail,
            endpoint.health.probe_seconds,
        )
        self._on_drained(endpoint)
        if all(each.health.is_drained for each in self.endpoints) and self._giving_up is None:
            self._giving_up = self._loop.call_later(self.patience_seconds, self._give_up, failure)

    def _give_up(self, failure: Failure) -> None:
        if self.given_up is None:
            logger.warning(
                "no endpoint takes a request (%s: %s): what waits for one has failed",
                failure.kind,
                failure.detail,
            )
        self.given_up = failure
        self._dismiss()

    def _stop_giving_up(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _pause(self, endpoint: PooledEndpoint, seconds: float) -> None:
        until = self._loop.time() + seconds
        if until <= endpoint.paused_until:
            return
        endpoint.paused_until = until

        def go_on() -> None:
            self._timers.discard(timer)
            self._serve()

        timer = self._loop.call_at(until, go_on)
        self._timers.add(timer)


def _is_ill(failure: Failure) -> bool:
    """Returns whether a failure speaks against the server rather than against the request."""
    return failure.kind in ("connection", "timeout") or failure.kind.startswith("http_5")
