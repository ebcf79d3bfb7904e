"""What a judge is asked about a record, and what comes back, whoever answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mira_megatron.scoring.completion import Answer

NOT_KEPT = "not_kept"  # never a row's: see Judging.settled
# Failures that are a status of their own; every other one is `failed`.
_STATUS_OF_FAILURE = {"refused": "refused", "too_long": "too_long"}
FAILURE_STATUSES = ("failed", *_STATUS_OF_FAILURE.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a judge is to be asked about one record."""

    key: str  # returned with the reply; no two questions of a run have the same
    record_id: str
    messages: Sequence[dict[str, str]]

    @property
    def num_chars(self) -> int:
        """Returns the length of what is asked, without what all questions of a group share."""
        return len(self.messages[-1]["content"])

    def written(self) -> Question:
        """Returns itself."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class UnwrittenQuestion:
    """A question whose messages are made when it is its turn, of what the judge is to be shown."""

    key: str  # as Question
    record_id: str
    view_text: str
    messages: Callable[[str], Sequence[dict[str, str]]]

    @property
    def num_chars(self) -> int:
        """Returns the length of what is shown."""
        return len(self.view_text)

    def written(self) -> Question:
        """Returns the question with its messages."""
        messages = self.messages(self.view_text)
        return Question(key=self.key, record_id=self.record_id, messages=messages)


class Parsed(Protocol):
    """What could be read of an answer."""

    @property
    def status(self) -> str:
        """Returns unparsed where that is nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The last answer to a question."""

    key: str
    answer: Answer
    num_attempts: int  # answers asked for, the last of which is this one
    is_kept: bool = field(default=False, compare=False)  # it was not asked for now
    parsed: Any = None  # what could be read of it (Parsed); None of one that failed


def not_kept(key: str) -> Answer:
    """Returns the answer to a question that is not to be asked, and was not answered before."""
    return Answer(key=key, failure=NOT_KEPT, failure_detail="no answer to it is kept")


def failure_status(answer: Answer) -> str | None:
    """Returns the rating status of an answer that failed, None of one that can be parsed."""
    if answer.failure is None:
        return None
    return _STATUS_OF_FAILURE.get(answer.failure, "failed")


def outcome(status: str, reason: str | None) -> str:
    """Returns what counts call a row: its status, and of a failure the kind its reason begins with.

    Kinds are those of completion.Answer.failure; a failed row's reason is written by `explained`.
    """
    return f"failed: {(reason or '').partition(':')[0]}" if status == "failed" else status


def explained(answer: Answer) -> str:
    """Returns a failed answer's reason: its kind, and the server's words."""
    return f"{answer.failure}: {answer.failure_detail}"
