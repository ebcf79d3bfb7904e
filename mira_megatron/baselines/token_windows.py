"""Which tokens of a record a reference model sees at once, and which of them count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
