"""A paid answer, the tokens it was paid for with, and the lines of a journal.

    {"sent": 7, "model", "most"}   before a request is sent: the most that it can cost
    {"key", "model", ...}          an answer (StoredAnswer)
    {"ended": 7}                   beside the answer to what was sent, or for a failure without cost

Lines are read as strictly as they are written: a journal is all that is left of what was paid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import SlotOdds

KEY_BYTES = 16
_MAX_COUNT = (1 << 63) - 1  # of tokens: what a column of a segment can hold
_TEXTS = ("text", "reasoning", "finish_reason", "failure", "failure_detail")
_COUNTS = ("num_prompt_tokens", "num_output_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Charged:
    """Tokens that were paid for."""

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0

    def __add__(self, other: Charged) -> Charged:
        return Charged(
            num_prompt_tokens=self.num_prompt_tokens + other.num_prompt_tokens,
            num_output_tokens=self.num_output_tokens + other.num_output_tokens,
        )

    def __sub__(self, other: Charged) -> Charged:
        return Charged(
            num_prompt_tokens=self.num_prompt_tokens - other.num_prompt_tokens,
            num_output_tokens=self.num_output_tokens - other.num_output_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAnswer:
    """An answer as a line of a journal and a row of a segment have it."""

    key: str  # see question_keys
    model: str
    charged: Charged  # what the server counted, or else the most it can have been
    text: str | None
    reasoning: str | None
    finish_reason: str | None
    num_prompt_tokens: int | None  # as the server counted
    num_output_tokens: int | None
    failure: str | None  # of a completion without usable text: refused, no_content
    failure_detail: str | None
    # With answer_mode=expected, as Answer has them; journals from before it hold neither.
    odds: tuple[SlotOdds, ...] | None = None
    first_top: tuple[tuple[str, float], ...] | None = None

    def answer(self, key: str) -> Answer:
        """Returns what was received, as the answer to the request called `key`."""
        return Answer(
            key=key,
            text=self.text,
            reasoning=self.reasoning,
            finish_reason=self.finish_reason,
            num_prompt_tokens=self.num_prompt_tokens,
            num_output_tokens=self.num_output_tokens,
            failure=self.failure,
            failure_detail=self.failure_detail,
            is_completion=True,
            odds=self.odds,
            first_top=self.first_top,
        )


def kept(answer: Answer, *, key: str, model: str, charged: Charged) -> StoredAnswer:
    """Returns what is to be kept of an answer, under a key of question_keys."""
    return StoredAnswer(
        key=key,
        model=model,
        charged=charged,
        text=answer.text,
        reasoning=answer.reasoning,
        finish_reason=answer.finish_reason,
        num_prompt_tokens=answer.num_prompt_tokens,
        num_output_tokens=answer.num_output_tokens,
        failure=answer.failure,
        failure_detail=answer.failure_detail,
        odds=answer.odds,
        first_top=answer.first_top,
    )


_NAMES = [field.name for field in fields(StoredAnswer)]
_FIELDS = frozenset(_NAMES)
_REQUIRED = _FIELDS - {"odds", "first_top"}


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was sent, and the most that it can cost."""

    model: str
    most: Charged


class Charges:
    """Tokens by model: of answers at what they cost, of what was sent and has not ended at most."""

    def __init__(self) -> None:
        self.by_model: dict[str, Charged] = {}
        self.sent: dict[int, Sent] = {}

    def add(self, model: str, charged: Charged) -> None:
        """Counts what was paid for."""
        before = self.by_model.get(model)
        self.by_model[model] = charged if before is None else before + charged

    def send(self, number: int, sent: Sent) -> None:
        """Counts what was sent at its most."""
        self.sent[number] = sent
        self.add(sent.model, sent.most)

    def end(self, number: int) -> None:
        """Takes back the most of what was sent; raises KeyError where nothing was."""
        sent = self.sent.pop(number)
        self.by_model[sent.model] -= sent.most


def answer_line(stored: StoredAnswer) -> bytes:
    """Returns the line of an answer."""
    charged = stored.charged
    content = {  # orjson writes a dict in a third of the time that it takes for the same dataclass
        "key": stored.key,
        "model": stored.model,
        "charged": {
            "num_prompt_tokens": charged.num_prompt_tokens,
            "num_output_tokens": charged.num_output_tokens,
        },
        "text": stored.text,
        "reasoning": stored.reasoning,
        "finish_reason": stored.finish_reason,
        "num_prompt_tokens": stored.num_prompt_tokens,
        "num_output_tokens": stored.num_output_tokens,
        "failure": stored.failure,
        "failure_detail": stored.failure_detail,
        "odds": stored.odds,
        "first_top": stored.first_top,
    }
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def sent_line(number: int, sent: Sent) -> bytes:
    """Returns the line for what is about to be sent."""
    content = {"sent": number, "model": sent.model, "most": sent.most}
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def ended_line(number: int) -> bytes:
    """Returns the line for what was sent and is charged no more."""
    return orjson.dumps({"ended": number}, option=orjson.OPT_APPEND_NEWLINE)


def read_answers(
    path: Path, lines: Iterable[bytes], charges: Charges, *, first: int = 1
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields the content of every answer of a journal, and the bytes of its line.

    `first` is the number of the first of the lines, for errors.

    What was cut off at the end, by a kill, a full disk or a power failure, is ignored. Once all is
    read, `charges` has what the journal charges. Raises ValueError with file and line for a line
    elsewhere that is none of a journal.
    """
    for number, line in enumerate(lines, start=first):
        if not line.endswith(b"\n"):  # a beginning, or NUL bytes of a file that grew without them
            return
        try:
            content = orjson.loads(line)
            is_answer = _take_in(content, charges)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}:{number}: not a stored answer ({error}). Restore the file, or "
                "delete this line to have its question paid for again."
            ) from error
        if is_answer:
            yield content, len(line)


def stored_from(content: Mapping[str, Any]) -> StoredAnswer:
    """Returns the answer of a line's JSON; raises ValueError, TypeError or KeyError for others."""
    _check(content)
    odds, first_top = content.get("odds"), content.get("first_top")
    return StoredAnswer(
        **{
            **content,
            "charged": _charged(content["charged"]),
            "odds": None if odds is None else tuple(SlotOdds(**slot) for slot in odds),
            "first_top": None if first_top is None else tuple(map(tuple, first_top)),
        }
    )


def _take_in(content: Any, charges: Charges) -> bool:
    """Counts what a line charges; returns whether it is an answer."""
    if not isinstance(content, dict):
        raise TypeError("no JSON object")
    if "sent" in content:
        charges.send(content["sent"], Sent(content["model"], _charged(content["most"])))
        return False
    if "ended" in content:
        charges.end(content["ended"])
        return False
    if content.get("odds") is None and content.get("first_top") is None:
        _check(content)
    else:
        stored_from(content)
    charges.add(content["model"], _charged(content["charged"]))
    return True


def _check(content: Mapping[str, Any]) -> None:
    # Lists first: most lines have all fields in their order, and sets take five times as long.
    if list(content) != _NAMES and not _REQUIRED <= content.keys() <= _FIELDS:
        raise KeyError(f"fields {sorted(_REQUIRED ^ content.keys())}")
    if len(content["key"]) != 2 * KEY_BYTES or len(bytes.fromhex(content["key"])) != KEY_BYTES:
        raise ValueError(f"key {content['key']!r}")
    if not isinstance(content["model"], str):
        raise TypeError(f"model {content['model']!r}")
    for name in _TEXTS:
        text = content[name]
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} {text!r}")
    for name in _COUNTS:
        if content[name] is not None:
            _check_count(name, content[name])


def _charged(content: Mapping[str, Any]) -> Charged:
    charged = Charged(**content)
    _check_count("num_prompt_tokens", charged.num_prompt_tokens)
    _check_count("num_output_tokens", charged.num_output_tokens)
    return charged


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or not -_MAX_COUNT <= value <= _MAX_COUNT:
        raise TypeError(f"{name} {value!r}")
