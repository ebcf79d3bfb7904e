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
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from mira_megatron.progress import Tracker, track
from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.ceilings import Ceilings
from mira_megatron.scoring.completion import NO_LOGPROBS, Answer
from mira_megatron.scoring.endpoint import Endpoints, Request
from mira_megatron.scoring.endpoint_facts import Facts
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.look_ahead import LookAhead
from mira_megatron.scoring.pending import (
    Asker,
    Pending,
    endpoint_settings,
    given,
    resolved,
    stored_answer,
)
from mira_megatron.scoring.questions import (
    Parsed,
    Question,
    Reply,
    explained,
    failure_status,
    outcome,
)
from mira_megatron.scoring.spending import Spending

logger = logging.getLogger(__name__)

# Failures that come of a setting, with what is to be looked at. When the first requests all end in
# these, so will the others.
_SETTING_AT_FAULT = {
    "http_401": "the API key (api_key_env={api_key_env})",
    "http_403": "the API key, or what it may do (api_key_env={api_key_env})",
    "http_404": "the model's name (model={model}) and the URL",
    "connection": "the URL, or start the endpoint",
}
_FIRST_REQUESTS = 20
_MOST_EQUAL = 1_000
_REPLIES_PER_REPORT = 16


async def ask_all(
    questions: Iterable[Question],
    judge: JudgeConfig,
    *,
    seed: int,
    api_key: str | None,
    weights: str | None = None,
    store: AnswerStore,
    read: Callable[[Answer], Parsed],
    num_questions: int,
    title: str,
) -> AsyncGenerator[Reply, None]:
    """Yields one reply per question, in the order in which they are settled.

    `questions` is gone through in a thread, a few ahead of what is asked; `weights` tells models of
    one name apart. Raises ValueError, once
    what is in flight is answered and kept, when more than `judge.max_failed_fraction` of
    `num_questions` got no usable answer or the endpoint seems to be set wrongly (nothing is yielded
    any more from there on), or when the next request does not fit under `judge.spend_ceiling`.
    Cancelled, it ends when what is in flight is answered and kept; a second time, at once.
    """
    async with LookAhead(iter(questions), _size) as look_ahead:
        asking = _Asking(
            questions=look_ahead,
            judge=judge,
            asker=Asker(judge, seed=seed, weights=weights),
            store=store,
            read=read,
            num_questions=num_questions,
            title=title,
        )
        settings = endpoint_settings(judge, api_key)
        with track(title, num_questions) as advance:
            told = _Told(advance)
            async with Endpoints(judge.endpoints, settings, asking.on_lost) as endpoints:
                try:
                    async with aclosing(_replies(asking, endpoints)) as replies:
                        async for reply in replies:
                            told.add(reply, endpoints)
                            advance()
                            yield reply
                    await endpoints.refresh()
                    asking.facts = endpoints.facts()
                # Whatever ends it, in here or where the replies go; but not at once what an
                # impatient user does.
                except (Exception, asyncio.CancelledError, GeneratorExit):
                    await _drain(asking, endpoints)
                    raise
    asking.finish()


def _size(question: Question) -> int:
    return len(question.messages[-1]["content"])


@dataclass(slots=True)
class _Told:
    """What the progress line was told of the endpoints; stored answers took them nothing."""

    tracker: Tracker
    num_replies: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0

    def add(self, reply: Reply, endpoints: Endpoints) -> None:
        """Tells of a reply, and now and then of the endpoints."""
        if reply.answer.failure is not None:
            self.tracker.report(num_failed=1)
        self.num_replies += 1
        if self.num_replies % _REPLIES_PER_REPORT:
            return
        facts = endpoints.facts()
        self.tracker.report(
            num_prompt_tokens=facts.num_prompt_tokens - self.num_prompt_tokens,
            num_output_tokens=facts.num_output_tokens - self.num_output_tokens,
            cache_hit_rate=facts.cache_hit_fraction,
        )
        self.num_prompt_tokens = facts.num_prompt_tokens
        self.num_output_tokens = facts.num_output_tokens


async def _replies(asking: _Asking, endpoints: Endpoints) -> AsyncGenerator[Reply, None]:
    while True:
        following = await asking.following() if endpoints.has_room else None
        if following is not None:
            pending, answer = following
            if answer is None:
                # It leaves when an answer or a question is waited for, together with others.
                endpoints.start(asking.request(pending))
                continue
        elif endpoints.num_in_flight:
            answer = await endpoints.next_answer()
            pending = asking.receive(answer)
        else:
            return
        reply = asking.settle(pending, answer)
        if asking.is_hopeless:
            endpoints.end()
        elif reply is not None:
            yield reply


async def _drain(asking: _Asking, endpoints: Endpoints) -> None:
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


@dataclass(kw_only=True, slots=True)
class _Asking:
    """What is left to ask, what is in flight, and what came of the rest."""

    questions: LookAhead[Question]
    judge: JudgeConfig
    asker: Asker
    store: AnswerStore
    read: Callable[[Answer], Parsed]
    num_questions: int
    title: str
    spending: Spending = field(init=False)
    most_useless: int = field(init=False)  # of the questions, for the run to end well
    again: deque[Pending] = field(default_factory=deque)
    held: Pending | None = None  # may not be started before something has come back
    # Equal to what is in flight, by store key: rather than be paid for twice they wait for it.
    equal: dict[str, list[Pending]] = field(default_factory=dict)
    num_equal: int = 0
    # Equal to what failed for good, with that failure.
    failed: deque[tuple[Pending, Answer]] = field(default_factory=deque)
    in_flight: dict[str, Pending] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # store keys of what is in flight
    useless: Counter[str] = field(default_factory=Counter)
    first_useless: str = ""
    facts: Facts | None = None  # of the endpoints, in the end
    num_settled: int = 0
    num_requests: int = 0
    num_received: int = 0
    num_shut_out: int = 0  # of the first received, before one that no wrong setting explains

    def __post_init__(self) -> None:
        ceilings = Ceilings.of(self.judge)
        self.spending = Spending(store=self.store, model=given(self.judge.model), ceilings=ceilings)
        self.most_useless = ceilings.most_failures(self.num_questions)

    @property
    def is_hopeless(self) -> bool:
        """Returns whether so much has failed that the run will not end well."""
        is_shut_out = self.num_shut_out >= _FIRST_REQUESTS
        return is_shut_out or self.useless.total() > self.most_useless

    async def following(self) -> tuple[Pending, Answer | None] | None:
        """Returns what to ask next, with the answer where it need not be asked, or cannot be.

        None where nothing is left, or something must come back first. What has no answer has its
        most set aside under the ceiling.
        """
        if self.is_hopeless:
            return None
        if self.failed:
            return self.failed.popleft()
        while True:
            pending, self.held = self.held or await self._pending(), None
            if pending is None:
                return None
            answer = self._known(pending)
            if answer is not None:
                return pending, answer
            assert pending.stored_as is not None
            if pending.stored_as in self.asked and self.num_equal < _MOST_EQUAL:
                self.equal.setdefault(pending.stored_as, []).append(pending)
                self.num_equal += 1
                continue
            if pending.stored_as not in self.asked and self.spending.reserve(
                pending.question.key, pending.most
            ):
                return pending, None
            self.held = pending
            return None

    def _known(self, pending: Pending) -> Answer | None:
        """Returns the answer to what need not be asked, or cannot be."""
        if pending.stored_as is None:
            return Answer(
                key=pending.question.key,
                failure="unencodable",
                failure_detail="the record holds half a character, which UTF-8 has no bytes for",
            )
        stored = self.store.get(pending.stored_as)
        return None if stored is None else stored.answer(pending.question.key)

    def request(self, pending: Pending) -> Request:
        """Returns the request for what is to be sent now."""
        assert pending.stored_as is not None
        self.in_flight[pending.question.key] = pending
        self.asked.add(pending.stored_as)
        self.num_requests += 1
        return pending.request()

    def on_lost(self, request: Request) -> bool:
        """Counts an attempt that may have been billed; returns whether another one fits."""
        return self.spending.lose(request.key)

    def receive(self, answer: Answer) -> Pending:
        """Returns what this answers, after keeping the answer if it was paid for."""
        pending = self.in_flight.pop(answer.key)
        assert pending.stored_as is not None
        self.asked.remove(pending.stored_as)
        waiting = self.equal.pop(pending.stored_as, [])
        self.num_equal -= len(waiting)
        if answer.is_lasting:
            self.failed.extend((each, replace(answer, key=each.question.key)) for each in waiting)
        else:
            self.again.extend(waiting)  # they find the answer in the store, or ask themselves
        stored = None
        if answer.is_completion:
            stored = stored_answer(answer, pending, given(self.judge.model))
        self.spending.settle(answer.key, stored)
        self.num_received += 1
        if self.num_received == self.num_shut_out + 1 and answer.failure in _SETTING_AT_FAULT:
            self.num_shut_out += 1
        return pending

    def settle(self, pending: Pending, answer: Answer) -> Reply | None:
        """Returns the reply, or None where the question is to be asked again, or something else.

        Raises ValueError for an endpoint that does not give the log-probabilities asked for.
        """
        if answer.failure == NO_LOGPROBS:
            raise ValueError(self._no_logprobs())
        if pending.doubt is not None:
            answer = resolved(pending.doubt, answer)
        parsed = self.read(answer) if answer.failure is None else None
        is_readable = parsed is not None and parsed.status != "unparsed"
        is_worth_another = answer.is_completion and answer.failure != "refused"
        has_attempts = pending.num_attempts < self.judge.max_attempts
        if not is_readable and is_worth_another and has_attempts:
            self.again.append(self.asker.pending(pending.question, pending.num_attempts + 1))
            return None
        doubtful = self.asker.doubtful(pending, answer) if is_readable else None
        if doubtful is not None:
            self.again.append(doubtful)
            return None
        self.num_settled += 1
        if not is_readable:
            status = failure_status(answer) or "unparsed"
            reason = explained(answer) if answer.failure else "no line of it could be read"
            self.useless[outcome(status, reason)] += 1
            self.first_useless = self.first_useless or f"{status}, {reason}"
        return Reply(
            key=answer.key, answer=answer, num_attempts=pending.num_attempts, parsed=parsed
        )

    def finish(self) -> None:
        """Raises ValueError where the end came before its time; else says what was asked."""
        if self.is_hopeless:
            raise ValueError(self._too_many_failures())
        if self.held is not None:
            raise ValueError(self._ceiling_reached(self.held))
        spent = self.spending.ceilings.cost(self.spending.committed)
        logger.info(
            "%s: %s records, %s requests%s",
            self.title,
            f"{self.num_settled:,}",
            f"{self.num_requests:,}",
            f", {float(spent):,.4f} spent in all" if spent else "",
        )
        if self.facts is not None and self.num_requests:
            logger.info("%s: %s", self.title, self.facts.sentence())

    async def _pending(self) -> Pending | None:
        if self.again:
            return self.again.popleft()
        question = await self.questions.next()
        return None if question is None else self.asker.pending(question, 1)

    def _too_many_failures(self) -> str:
        kinds = ", ".join(f"{kind} {num:,}" for kind, num in sorted(self.useless.items()))
        endpoints = ", ".join(self.judge.endpoints)
        is_too_many = self.useless.total() > self.most_useless
        is_none_usable = self.num_settled == self.useless.total()
        return (
            f"{self.title}: {self.useless.total():,} of {self.num_questions:,} records got no "
            f"usable answer ({kinds}), "
            + (
                self._failures_allowed()
                if is_too_many
                else f"and the first {_FIRST_REQUESTS} requests all failed like this"
            )
            + f". The first: {self.first_useless}. "
            + (f"Nothing usable came from {endpoints}. " if is_none_usable else "")
            + self._way_out()
        )

    def _failures_allowed(self) -> str:
        judge = self.judge
        is_absolute = judge.max_failures is not None and self.most_useless == judge.max_failures
        setting = "max_failures" if is_absolute else "max_failed_fraction"
        return f"more than {setting}={getattr(judge, setting)} allows"

    def _way_out(self) -> str:
        """Returns what to look at, going by the failure that most records have."""
        ((kind, _),) = self.useless.most_common(1)
        at_fault = _SETTING_AT_FAULT.get(kind.removeprefix("failed: "))
        if at_fault is not None:
            judge = self.judge
            settings = at_fault.format(model=judge.model, api_key_env=judge.api_key_env)
            way_out = f"Correct {settings}; then run the same command again"
        elif kind.startswith("failed: "):
            way_out = "Run the same command again when the endpoint is well"
        else:
            way_out = "See whether this model answers as asked, and run the same command again"
        if not len(self.store):
            return f"{way_out}."
        return (
            f"{way_out}: what was paid for is kept in {self.store.folder}, answers that cannot be "
            "read among it (a raised max_attempts has those asked for once more)."
        )

    def _no_logprobs(self) -> str:
        return (
            f"{self.title}: {', '.join(self.judge.endpoints)} gave no log-probabilities, which "
            "answer_mode=expected needs: of the 20 likeliest tokens in every place (top_logprobs). "
            "Ask a vLLM server, or score with answer_mode: full"
        )

    def _ceiling_reached(self, held: Pending) -> str:
        charged, ceilings = self.spending.committed, self.spending.ceilings
        setting = ceilings.fits(charged, held.most)
        assert setting is not None
        return (
            f"{self.title}: {ceilings.reached(setting, charged, held.most)}; "
            f"{self.num_questions - self.num_settled:,} of {self.num_questions:,} records are left "
            f"to ask. Every answer so far is kept in {self.store.folder}: raise {setting} and "
            "run the same command again, or ask about fewer records."
        )
