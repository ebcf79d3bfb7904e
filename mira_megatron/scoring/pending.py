"""What is to be asked of an endpoint next, and the line that is kept of its answer.

With expected scores a question may be followed by others about its answer (see expected_scores): by
"what comes after this answer's beginning and a 1?" for every slot where that decides something.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.scoring.answer_store import Charged, StoredAnswer
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.endpoint import EndpointSettings, Request
from mira_megatron.scoring.expected_scores import (
    SlotOdds,
    text_before_score,
    zero_probability,
)
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.prompt_losses import (
    FIELDS,
    NOTHING_ASKED,
    PromptLosses,
    SummedLoss,
    num_tokens_of,
    num_windows_of,
    summed_text,
)
from mira_megatron.scoring.question_keys import QuestionKeys, encoded_messages
from mira_megatron.scoring.questions import Question
from mira_megatron.scoring.record_seed import record_seed
from mira_megatron.scoring.stored_answer import kept

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """An answer, and the slot of it about which more is asked."""

    answer: Answer
    odds: SlotOdds

    @property
    def beginning(self) -> str:
        """Returns what the judge is to go on from."""
        return f"{text_before_score(self.answer.text or '', self.odds.slot)}1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """One request, not sent or not answered yet."""

    question: Question
    num_attempts: int  # this one included
    seed: int
    stored_as: str | None  # None for messages that no request can carry
    most: Charged
    encoded: bytes  # the JSON of the question's messages
    doubt: Doubt | None = None
    known: Answer | None = None  # without asking: there is nothing to ask about

    def request(self) -> Request:
        """Returns what to send."""
        return Request(
            key=self.question.key,
            messages=self.question.messages,
            encoded=None if self.doubt else self.encoded,
            seed=self.seed,
            beginning=None if self.doubt is None else self.doubt.beginning,
        )


class Asker:
    """Makes requests of questions, for one judge."""

    def __init__(
        self,
        judge: JudgeConfig,
        *,
        seed: int,
        weights: str | None,
        losses: PromptLosses | None = None,
    ) -> None:
        self._judge = judge
        self.losses = losses
        self._seed = seed
        # What an answer depends on besides what the request says.
        self._more: tuple[object, ...] = () if weights is None else (weights,)
        if judge.answer_mode != "full":
            self._more = (*self._more, judge.answer_mode)
        if losses is not None:
            self._more = (*self._more, "prompt_losses", losses.context_tokens)
        self._keys: dict[tuple[int, int], QuestionKeys] = {}  # by most output tokens and attempt

    def pending(self, question: Question, num_attempts: int, doubt: Doubt | None = None) -> Pending:
        """Returns the request for a question, or about an answer to it."""
        if self.losses is not None:
            return self._windows(question, num_attempts)
        max_tokens = given(self._judge.max_tokens) if doubt is None else 1
        messages: Sequence[dict[str, str]] = question.messages
        if doubt is not None:
            messages = [*messages, {"role": "assistant", "content": doubt.beginning}]
        stored_as, encoded = None, b""
        with suppress(orjson.JSONEncodeError):
            each = encoded_messages(messages)
            stored_as = self._keys_of(max_tokens, num_attempts).key(each)
            encoded = b"".join((b"[", b",".join(each), b"]"))
        return Pending(
            question=question,
            num_attempts=num_attempts,
            seed=record_seed(self._seed, question.record_id, num_attempts),
            stored_as=stored_as,
            # A token is at least one byte of the text it stands for.
            most=Charged(num_prompt_tokens=len(encoded), num_output_tokens=max_tokens),
            encoded=encoded,
            doubt=doubt,
        )

    def _windows(self, question: Question, num_attempts: int) -> Pending:
        """Returns the request for the losses of a record's windows."""
        content = question.messages[-1]["content"]
        encoded = content.encode()
        known = None
        if content == NOTHING_ASKED:
            nothing = summed_text(SummedLoss(nats=0.0, num_targets=0))
            known = Answer(key=question.key, text=nothing)
        return Pending(
            question=question,
            num_attempts=num_attempts,
            seed=self._seed,
            stored_as=self._keys_of(given(self._judge.max_tokens), num_attempts).key([encoded]),
            most=Charged(
                num_prompt_tokens=num_tokens_of(encoded), num_output_tokens=num_windows_of(encoded)
            ),
            encoded=encoded,
            known=known,
        )

    def _keys_of(self, max_tokens: int, num_attempts: int) -> QuestionKeys:
        """Returns what makes keys. Of equal records one is asked, so their own seeds are no part.

        The recipe's seed and the attempt are: another one is another answer.
        """
        keys = self._keys.get((max_tokens, num_attempts))
        if keys is None:
            judge = self._judge
            sampling = (judge.temperature, judge.top_p, max_tokens, self._seed, num_attempts)
            keys = QuestionKeys([given(judge.model), *sampling, *self._more, judge.request_fields])
            self._keys[max_tokens, num_attempts] = keys
        return keys

    def doubtful(self, pending: Pending, answer: Answer) -> Pending | None:
        """Returns what else is to be asked before an answer is whole, None for nothing."""
        open_slots = (odds for odds in answer.odds or () if odds.is_open)
        odds = next(open_slots, None)
        if odds is None:
            return None
        doubt = Doubt(answer=answer, odds=odds)
        return self.pending(pending.question, pending.num_attempts, doubt)


def resolved(doubt: Doubt, answer: Answer) -> Answer:
    """Returns the answer that the doubt was about, with what was said to it.

    Where that failed it is returned instead: it is the record's failure.
    """
    if answer.first_top is None:
        return answer
    told = doubt.odds.with_zero(zero_probability(answer.first_top))
    odds = tuple(told if each is doubt.odds else each for each in doubt.answer.odds or ())
    return replace(doubt.answer, odds=odds)


def stored_answer(answer: Answer, pending: Pending, model: str) -> StoredAnswer:
    """Returns the line to keep; tokens that the server did not count are charged at their most."""
    assert pending.stored_as is not None
    num_prompt, num_output = answer.num_prompt_tokens, answer.num_output_tokens
    most = pending.most
    charged = Charged(
        num_prompt_tokens=most.num_prompt_tokens if num_prompt is None else num_prompt,
        num_output_tokens=most.num_output_tokens if num_output is None else num_output,
    )
    return kept(answer, key=pending.stored_as, model=model, charged=charged)


def endpoint_settings(
    judge: JudgeConfig, api_key: str | None, losses: PromptLosses | None = None
) -> EndpointSettings:
    """Returns how a judge's endpoints are asked."""
    return EndpointSettings(
        model=given(judge.model),
        temperature=given(judge.temperature),
        top_p=given(judge.top_p),
        max_tokens=given(judge.max_tokens),
        max_in_flight=judge.max_in_flight,
        timeout_seconds=judge.timeout_seconds,
        max_retries=judge.max_retries,
        patience_seconds=judge.patience_seconds,
        request_fields={
            **guided_fields(judge),
            **({} if losses is None else FIELDS),
            **judge.request_fields,
        },
        is_text=losses is not None,
        losses=losses,
        has_logprobs=judge.answer_mode == "expected",
        api_key=api_key,
    )


def guided_fields(judge: JudgeConfig) -> dict[str, Any]:
    """Returns the fields that have vLLM hold an answer to its form; request_fields go before them.

    So a server that calls them otherwise can be told in its own words.
    """
    if judge.answer_mode != "scores_only":
        return {}
    return {"structured_outputs": {"regex": SCORES_REGEX}}


def given(value: Value | None) -> Value:
    """Returns a setting that is there."""
    assert value is not None, "JudgeConfig refuses engine=endpoint without it"
    return value
