"""Where a raw completion ends: at the first of its stop words, whatever the endpoint made of it."""

from __future__ import annotations

from collections.abc import Sequence


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Returns the text before the first stop word, as an endpoint that knows them sends it."""
    ends = [place for word in stop if word and (place := text.find(word)) >= 0]
    return text[: min(ends)] if ends else text
