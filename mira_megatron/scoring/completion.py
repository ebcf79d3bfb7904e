"""What a server's reply to a chat completion request says: an answer, or a typed failure.

Nothing in a reply is trusted. Its parts are taken only in the types they should have, and an API
key that a server repeats is taken out of whatever is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from mira_megatron.scoring.answer_logprobs import reply_tokens
from mira_megatron.scoring.expected_scores import SlotOdds, answer_odds

NO_LOGPROBS = "no_logprobs"
_MAX_DETAIL_CHARS = 300
_MIN_SECRET_CHARS = 8  # what local servers take for a key ("EMPTY") is an ordinary word
_MOST_TOKENS = 1 << 40

# As OpenAI, vLLM, SGLang, llama.cpp, TGI, Anthropic and Google word it.
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|exceed_context|prompt is too long|maximum model length"
    r"|too many (?:input )?tokens|input token count|`inputs` tokens",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"content[ _](?:filter|policy|management policy)|responsible ?ai ?policy", re.IGNORECASE
)
_REQUEST_AT_FAULT = (400, 413, 422)
_LASTING = (501, 505)
# A gateway gave up; what stands behind it may have finished, and charged for it.
_MAYBE_BILLED = (502, 504)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of one request: a text, or a failure.

    failure is one of timeout, connection, http_<status>, bad_body (not a chat completion),
    no_content (a completion without text), no_logprobs (asked for, and not given), refused,
    too_long (for the model's context), unencodable (messages that are not valid Unicode).
    """

    key: str
    text: str | None = None
    reasoning: str | None = None  # a reasoning model's; never part of the text
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_output_tokens: int | None = None
    failure: str | None = None
    failure_detail: str | None = None  # the server's own words, shortened, without the API key
    is_completion: bool = False  # the server completed it, so it is paid for even without a text
    is_lasting: bool = False  # a failure that the same question would meet again
    is_unsent: bool = False  # a failure of the endpoints: this question never reached one
    # With answer_mode=expected: of every score, and of the answer's first token (text, logprob).
    odds: tuple[SlotOdds, ...] | None = None
    first_top: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What one attempt ended with in place of a completion."""

    kind: str  # as Answer.failure
    detail: str
    is_passing: bool = False  # worth another attempt
    is_maybe_billed: bool = False  # nobody knows whether the server finished it
    wait_seconds: float = 0.0  # the server asked for this much patience


def read_completion(
    received: bytes, key: str, api_key: str | None, *, needs_logprobs: bool = False
) -> Answer | Failure:
    """Returns the answer in the body of a reply with status 200."""
    try:
        completion = orjson.loads(received)
        choice = completion["choices"][0]
        finish_reason = choice.get("finish_reason")
        # At /completions a choice holds its text alone.
        message = choice["message"] if "message" in choice else {"content": choice["text"]}
        refusal = message.get("refusal")
        content = message.get("content")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        usage = completion.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        detail = error_detail(received, api_key)
        return Failure(kind="bad_body", detail=detail, is_maybe_billed=True)
    is_refused = bool(_string(refusal)) or finish_reason == "content_filter"
    text = _string(content) or _string(refusal)
    failure = "refused" if is_refused else None if text else "no_content"
    finished = f"finish_reason: {_string(finish_reason)}"
    tokens = reply_tokens(choice) if needs_logprobs else None
    if needs_logprobs and tokens is None and failure is None:
        detail = "the reply has no top_logprobs for its tokens"
        return Failure(kind=NO_LOGPROBS, detail=detail, is_maybe_billed=True)
    return Answer(
        key=key,
        text=redacted(text, api_key),
        reasoning=redacted(_string(reasoning), api_key),
        finish_reason=redacted(_string(finish_reason), api_key),
        num_prompt_tokens=counted(counts[0]),
        num_output_tokens=counted(counts[1]),
        failure=failure,
        failure_detail=shown(_string(refusal) or finished, api_key) if failure else None,
        is_completion=True,
        odds=None if tokens is None else answer_odds(tokens),
        first_top=None if tokens is None else tokens[0].top,
    )


def read_error(status: int, received: bytes, wait_seconds: float, api_key: str | None) -> Failure:
    """Returns the typed failure of a reply with another status than 200."""
    detail = error_detail(received, api_key)
    kind = f"http_{status}"
    if status in _REQUEST_AT_FAULT:
        kind = "too_long" if _TOO_LONG.search(detail) else kind
        kind = "refused" if _REFUSED.search(detail) else kind
    return Failure(
        kind=kind,
        detail=detail,
        is_passing=status in (408, 429) or (status >= 500 and status not in _LASTING),
        is_maybe_billed=status in _MAYBE_BILLED,
        wait_seconds=wait_seconds,
    )


def error_detail(received: bytes, api_key: str | None) -> str:
    """Returns the words of a body that is no completion."""
    try:
        # Through JSON and back: a key written with escapes would not be recognised.
        text = orjson.dumps(orjson.loads(received)).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # it reads deeper than it writes
        text = received.decode("utf-8", "replace")
    return shown(text, api_key)


def shown(detail: str, api_key: str | None) -> str:
    """Returns the beginning of a server's words, without the API key, as one line.

    Whatever does not print becomes a blank: line breaks and escape sequences could forge log lines,
    and controls of writing direction what a line says.
    """
    beginning = (redacted(detail, api_key) or "")[:_MAX_DETAIL_CHARS]
    return "".join(char if char.isprintable() else " " for char in beginning)


def redacted(text: str | None, api_key: str | None) -> str | None:
    """Returns the text with the API key replaced: some servers quote the key they were sent."""
    if text is None or api_key is None or len(api_key) < _MIN_SECRET_CHARS:
        return text
    escaped = orjson.dumps(api_key).decode()[1:-1]
    return text.replace(api_key, "<api key>").replace(escaped, "<api key>")


def counted(value: Any) -> int | None:
    """Returns a server's count of tokens, None where it is none."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _MOST_TOKENS else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
