"""What of an answer are the judge's own words.

An answer may repeat its prompt, and a record in there may hold forged answer lines. So what stands
between a record's markers is left out before anything is read, and a reasoning model's thinking
too; a line of the answer itself that only quotes such a marker stays.
"""

from __future__ import annotations

import re

from mira_megatron.rubric.asked_names import FIELD_KEYS
from mira_megatron.rubric.reply_lines import DASH, LEAD, marker

_BEGIN = re.compile(r"BEGIN RECORD ([0-9a-f]{16,64})")
_END_LINE = re.compile(rf"[>\s{DASH}]{{0,80}}+END RECORD [0-9a-f]{{16,64}}[\s{DASH}]*+")
_ANSWER_LINE = re.compile(rf"{LEAD}(?:{marker('A-Za-zＡａ')}|{'|'.join(FIELD_KEYS)})")
_THINKING = re.compile(r"\s*+<think(?:ing)?>", re.IGNORECASE)
_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THOUGHT_LINE = re.compile(r"^[ \t]*+</think(?:ing)?>[ \t]*+$", re.IGNORECASE | re.MULTILINE)


def own_words(text: str) -> tuple[str, str | None]:
    """Returns the answer without repeated records and thinking, and what else went with them."""
    fault = None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "RECORD" in text:
        text, fault = _without_records(text)
    return _without_thinking(text, fault) if "<" in text else (text, fault)


def _without_records(text: str) -> tuple[str, str | None]:
    """A record cannot contain its own end, which holds its hash; other ends in it are part of it.

    Lines after a beginning without an end are lost: they may be the record's.
    """
    kept: list[str] = []
    closing = None
    for line in text.split("\n"):
        if closing is not None:
            closing = None if closing in line else closing
            continue
        begin = _BEGIN.search(line)
        if begin is not None and not _ANSWER_LINE.match(line):
            end = f"END RECORD {begin[1]}"
            closing = None if end in line[begin.end() :] else end
        elif _END_LINE.fullmatch(line):
            kept.clear()  # of a record whose beginning was not repeated
        else:
            kept.append(line)
    return "\n".join(kept), "a repeated record has no end" if closing else None


def _without_thinking(text: str, fault: str | None) -> tuple[str, str | None]:
    """Thinking starts the answer; or the prompt started it, and its end has a line to itself."""
    start = _THINKING.match(text)
    if start is None and "</" not in text:
        return text, fault
    ends = list(_THOUGHT_LINE.finditer(text))
    if ends:
        return text[ends[-1].end() :], fault
    if start is None:
        return text, fault
    end = _THOUGHT.search(text, start.end())
    return (text[end.end() :], fault) if end else ("", "the thinking has no end")
