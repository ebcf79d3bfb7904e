"""Which tokens of a record a reference model sees at once, and which of them count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Of a text that is seen in part so many characters a token are encoded, and more where it takes
# more: hundreds of bytes a token would else be spent on what is not looked at.
_CHARS_PER_TOKEN = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Tokens that are seen together; those from `first_target` on are predicted and counted."""

    ids: Sequence[int]
    first_target: int


def windows_of(ids: Sequence[int], window_tokens: int, stride_tokens: int | None) -> list[Window]:
    """Returns the windows of a record's tokens; none where there is nothing to predict.

    Without a stride the first `window_tokens` alone. With one, a window begins every
    `stride_tokens`, and what an earlier window has predicted is only context: every token but the
    first is predicted once. The first token has nothing before it and is never a target.
    """
    if len(ids) < 2:
        return []
    found = [Window(ids=ids[:window_tokens], first_target=1)]
    end = window_tokens
    while stride_tokens is not None and end < len(ids):
        start = end - window_tokens + stride_tokens
        window = ids[start : start + window_tokens]
        found.append(Window(ids=window, first_target=end - start))
        end = start + window_tokens
    return found


def encoded_for(
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], list[list[int]]],
    window_tokens: int,
    stride_tokens: int | None,
) -> list[list[int]]:
    """Returns the tokens of texts, of each as many as its windows need, and some more.

    Where a text is cut, tokens may differ from those of the whole: so it is cut far behind them.
    """
    if stride_tokens is not None:
        return encode(texts)
    most_chars = _CHARS_PER_TOKEN * window_tokens
    found = encode([text[:most_chars] for text in texts])
    for number, text in enumerate(texts):
        num_chars = most_chars
        while num_chars < len(text) and len(found[number]) < 2 * window_tokens:
            num_chars *= 2
            (found[number],) = encode([text[:num_chars]])
    return found
