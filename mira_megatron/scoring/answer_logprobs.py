"""The log-probabilities in a server's reply, as OpenAI and vLLM write them; nothing is trusted."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from mira_megatron.scoring.expected_scores import TOP_LOGPROBS, Token


def reply_tokens(choice: Any) -> tuple[Token, ...] | None:
    """Returns the tokens of a choice with the likeliest in the place of each.

    Without the token that ends the answer. None where the reply does not hold them.
    """
    try:
        entries = choice["logprobs"]["content"]
        tokens = [_token(entry) for entry in entries]
        num_chars = len(_text(choice["message"]["content"]))
    except (LookupError, TypeError, ValueError):
        return None
    if any(not token.top for token in tokens):
        return None
    # Some servers list the token that ended the answer, with or without its text.
    starts = [0, *accumulate(len(token.text) for token in tokens)]
    while tokens and starts[len(tokens) - 1] >= num_chars:
        tokens.pop()
    return tuple(tokens) or None


def _token(entry: Any) -> Token:
    likeliest = entry["top_logprobs"][:TOP_LOGPROBS]
    return Token(_text(entry["token"]), tuple(map(_likely, likeliest)))


def _likely(entry: Any) -> tuple[str, float]:
    logprob = entry["logprob"]
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not logprob <= 0.001:
        raise ValueError("not the logarithm of a probability")
    return _text(entry["token"]), float(logprob)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a token that is no text")
    return value
