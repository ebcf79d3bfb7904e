"""The questions of a run that are not settled yet: which comes next, and what became of each.

Equal questions are asked once: while one is in flight, the others wait for what comes of it. An
answer that cannot be read is asked for again, with the next seed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.ceilings import Ceilings
from mira_megatron.scoring.completion import NO_LOGPROBS, Answer
from mira_megatron.scoring.endpoint import Request
from mira_megatron.scoring.endpoint_facts import Facts
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.look_ahead import LookAhead
from mira_megatron.scoring.pending import Asker, Pending, given, resolved, stored_answer
from mira_megatron.scoring.questions import (
    Parsed,
    Question,
    Reply,
    UnwrittenQuestion,
    explained,
    not_kept,
)
from mira_megatron.scoring.spending import Spending
from mira_megatron.scoring.usefulness import Usefulness

logger = logging.getLogger(__name__)

_MOST_EQUAL = 1_000


@dataclass(kw_only=True, slots=True)
class OpenQuestions:
    """What is left to ask, what is in flight, and what came of the rest."""

    questions: LookAhead[Question | UnwrittenQuestion]  # that were not attempted
    judge: JudgeConfig
    asker: Asker
    store: AnswerStore
    read: Callable[[Answer], Parsed]
    num_questions: int
    title: str
    asks: bool = True  # False: only what was answered before
    spending: Spending = field(init=False)
    usefulness: Usefulness = field(init=False)
    again: deque[Pending] = field(default_factory=deque)
    held: Pending | None = None  # may not be started before something has come back
    # Equal to what is in flight, by store key: rather than be paid for twice they wait for it.
    equal: dict[str, list[Pending]] = field(default_factory=dict)
    num_equal: int = 0
    # Equal to what failed for good, with that failure.
    failed: deque[tuple[Pending, Answer]] = field(default_factory=deque)
    in_flight: dict[str, Pending] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # store keys of what is in flight
    facts: Facts | None = None  # of the endpoints, in the end
    num_requests: int = 0
    given_up: Answer | None = None  # to a question that no endpoint takes any more

    def __post_init__(self) -> None:
        ceilings = Ceilings.of(self.judge)
        self.spending = Spending(store=self.store, model=given(self.judge.model), ceilings=ceilings)
        self.usefulness = Usefulness(
            judge=self.judge, num_questions=self.num_questions, title=self.title
        )

    @property
    def is_hopeless(self) -> bool:
        """Returns whether so much has failed that the run will not end well."""
        return self.asks and self.usefulness.is_hopeless

    async def following(self) -> tuple[Pending, Answer | None] | None:
        """Returns what to ask next, with the answer where it need not be asked, or cannot be.

        None where nothing is left, or something must come back first. What has no answer has its
        most set aside under the ceiling.
        """
        if self.is_hopeless or self.given_up is not None:
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
        if pending.known is not None:
            return pending.known
        if pending.stored_as is None:
            return Answer(
                key=pending.question.key,
                failure="unencodable",
                failure_detail="the record holds half a character, which UTF-8 has no bytes for",
            )
        stored = self.store.get(pending.stored_as)
        if stored is not None:
            return stored.answer(pending.question.key)
        return None if self.asks else not_kept(pending.question.key)

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

    def keep(self, answer: Answer) -> None:
        """Keeps an answer that was paid for: a process that is killed from here on has it."""
        stored = stored_answer(answer, self.in_flight[answer.key], given(self.judge.model))
        self.spending.settle(answer.key, stored)

    def receive(self, answer: Answer) -> Pending:
        """Returns what this answers; a completion was kept before."""
        pending = self.in_flight.pop(answer.key)
        assert pending.stored_as is not None
        self.asked.remove(pending.stored_as)
        waiting = self.equal.pop(pending.stored_as, [])
        self.num_equal -= len(waiting)
        if answer.is_lasting:
            self.failed.extend((each, replace(answer, key=each.question.key)) for each in waiting)
        else:
            self.again.extend(waiting)  # they find the answer in the store, or ask themselves
        if not answer.is_completion:
            self.spending.settle(answer.key, None)
        self.usefulness.receive(answer)
        if answer.is_unsent and self.usefulness.is_under_way and not self.is_hopeless:
            self.given_up = answer
        return pending

    def settle(self, pending: Pending, answer: Answer, *, is_kept: bool) -> Reply | None:
        """Returns the reply, or None where the question is to be asked again, or something else.

        `is_kept` says that this answer was not asked for now. Raises ValueError for an endpoint
        that does not give the log-probabilities asked for.
        """
        if answer.failure == NO_LOGPROBS:
            raise ValueError(self._no_logprobs())
        if answer.is_unsent and (self.given_up is not None or self.is_hopeless):
            return None  # it stays open: there is nothing to say of its record
        if pending.doubt is not None:
            answer = resolved(pending.doubt, answer)
        parsed = self.read(answer) if answer.failure is None else None
        is_readable = parsed is not None and parsed.status != "unparsed"
        is_worth_another = answer.is_completion and answer.failure != "refused"
        if not is_readable and is_worth_another:
            another = self._another_attempt(pending)
            if another is not None:
                self.again.append(another)
                return None
        doubtful = self.asker.doubtful(pending, answer) if is_readable else None
        if doubtful is not None:
            self.again.append(doubtful)
            return None
        self.usefulness.settle(answer, is_readable=is_readable)
        return Reply(
            key=answer.key,
            answer=answer,
            num_attempts=pending.num_attempts,
            is_kept=is_kept,
            parsed=parsed,
        )

    def finish(self) -> None:
        """Raises ValueError where the end came before its time; else says what was asked."""
        if self.is_hopeless:
            answers = self.store.folder if len(self.store) else None
            raise ValueError(self.usefulness.too_many_failures(answers))
        if self.given_up is not None:
            raise ValueError(self._no_endpoint(self.given_up))
        if self.held is not None:
            raise ValueError(self._ceiling_reached(self.held))
        spent = self.spending.ceilings.cost(self.spending.committed)
        logger.info(
            "%s: %s records, %s requests%s",
            self.title,
            f"{self.usefulness.num_settled:,}",
            f"{self.num_requests:,}",
            f", {float(spent):,.4f} spent in all" if spent else "",
        )
        if self.facts is not None and self.num_requests:
            logger.info("%s: %s", self.title, self.facts.sentence())

    async def _pending(self) -> Pending | None:
        if self.again:
            return self.again.popleft()
        question = await self.questions.next()
        return None if question is None else self.asker.pending(question.written(), 1)

    def _another_attempt(self, pending: Pending) -> Pending | None:
        """Returns the same question with the next seed, None after the last attempt there is."""
        if pending.num_attempts == self.judge.max_attempts:
            return None
        another = self.asker.pending(pending.question, pending.num_attempts + 1)
        is_kept = another.stored_as is not None and another.stored_as in self.store
        return another if self.asks or is_kept else None

    def _no_logprobs(self) -> str:
        endpoints = ", ".join(self.judge.endpoints)
        if self.asker.losses is not None:
            return (
                f"{self.title}: {endpoints} gave no log-probabilities of the prompt's own tokens "
                "(prompt_logprobs). Ask a vLLM server, or measure with engine: transformers"
            )
        return (
            f"{self.title}: {endpoints} gave no log-probabilities, which "
            "answer_mode=expected needs: of the 20 likeliest tokens in every place (top_logprobs). "
            "Ask a vLLM server, or score with answer_mode: full"
        )

    def _no_endpoint(self, answer: Answer) -> str:
        return (
            f"{self.title}: {', '.join(self.judge.endpoints)} took no request any more "
            f"({explained(answer)}); {self._left()}: run the same command again when an endpoint "
            "is well."
        )

    def _left(self) -> str:
        return (
            f"{self.num_questions - self.usefulness.num_settled:,} of {self.num_questions:,} "
            f"records are left to ask. Every answer so far is kept in {self.store.folder}"
        )

    def _ceiling_reached(self, held: Pending) -> str:
        charged, ceilings = self.spending.committed, self.spending.ceilings
        setting = ceilings.fits(charged, held.most)
        assert setting is not None
        return (
            f"{self.title}: {ceilings.reached(setting, charged, held.most)}; {self._left()}: raise "
            f"{setting} and run the same command again, or ask about fewer records."
        )
