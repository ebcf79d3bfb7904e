"""What can be counted in documents and running text, but means nothing in code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]|\n\n|\n(?=[-*+#|] )")
_LINK = re.compile(r"https?://|\]\(|\]\[|:[a-z]{2,10}:`|`_|\[\d{1,3}\]_|^\.\. _", re.MULTILINE)
_INLINE_CODE = re.compile(r"`[^`\n]{1,80}`")
_WEB_BOILERPLATE = (
    *("cookie", "subscribe", "click here", "sign in", "log in", "privacy policy"),
    *("all rights reserved", "advertisement", "terms of service", "share this"),
)
_CONNECTIVES = frozenset(
    (
        *("because", "therefore", "thus", "hence", "since", "so", "if", "unless", "when", "where"),
        *("why", "reason", "means", "implies", "instead", "however", "example", "note", "first"),
        *("then", "finally", "but", "while", "although", "otherwise", "such", "due"),
        *("因", "故", "若", "例"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProseFeatures:
    """Counts over a text and over its content, the lines that are neither licence nor data."""

    num_sentences: int  # of the content, up to a full stop, an empty line or a list item
    mean_sentence_words: float
    num_connectives: int  # of the content: because, if, example …
    num_links: int
    num_inline_code: int
    num_web_phrases: int  # cookie, subscribe …


def measure_prose(text: str, content: str, content_words: Sequence[str]) -> ProseFeatures:
    """Returns the features of a text with this content, whose words are `content_words`."""
    lowered = text.lower()
    num_sentences = sum(bool(part.strip()) for part in _SENTENCE_END.split(content))
    return ProseFeatures(
        num_sentences=num_sentences,
        mean_sentence_words=len(content_words) / num_sentences if num_sentences else 0.0,
        num_connectives=sum(word in _CONNECTIVES for word in content_words),
        num_links=len(_LINK.findall(text)),
        num_inline_code=len(_INLINE_CODE.findall(text)),
        num_web_phrases=sum(map(lowered.count, _WEB_BOILERPLATE)),
    )
