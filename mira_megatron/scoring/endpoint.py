"""Asks OpenAI-compatible endpoints for many chat completions at once.

The one transport of teachers and scorers. Requests are started one by one and answers are taken as
they finish. A request that fails becomes an answer with a typed failure; it never ends the run.
How many are in flight, and where each goes, follows from how the endpoints do (see endpoint_pool).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import orjson

from mira_megatron.endpoints import base_url
from mira_megatron.scoring.chat_request import EndpointSettings, Request, RequestBodies
from mira_megatron.scoring.completion import Answer, Failure
from mira_megatron.scoring.endpoint_client import EndpointClient
from mira_megatron.scoring.endpoint_facts import Facts, endpoint_facts
from mira_megatron.scoring.endpoint_health import FAILURES_IN_A_ROW
from mira_megatron.scoring.endpoint_pool import (
    LATER,
    LONGEST_WAIT_SECONDS,
    EndpointPool,
    PooledEndpoint,
)
from mira_megatron.scoring.server_metrics import parse_metrics

__all__ = ["EndpointSettings", "Endpoints", "Request"]

_POLL_SECONDS = 1.0
_NOT_SENT = Failure(kind="connection", detail="not sent: no endpoint could be reached")


class Endpoints:
    """Endpoints asked as one, and the requests in flight to them.

    `urls` are base URLs such as http://127.0.0.1:8000/v1. `on_answer` is told of every completion
    before another request may take its place; what it raises, `next_answer` does. `on_lost` is told
    of every attempt that brought nothing but may have been billed, and says whether the request may
    be sent again. With `stands_by` a few more requests are welcome than are sent: each leaves in
    the moment in which a place becomes free, rather than when whoever takes the answers is told.

    Raises ValueError for a URL that cannot be one. Leaving the context cancels what is in flight.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: EndpointSettings,
        *,
        on_answer: Callable[[Answer], None] = lambda answer: None,
        on_lost: Callable[[Request], bool] = lambda request: True,
        stands_by: bool = True,
    ) -> None:
        if not urls:
            raise ValueError(
                "no endpoint given: expected base URLs such as http://127.0.0.1:8000/v1"
            )
        self._urls = [base_url(url) for url in urls]
        self._settings = settings
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._stands_by = stands_by
        self._bodies = RequestBodies(settings)
        self._num_in_flight = 0
        self._tasks: set[asyncio.Task[Answer]] = set()  # of requests for which something is waited
        self._finished: deque[Answer | BaseException] = deque()
        self._taker: asyncio.Future[None] | None = None  # who waits for the next answer
        self._standing_by: deque[Request] = deque()  # ready to be sent, in the order of start
        self._background: set[asyncio.Task[None]] = set()
        self._probed: set[PooledEndpoint] = set()
        self._num_backing_off = 0
        # Requests that may wait for a retry: about as many again as may be in flight.
        self._most_backing_off = settings.max_in_flight * len(self._urls)
        self._retries: Counter[str] = Counter()
        self._num_prompt_tokens = 0
        self._num_output_tokens = 0
        self._has_work = False

    async def __aenter__(self) -> Self:
        self._client = EndpointClient(self._settings)
        self._pool = EndpointPool(self._urls, self._settings, self._look_after, self._send_next)
        self._is_ending = asyncio.Event()
        for endpoint in self._pool.endpoints:
            self._in_background(self._poll(endpoint))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [*self._tasks, *self._background]
        for task in tasks:
            task.cancel()
        self._client.break_off()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.close()
        await self._client.close()

    @property
    def num_in_flight(self) -> int:
        """Returns how many requests were started whose answers have not been taken."""
        return self._num_in_flight

    @property
    def has_room(self) -> bool:
        """Returns whether another request is to be started; never False with none in flight.

        False while an answer waits to be taken.
        """
        if self._finished or self._num_backing_off >= self._most_backing_off:
            return False
        if self._pool.has_room:
            return True
        return self._stands_by and len(self._standing_by) < self._pool.num_to_stand_by

    def start(self, request: Request) -> None:
        """Sends a request, at once where there is a connection; without room, when there is some.

        Whatever needs to be waited for is done by a task: a connection, a place, another attempt.
        """
        self._has_work = True
        self._num_in_flight += 1
        endpoint = self._pool.take()
        if endpoint is None and len(self._standing_by) < self._pool.num_to_stand_by:
            self._standing_by.append(request)
        else:
            self._send(request, endpoint)

    async def next_answer(self) -> Answer:
        """Returns the next answer, in the order in which they finish; one must be in flight."""
        while not self._finished:
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        self._num_in_flight -= 1
        finished = self._finished.popleft()
        if isinstance(finished, BaseException):
            raise finished
        return finished

    def end(self) -> None:
        """Lets what is in flight finish without further retries: no more answers are wanted.

        What was not sent yet is not sent any more.
        """
        self._is_ending.set()
        self._pool.end()

    def facts(self) -> Facts:
        """Returns what was asked and got so far, and how each endpoint did."""
        return endpoint_facts(
            self._pool.endpoints,
            num_retries=self._retries,
            num_prompt_tokens=self._num_prompt_tokens,
            num_output_tokens=self._num_output_tokens,
            now=asyncio.get_running_loop().time(),
        )

    async def refresh(self) -> None:
        """Looks at the servers' metrics once more, so that the facts are up to now."""
        await asyncio.gather(*(self._look(each, has_work=False) for each in self._pool.endpoints))

    def _send(self, request: Request, endpoint: PooledEndpoint | None) -> None:
        if endpoint is not None:
            with suppress(orjson.JSONEncodeError):  # which the task finds as well
                body = self._bodies.encode(request)
                tell = partial(self._told, request, endpoint, endpoint.concurrency.burst)
                if self._client.send(endpoint.chat_url, body, request.key, tell):
                    return
        self._in_task(self._answer(request, endpoint))

    def _send_next(self) -> None:
        """Sends what stands by, as far as there is room; without hope of any, lets it wait."""
        while self._standing_by:
            endpoint = self._pool.take()
            if endpoint is None and not self._pool.is_closed:
                return
            self._send(self._standing_by.popleft(), endpoint)

    def _told(
        self, request: Request, endpoint: PooledEndpoint, burst: int, outcome: Answer | Failure
    ) -> None:
        """Takes in what came of a request that was sent at once; others carry on in a task."""
        if isinstance(outcome, Failure):
            self._in_task(self._answer(request, endpoint, (burst, outcome)))
            return
        try:
            self._complete(outcome, endpoint, burst)
        except Exception as error:  # as of a task: whoever takes the answer gets it
            self._finish(error)
        else:
            self._finish(outcome)

    def _in_task(self, answering: Coroutine[Any, Any, Answer]) -> None:
        task = asyncio.create_task(answering)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._finish(task.exception() or task.result())

    def _finish(self, finished: Answer | BaseException) -> None:
        self._finished.append(finished)
        taker, self._taker = self._taker, None
        if taker is not None and not taker.done():
            taker.set_result(None)

    def _complete(self, answer: Answer, endpoint: PooledEndpoint, burst: int) -> None:
        self._on_answer(answer)
        self._pool.give_back(endpoint, None, burst)
        self._num_prompt_tokens += answer.num_prompt_tokens or 0
        self._num_output_tokens += answer.num_output_tokens or 0

    async def _answer(
        self,
        request: Request,
        endpoint: PooledEndpoint | None,
        first: tuple[int, Failure] | None = None,
    ) -> Answer:
        """Returns the answer to one request after as many attempts as it needs and may have.

        `first` is what came of one at `endpoint` already, with the burst that it was sent in.
        """
        try:
            body = self._bodies.encode(request)
        except orjson.JSONEncodeError as error:
            if endpoint is not None:
                self._pool.release(endpoint)
            return Answer(key=request.key, failure="unencodable", failure_detail=str(error))
        tries = _Tries()
        while endpoint := endpoint or await self._pool.wait(tries.failed_by):
            outcome: Answer | Failure
            if first is not None:
                (burst, outcome), first = first, None
            else:
                burst = endpoint.concurrency.burst
                outcome = await self._client.attempt(endpoint.chat_url, body, request.key)
            if isinstance(outcome, Answer):
                self._complete(outcome, endpoint, burst)
                return outcome
            self._pool.give_back(endpoint, outcome, burst)
            tries.add(endpoint, outcome, asyncio.get_running_loop().time())
            may_repeat = not outcome.is_maybe_billed or self._on_lost(request)
            if not may_repeat or self._is_last(tries) or self._is_ending.is_set():
                break
            self._retries[outcome.kind] += 1
            if self._pays_to_wait(tries) and await self._is_ended_while_waiting(tries):
                break
            endpoint = None
        failure = tries.failure or self._pool.given_up or _NOT_SENT
        return Answer(
            key=request.key,
            failure=failure.kind,
            failure_detail=failure.detail,
            is_lasting=not failure.is_passing and failure.kind != "bad_body",
            is_unsent=tries.failure is None,
        )

    def _is_last(self, tries: _Tries) -> bool:
        """Returns whether a request has had all the attempts that it may have."""
        failure = tries.last
        if not tries.is_refused:
            return not failure.is_passing or tries.num_attempts > self._settings.max_retries
        # No server has taken it. Other endpoints come first, then patience.
        if tries.is_unreached and tries.num_unreached < FAILURES_IN_A_ROW * len(self._urls):
            assert tries.failed_by is not None
            if self._pool.has_other(tries.failed_by):
                return False
        return tries.refused_seconds >= self._pool.patience_seconds

    def _pays_to_wait(self, tries: _Tries) -> bool:
        """Returns whether the next attempt had better be later.

        Not where a connection failed and there is another endpoint, or one to be waited for.
        """
        endpoint = tries.failed_by
        assert endpoint is not None
        is_elsewhere = endpoint.health.is_drained or self._pool.has_other(endpoint)
        return tries.last.kind != "connection" or not is_elsewhere

    async def _is_ended_while_waiting(self, tries: _Tries) -> bool:
        """Waits before a retry; returns whether retries came to their end meanwhile."""
        backoff = self._settings.backoff_seconds * 2.0 ** min(tries.num_failures - 1, 16)
        seconds = min(backoff, LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1.0)
        self._num_backing_off += 1
        try:
            await asyncio.wait_for(self._is_ending.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            self._num_backing_off -= 1
        return True

    def _look_after(self, endpoint: PooledEndpoint) -> None:
        if endpoint not in self._probed:
            self._probed.add(endpoint)
            self._in_background(self._probe(endpoint))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _probe(self, endpoint: PooledEndpoint) -> None:
        """Looks at an endpoint that is out, ever more seldom, until it is well."""
        while endpoint.health.is_drained:
            await asyncio.sleep(endpoint.health.probe_seconds)
            if endpoint.health.is_drained:  # else it answered a request that was in flight
                is_well = await self._client.is_well(endpoint.health_url, endpoint.models_url)
                self._pool.probed(endpoint, is_well=is_well)
        self._probed.discard(endpoint)

    async def _poll(self, endpoint: PooledEndpoint) -> None:
        """Looks at a server's metrics as long as it has any."""
        while endpoint.metrics.is_there:
            if not endpoint.health.is_drained:
                await self._look(endpoint, has_work=self._has_work)
                endpoint.concurrency.is_held = endpoint.metrics.is_queueing
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, endpoint: PooledEndpoint, *, has_work: bool) -> None:
        if not endpoint.metrics.is_there:
            return
        status, page = await self._client.page(endpoint.metrics_url)
        if status == 0 or status >= 500:  # it may be well in a moment
            return
        metrics = parse_metrics(page.decode("utf-8", "replace")) if status == 200 else None
        endpoint.metrics.add(metrics, has_work=has_work)


@dataclass(slots=True)
class _Tries:
    """What became of the attempts at one request."""

    failure: Failure | None = None  # of the last
    failed_by: PooledEndpoint | None = None
    num_failures: int = 0
    num_refused: int = 0  # that no server took
    num_unreached: int = 0  # of these: there was no server
    refused_seconds: float = 0.0  # since the first in a row of these
    _refused_since: float | None = None

    @property
    def last(self) -> Failure:
        """Returns the last failure; there must have been one."""
        assert self.failure is not None
        return self.failure

    @property
    def num_attempts(self) -> int:
        """Returns how many attempts a server took."""
        return self.num_failures - self.num_refused

    @property
    def is_unreached(self) -> bool:
        """Returns whether the last attempt reached no server."""
        return self.last.kind == "connection" and not self.last.is_maybe_billed

    @property
    def is_refused(self) -> bool:
        """Returns whether no server took the last attempt: it costs patience, and no retry."""
        return self.is_unreached or self.last.kind in LATER

    def add(self, endpoint: PooledEndpoint, failure: Failure, now: float) -> None:
        """Counts a failure at `now`, by a clock of seconds."""
        self.failure, self.failed_by = failure, endpoint
        self.num_failures += 1
        self.num_unreached += self.is_unreached
        if not self.is_refused:
            self._refused_since = None
            return
        self.num_refused += 1
        if self._refused_since is None:
            self._refused_since = now
        self.refused_seconds = now - self._refused_since
