"""Asks endpoints for the answers that are planned, over the transport of teachers and scorers.

An answer is kept before another request takes its place. What no server completed is asked for
again by the transport (429, 503, connections, timeouts), and here where the body made no sense;
after that it is left open, for the next run. A prompt that the model's context cannot hold, or
that the endpoint refuses for its content, is an answer without a text.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import orjson

from mira_megatron.eval.answers.stop_words import cut_at_stop
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.generation.generations import Generation, GenerationFile
from mira_megatron.eval.generation.planned import Planned, by_request_settings
from mira_megatron.progress import Tracker, track
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.endpoint import Endpoints, EndpointSettings, Request

logger = logging.getLogger(__name__)

_MOST_STOP_WORDS = 4  # that OpenAI and vLLM take; at all of them the text is cut here
_ATTEMPTS = 3  # at an answer whose body makes no sense
_MOST_FAILURES_IN_A_ROW = 32  # as where a key or a field of the request is wrong
_REASONS = {
    "no_content": "empty",
    "refused": "refused",
    "too_long": "too_long",
    "unencodable": "unencodable",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is asked of whom, and how patiently."""

    endpoints: tuple[str, ...]  # base URLs
    model: str
    max_in_flight: int = 64  # at each endpoint; found by trying, up to this
    timeout_seconds: float = 600.0  # of one attempt
    max_retries: int = 5
    patience_seconds: float = 600.0  # while no endpoint can be reached
    backoff_seconds: float = 0.5  # before the first retry; doubles each time
    api_key: str | None = field(default=None, repr=False)


class NotGeneratedError(ValueError):
    """Some answers are open; those that came are kept."""


def generate(
    planned: Sequence[Planned], asked: Asked, file: GenerationFile, *, title: str, num_done: int
) -> None:
    """Has every planned answer generated and written; `num_done` others were before.

    Raises NotGeneratedError, after everything else was asked for, where some got none; also as soon
    as only failures come.
    """
    with track(title, num_done + len(planned), num_done=num_done) as tracker:
        run = _Run(asked=asked, file=file, title=title, tracker=tracker)
        for group in by_request_settings(planned):
            if not run.is_hopeless:
                asyncio.run(run.ask(group))
    run.check(len(planned))


@dataclass(kw_only=True, slots=True)
class _Run:
    asked: Asked
    file: GenerationFile
    title: str
    tracker: Tracker
    failures: Counter[str] = field(default_factory=Counter)
    first_failure: str = ""
    num_written: int = 0
    num_failures_in_a_row: int = 0
    is_unreachable: bool = False

    @property
    def is_hopeless(self) -> bool:
        """Returns whether nothing but failures comes, or no endpoint can be reached."""
        return self.is_unreachable or self.num_failures_in_a_row >= _MOST_FAILURES_IN_A_ROW

    async def ask(self, planned: Sequence[Planned]) -> None:
        """Asks for answers whose requests have the same settings."""
        waiting = deque(str(number) for number in range(len(planned)))
        attempts: Counter[str] = Counter()

        def keep(answer: Answer) -> None:
            self.write(planned[int(answer.key)], answer)

        settings = _settings(planned[0], self.asked)
        async with Endpoints(self.asked.endpoints, settings, on_answer=keep) as endpoints:
            try:
                while True:
                    if waiting and endpoints.has_room and not self.is_hopeless:
                        key = waiting.popleft()
                        attempts[key] += 1
                        endpoints.start(_request(key, planned[int(key)]))
                    elif endpoints.num_in_flight:
                        answer = await endpoints.next_answer()
                        if answer.failure == "bad_body" and attempts[answer.key] < _ATTEMPTS:
                            waiting.append(answer.key)
                        else:
                            self.receive(planned[int(answer.key)], answer)
                        if self.is_hopeless:
                            endpoints.end()
                    else:
                        return
            except (Exception, asyncio.CancelledError):
                await self._drain(endpoints, planned)
                raise

    def receive(self, planned: Planned, answer: Answer) -> None:
        """Counts what came; what was completed has been written."""
        if answer.is_completion:
            return
        if answer.failure in _REASONS:
            self.write(planned, answer)
            return
        assert answer.failure is not None, "an answer that is no completion has failed"
        self.failures[answer.failure] += 1
        self.first_failure = self.first_failure or f"{answer.failure}: {answer.failure_detail}"
        self.num_failures_in_a_row += 1
        self.is_unreachable = self.is_unreachable or answer.is_unsent
        self.tracker.report(num_failed=1)

    def write(self, planned: Planned, answer: Answer) -> None:
        """Writes an answer's line."""
        self.file.append(generation_of(planned, answer))
        self.num_written += 1
        self.num_failures_in_a_row = 0
        self.tracker()
        self.tracker.report(
            num_prompt_tokens=answer.num_prompt_tokens or 0,
            num_output_tokens=answer.num_output_tokens or 0,
        )

    def check(self, num_planned: int) -> None:
        """Raises NotGeneratedError where an answer is missing."""
        missing = num_planned - self.num_written
        if missing:
            kinds = ", ".join(f"{kind} {num:,}" for kind, num in sorted(self.failures.items()))
            raise NotGeneratedError(
                f"{self.title}: {missing:,} of {num_planned:,} answers are open ({kinds}); the "
                f"first failure was {self.first_failure}. The others are kept: the same command "
                "asks for these again"
            )

    async def _drain(self, endpoints: Endpoints, planned: Sequence[Planned]) -> None:
        """Keeps the answers to what is in flight: they are paid for."""
        endpoints.end()
        if endpoints.num_in_flight:
            logger.warning(
                "%s: stopping. Waiting for %d answers in flight, which are paid for; interrupt "
                "once more to give them up",
                self.title,
                endpoints.num_in_flight,
            )
        with suppress(OSError):  # where they cannot be kept, that is what it was stopped for
            while endpoints.num_in_flight:
                answer = await endpoints.next_answer()
                self.receive(planned[int(answer.key)], answer)


def _settings(planned: Planned, asked: Asked) -> EndpointSettings:
    prompt = planned.prompt
    fields: dict[str, object] = {}
    if prompt.stop:
        fields["stop"] = list(prompt.stop[:_MOST_STOP_WORDS])
    if planned.beginning:
        # vLLM's and SGLang's words for an answer that goes on from its beginning.
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    return EndpointSettings(
        model=asked.model,
        temperature=planned.profile.temperature,
        top_p=planned.profile.top_p,
        max_tokens=prompt.max_tokens,
        max_in_flight=asked.max_in_flight,
        timeout_seconds=asked.timeout_seconds,
        max_retries=asked.max_retries,
        patience_seconds=asked.patience_seconds,
        backoff_seconds=asked.backoff_seconds,
        request_fields=fields,
        is_text=planned.style is Style.COMPLETION,
        api_key=asked.api_key,
    )


def _request(key: str, planned: Planned) -> Request:
    prompt = planned.prompt
    if planned.style is Style.CHAT:
        return Request(key=key, messages=prompt.messages, seed=planned.seed)
    # Text that is not valid Unicode is left to the transport, whose answer says so.
    encoded = None
    with suppress(orjson.JSONEncodeError):
        encoded = orjson.dumps(prompt.text)
    as_message = ({"role": "user", "content": prompt.text},)
    return Request(key=key, messages=as_message, encoded=encoded, seed=planned.seed)


def generation_of(planned: Planned, answer: Answer) -> Generation:
    """Returns the line of an answer that came, or of what cannot be answered (see _REASONS)."""
    reason = None if answer.failure is None else _REASONS[answer.failure]
    text, finish_reason = None, answer.finish_reason
    if reason is None and answer.text is not None:
        ended = cut_at_stop(answer.text, planned.prompt.stop)
        finish_reason = finish_reason if ended == answer.text else "stop"
        text = planned.beginning + ended
    return Generation(
        task_id=planned.task_id,
        sample=planned.number,
        prompt_digest=planned.prompt_digest,
        template=planned.prompt.template,
        sampling=planned.sampling,
        seed=planned.seed,
        form=planned.form,
        text=text,
        finish_reason=finish_reason,
        num_prompt_tokens=answer.num_prompt_tokens,
        num_output_tokens=answer.num_output_tokens,
        reason=reason,
    )
