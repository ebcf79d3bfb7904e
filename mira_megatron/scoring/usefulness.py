"""Whether a run of questions can still end well, and what to say when it cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mira_megatron.scoring.ceilings import Ceilings
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.questions import explained, failure_status, outcome

# Failures that come of a setting, with what is to be looked at. When the first requests all end in
# these, so will the others.
_SETTING_AT_FAULT = {
    "http_401": "the API key (api_key_env={api_key_env})",
    "http_403": "the API key, or what it may do (api_key_env={api_key_env})",
    "http_404": "the model's name (model={model}) and the URL",
    "connection": "the URL, or start the endpoint",
}
_FIRST_REQUESTS = 20


@dataclass(kw_only=True, slots=True)
class Usefulness:
    """Counts answers of no use, among `num_questions` that are asked."""

    judge: JudgeConfig
    num_questions: int
    title: str
    num_settled: int = 0
    _most_useless: int = field(init=False)  # of the questions, for the run to end well
    _useless: Counter[str] = field(default_factory=Counter)  # of the settled, by kind
    _num_useless: int = 0
    _first_useless: str = ""
    _num_received: int = 0
    _num_shut_out: int = 0  # of the first received, before one that no wrong setting explains

    def __post_init__(self) -> None:
        self._most_useless = Ceilings.of(self.judge).most_failures(self.num_questions)

    @property
    def is_hopeless(self) -> bool:
        """Returns whether so much has failed that the run will not end well."""
        is_shut_out = self._num_shut_out >= _FIRST_REQUESTS
        return is_shut_out or self._num_useless > self._most_useless

    @property
    def is_under_way(self) -> bool:
        """Returns whether an endpoint has answered as it should: what fails then is no setting."""
        return self._num_received > self._num_shut_out

    def receive(self, answer: Answer) -> None:
        """Counts what came of a request."""
        self._num_received += 1
        if self._num_received == self._num_shut_out + 1 and answer.failure in _SETTING_AT_FAULT:
            self._num_shut_out += 1

    def settle(self, answer: Answer, *, is_readable: bool) -> None:
        """Counts the last answer to a question."""
        self.num_settled += 1
        if not is_readable:
            status = failure_status(answer) or "unparsed"
            reason = explained(answer) if answer.failure else "no line of it could be read"
            self._useless[outcome(status, reason)] += 1
            self._num_useless += 1
            self._first_useless = self._first_useless or f"{status}, {reason}"

    def too_many_failures(self, answers: Path | None) -> str:
        """Returns what is wrong and the way out; `answers` is where what was paid for lies."""
        kinds = ", ".join(f"{kind} {num:,}" for kind, num in sorted(self._useless.items()))
        endpoints = ", ".join(self.judge.endpoints)
        is_too_many = self._num_useless > self._most_useless
        is_none_usable = self.num_settled == self._num_useless
        return (
            f"{self.title}: {self._num_useless:,} of {self.num_questions:,} records got no "
            f"usable answer ({kinds}), "
            + (
                self._failures_allowed()
                if is_too_many
                else f"and the first {_FIRST_REQUESTS} requests all failed like this"
            )
            + f". The first: {self._first_useless}. "
            + (f"Nothing usable came from {endpoints}. " if is_none_usable else "")
            + self._way_out(answers)
        )

    def _failures_allowed(self) -> str:
        judge = self.judge
        is_absolute = judge.max_failures is not None and self._most_useless == judge.max_failures
        setting = "max_failures" if is_absolute else "max_failed_fraction"
        return f"more than {setting}={getattr(judge, setting)} allows"

    def _way_out(self, answers: Path | None) -> str:
        """Returns what to look at, going by the failure that most records have."""
        ((kind, _),) = self._useless.most_common(1)
        at_fault = _SETTING_AT_FAULT.get(kind.removeprefix("failed: "))
        if at_fault is not None:
            judge = self.judge
            settings = at_fault.format(model=judge.model, api_key_env=judge.api_key_env)
            way_out = f"Correct {settings}; then run the same command again"
        elif kind.startswith("failed: "):
            way_out = "Run the same command again when the endpoint is well"
        else:
            way_out = "See whether this model answers as asked, and run the same command again"
        if answers is None:
            return f"{way_out}."
        return (
            f"{way_out}: what was paid for is kept in {answers}, answers that cannot be "
            "read among it (a raised max_attempts has those asked for once more)."
        )
