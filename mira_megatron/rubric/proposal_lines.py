"""The lines of a free-form judgement: a part's letter, a dimension, its score and the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from unicodedata import normalize

from mira_megatron.rubric.reply_lines import (
    AFTER_SCORE,
    DASH,
    GAP_AND_SCORE,
    LATE_SCORE,
    LEAD,
    bracketed,
    continued,
    is_answer_like,
    marker,
    score_of,
)

UNFILLED = re.compile(r"<(?:score|dimension|name|reason|justification)>", re.IGNORECASE)

_LETTERS = "ADTCQadtcqＡＤＴＣＱ"
_MARKED = re.compile(LEAD + marker(_LETTERS))
_BRACKETED = bracketed(_LETTERS)
_LEAD = re.compile(LEAD)
_SIGN_BEFORE_NAME = re.compile(rf"\A\s*[:：{DASH}]\s+")
_PARTED = re.compile(rf"[:：(（={DASH}]")
_SET_OFF = re.compile(rf"[*_`)）>\]】]{{0,6}}分?\s*+(?:[:：。，；→|{DASH}]|$)")


@dataclass(frozen=True, slots=True)
class ProposalLine:
    """One line of an answer, as it was written."""

    part: str | None
    name: str
    score: float
    pieces: list[str]  # of the reason


class ProposalReader:
    """Reads an answer into `lines`, and counts in `refused` what it cannot use and why."""

    def __init__(self, parts: Mapping[str, str | None], *, is_unmarked: bool = False) -> None:
        self.lines: list[ProposalLine] = []
        self.refused: Counter[str] = Counter()
        self.is_any_marked = False
        self._parts = parts
        self._is_unmarked = is_unmarked
        self._pending: tuple[str | None, str] | None = None  # part and name without their score

    def read(self, text: str) -> None:
        """Reads the whole text."""
        pieces: list[str] | None = None
        for line in text.split("\n"):
            begun = self._read_line(line)
            pieces = continued(pieces, line) if begun is None else begun
        self._give_up_pending()

    def _read_line(self, line: str) -> list[str] | None:
        """Returns the pieces of the reason that the line begins; None where it begins nothing."""
        marked = None if self._is_unmarked else _MARKED.match(line)
        if self._is_unmarked:
            pieces = self._read_proposal(line, _end_of_lead(line), None)
        elif marked is not None:
            pieces = self._read_marked(line, marked)
        elif self._pending is None and is_answer_like(line):
            self.refused["no marker"] += 1
            return []
        else:
            pieces = None
        return self._read_late(line) if pieces is None else pieces

    def _read_marked(self, line: str, marked: re.Match[str]) -> list[str] | None:
        letter, is_bracketed = normalize("NFKC", marked[1]).upper(), _BRACKETED.match(line)
        pieces = None
        if letter in self._parts:
            pieces = self._read_proposal(line, marked.end(), self._parts[letter])
        if pieces is None and is_bracketed:
            self._give_up_pending()
            pieces = []
            if UNFILLED.search(line):
                return pieces  # of the template: it says nothing
            if letter in self._parts:
                self._pending = self._parts[letter], line[marked.end() :].rstrip(" :：")
            else:
                self.refused[f"[{letter}…], which was not asked for"] += 1
        self.is_any_marked = self.is_any_marked or pieces is not None
        return pieces

    def _read_proposal(self, line: str, start: int, part: str | None) -> list[str] | None:
        found = _score_after_name(line, start)
        if found is None:
            return None
        self._give_up_pending()
        end = AFTER_SCORE.match(line, found.end())
        assert end is not None
        name = _SIGN_BEFORE_NAME.sub("", line[start : found.start()])
        # **Name:** 7/10 leaves half of its marks before the colon, and *args: 7/10 has no other.
        for mark in ("**", "*", "`"):
            if mark in line[found.start() : _start_of_score(found)]:
                name = name.lstrip().removeprefix(mark)
        return self._add(part, name, found, line[end.end() :])

    def _read_late(self, line: str) -> list[str] | None:
        if self._pending is None or not line or line.isspace():
            return None
        (part, name), found = self._pending, LATE_SCORE.match(line)
        if found is None:
            self._give_up_pending()
            return None
        self._pending = None
        return self._add(part, name, found, line[found.end() :])

    def _give_up_pending(self) -> None:
        self.refused.update(["no score"] if self._pending else [])
        self._pending = None

    def _add(self, part: str | None, name: str, found: re.Match[str], reason: str) -> list[str]:
        score, _ = score_of(found[1], found[2])
        pieces = [reason] if reason.strip() else []
        if score is None:
            self.refused["no score from 0 to 10"] += 1
        else:
            self.lines.append(ProposalLine(part, name, score, pieces))
        return pieces


def _end_of_lead(line: str) -> int:
    lead = _LEAD.match(line)
    assert lead is not None
    return lead.end()


def _score_after_name(line: str, start: int) -> re.Match[str] | None:
    """Returns the score that ends a dimension's name: the first one set off on both sides.

    Names hold colons, slashes and dashes of their own, and now and then a share such as 7/10.
    """
    candidates = list(islice(GAP_AND_SCORE.finditer(line, start), 4))
    parted = [
        found for found in candidates if _PARTED.search(line, found.start(), _start_of_score(found))
    ]
    for found in parted:
        if _SET_OFF.match(line, found.end()):
            return found
    return parted[0] if parted else None


def _start_of_score(found: re.Match[str]) -> int:
    return found.start(1) if found[1] else found.start(3)
