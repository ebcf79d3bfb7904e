"""The losses of a prompt's own tokens, by a server that gives their log-probabilities (vLLM).

The prompt of a request is a list of windows of token ids, as /completions takes them; vLLM's field
`prompt_logprobs: 0` has it say the log-probability of every one of them, given those before it.
What is kept of a reply is a sum: the log-probabilities of a corpus would be larger than itself.

    [12.375, 3]   the answer's text: the loss of all targets together in nats, and how many they are

Nothing in a reply is trusted: windows, tokens and their order must be those that were asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from mira_megatron.scoring.completion import (
    NO_LOGPROBS,
    Answer,
    Failure,
    counted,
    error_detail,
)

# For one generated token, which vLLM needs to be asked for; a seed would change nothing.
FIELDS = {"prompt_logprobs": 0, "seed": None}
NOTHING_ASKED = "[]"  # the prompt without a window
_ABOVE_ZERO = 1e-3  # of a logarithm of a probability, by rounding


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLosses:
    """Which tokens of a prompt's windows count; the first of every window has no loss."""

    context_tokens: int  # of every window but the first, that an earlier one has predicted


@dataclass(frozen=True, kw_only=True, slots=True)
class SummedLoss:
    """The loss of a prompt's targets together."""

    nats: float
    num_targets: int

    @property
    def status(self) -> str:
        """Returns ok: what could not be read is a failure of its request."""
        return "ok"


def prompt_text(windows: Sequence[Sequence[int]]) -> str:
    """Returns the prompt of a request, as JSON."""
    return orjson.dumps([list(window) for window in windows]).decode()


def num_tokens_of(prompt: bytes) -> int:
    """Returns how many token ids a prompt of prompt_text holds."""
    return prompt.count(b",") + 1


def num_windows_of(prompt: bytes) -> int:
    """Returns how many windows a prompt of prompt_text holds."""
    return prompt.count(b"[") - 1


def summed_text(loss: SummedLoss) -> str:
    """Returns a sum as an answer's text."""
    return orjson.dumps([loss.nats, loss.num_targets]).decode()


def summed_loss(text: str) -> SummedLoss:
    """Returns the sum that an answer's text holds."""
    nats, num_targets = orjson.loads(text)
    return SummedLoss(nats=float(nats), num_targets=int(num_targets))


def read_losses(
    received: bytes, sent: bytes, key: str, api_key: str | None, losses: PromptLosses
) -> Answer | Failure:
    """Returns the summed loss in the body of a reply with status 200 to the request `sent`.

    Its failure is no_logprobs where the server gives none, and bad_body where they are not of the
    tokens asked about.
    """
    windows = orjson.loads(sent)["prompt"]
    try:
        completion = orjson.loads(received)
        choices = sorted(completion["choices"], key=lambda choice: choice["index"])
        lists = [choice.get("prompt_logprobs") for choice in choices]
        usage = completion.get("usage") or {}
        counts = counted(usage.get("prompt_tokens")), counted(usage.get("completion_tokens"))
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return _bad_body(error_detail(received, api_key))
    if lists and all(each is None for each in lists):
        detail = "the reply has no prompt_logprobs"
        return Failure(kind=NO_LOGPROBS, detail=detail, is_maybe_billed=True)
    try:
        found = [
            _losses(window, entries, losses.context_tokens if number else 1)
            for number, (window, entries) in enumerate(zip(windows, lists, strict=True))
        ]
    except (LookupError, TypeError, ValueError, AttributeError):
        return _bad_body("its prompt_logprobs are not of the tokens asked about")
    total = SummedLoss(nats=math.fsum(chain.from_iterable(found)), num_targets=sum(map(len, found)))
    return Answer(
        key=key,
        text=summed_text(total),
        num_prompt_tokens=counts[0],
        num_output_tokens=counts[1],
        is_completion=True,
    )


def _losses(window: Sequence[int], entries: Any, first_target: int) -> list[float]:
    """Returns the losses of a window's targets; raises for entries that are not of its tokens."""
    if not isinstance(entries, list) or len(entries) != len(window):
        raise ValueError("another number of tokens")
    targets = zip(window[first_target:], entries[first_target:], strict=True)
    return [-_logprob(entry[str(token)]["logprob"]) for token, entry in targets]


def _logprob(value: Any) -> float:
    # vLLM writes -9999 for a probability of zero; JSON has neither NaN nor infinities.
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _ABOVE_ZERO:
        raise ValueError("not the logarithm of a probability")
    return float(value)


def _bad_body(detail: str) -> Failure:
    return Failure(kind="bad_body", detail=detail, is_maybe_billed=True)
