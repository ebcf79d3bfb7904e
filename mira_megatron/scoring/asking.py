"""Asks a judge every question once: the store, where it was answered before, or else an endpoint.

At most `max_in_flight` requests exist at any time. An answer is kept before it is used. An answer
that cannot be read is asked for again, with the next seed, up to `max_attempts` times. What fails
is a typed failure of its record; the run is stopped only when too many records have failed for it
to end well, when the first requests all failed as they do where a key, model or URL is wrong, or
when the next request could lead above the spend ceiling. However it is stopped, what is in flight
is answered and kept first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from mira_megatron.progress import Tracker, track
from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.endpoint import Endpoints
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.look_ahead import LookAhead
from mira_megatron.scoring.open_questions import OpenQuestions
from mira_megatron.scoring.pending import Asker, endpoint_settings
from mira_megatron.scoring.prompt_losses import PromptLosses
from mira_megatron.scoring.questions import Parsed, Question, Reply, UnwrittenQuestion

logger = logging.getLogger(__name__)

_SECONDS_PER_REPORT = 0.5  # of what the endpoints say of themselves, to the progress line


async def ask_all(
    questions: Iterable[Question | UnwrittenQuestion],
    judge: JudgeConfig,
    *,
    seed: int,
    api_key: str | None,
    weights: str | None = None,
    losses: PromptLosses | None = None,
    store: AnswerStore,
    read: Callable[[Answer], Parsed],
    num_questions: int,
    num_done: int = 0,
    title: str,
    asks: bool = True,
) -> AsyncGenerator[Reply, None]:
    """Yields one reply per question, in the order in which they are settled.

    `questions` is gone through in a thread, a few ahead of what is asked: what waits for files or
    counts tokens belongs there. Messages are better left unwritten: two threads that both want
    Python's lock get in each other's way. `weights` tells models of one name apart. With
    `losses` a message is windows of tokens, whose losses are asked for. `num_done`
    of the `num_questions` that there are in all were settled before and are not asked. Without
    `asks` no endpoint is needed: what the store does not hold has failed.

    Raises ValueError, once what is in flight is answered and kept, when more than
    `judge.max_failed_fraction` of `num_questions` got no usable answer or the endpoint seems to be
    set wrongly (nothing is yielded any more from there on), when no endpoint takes a request any
    more (what was not sent stays open), or when the next request does not fit under
    `judge.spend_ceiling`. Cancelled, or closed before the last reply, it ends when what is in
    flight is answered and kept; cancelled a second time, at once.
    """
    asker = Asker(judge, seed=seed, weights=weights, losses=losses)
    async with LookAhead(iter(questions), _size) as look_ahead:
        asking = OpenQuestions(
            questions=look_ahead,
            judge=judge,
            asker=asker,
            store=store,
            read=read,
            num_questions=num_questions,
            title=title,
            asks=asks,
        )
        with track(title, num_questions, num_done=num_done) as advance:
            settled = _asked(asking, api_key, advance) if asks else _kept(asking)
            async with aclosing(settled) as replies:
                async for reply in replies:
                    if reply.answer.failure is not None:
                        advance.report(num_failed=1)
                    advance(is_anew=not reply.is_kept)
                    yield reply
    asking.finish()


async def _kept(asking: OpenQuestions) -> AsyncGenerator[Reply, None]:
    """Yields what the answers of earlier runs say."""
    while (following := await asking.following()) is not None:
        pending, answer = following
        assert answer is not None, "nothing is asked"
        reply = asking.settle(pending, answer, is_kept=True)
        if reply is not None:
            yield reply


async def _asked(
    asking: OpenQuestions, api_key: str | None, tracker: Tracker
) -> AsyncGenerator[Reply, None]:
    """Yields what the endpoints say, or said earlier."""
    told = _Told(tracker)
    settings = endpoint_settings(asking.judge, api_key, asking.asker.losses)
    async with Endpoints(
        asking.judge.endpoints,
        settings,
        on_answer=asking.keep,
        on_lost=asking.on_lost,
        # What stands by is charged as if it were sent: there is to be none near a ceiling.
        stands_by=not asking.spending.ceilings.are_on_charges,
    ) as endpoints:
        try:
            while True:
                following = await asking.following() if endpoints.has_room else None
                if following is not None:
                    pending, answer = following
                    if answer is None:
                        endpoints.start(asking.request(pending))
                        continue
                elif endpoints.num_in_flight:
                    answer = await endpoints.next_answer()
                    pending = asking.receive(answer)
                else:
                    break
                reply = asking.settle(pending, answer, is_kept=following is not None)
                if asking.is_hopeless:
                    endpoints.end()
                elif reply is not None:
                    told.add(endpoints)
                    yield reply
            await endpoints.refresh()
            asking.facts = endpoints.facts()
        # Whatever ends it, here or where the replies go; but not what an impatient user does.
        except (Exception, asyncio.CancelledError, GeneratorExit):
            await _drain(asking, endpoints)
            raise


def _size(question: Question | UnwrittenQuestion) -> int:
    return question.num_chars


@dataclass(slots=True)
class _Told:
    """What the progress line was told of the endpoints; stored answers took them nothing."""

    tracker: Tracker
    due: float = 0.0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0

    def add(self, endpoints: Endpoints) -> None:
        """Tells of the endpoints now and then."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + _SECONDS_PER_REPORT
        facts = endpoints.facts()
        self.tracker.report(
            num_prompt_tokens=facts.num_prompt_tokens - self.num_prompt_tokens,
            num_output_tokens=facts.num_output_tokens - self.num_output_tokens,
            cache_hit_rate=facts.cache_hit_fraction,
        )
        self.num_prompt_tokens = facts.num_prompt_tokens
        self.num_output_tokens = facts.num_output_tokens


async def _drain(asking: OpenQuestions, endpoints: Endpoints) -> None:
    """Keeps the answers to what is in flight: they are paid for."""
    endpoints.end()
    if endpoints.num_in_flight:
        logger.warning(
            "%s: stopping. Waiting for %d answers in flight, which are paid for; interrupt once "
            "more to give them up",
            asking.title,
            endpoints.num_in_flight,
        )
    with suppress(OSError):  # where they cannot be kept, that is what it was stopped for
        while endpoints.num_in_flight:
            asking.receive(await endpoints.next_answer())
