"""What a damaged answer still says about its slots: line by line, with every usual liberty.

The slot number decides which anchor a line answers, not the name written beside it: judges reword
and translate names. Names decide only where numbers cannot: in an answer without any, or one that
counts otherwise than it was asked to, [A0] to [A14] for instance. There a name must be exactly one
anchor's, and more than half of the anchors must be found so; two anchors of one name are never
told apart by guessing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

from mira_megatron.rubric.asked_names import FIELD_KEYS, FIELDS, AskedNames
from mira_megatron.rubric.reply_lines import (
    AFTER_SCORE,
    GAP,
    GAP_AND_SCORE,
    LATE_SCORE,
    LEAD,
    SCORE,
    TAIL,
    USUAL_SCORES,
    bracketed,
    continued,
    folded,
    marker,
    score_in,
    score_of,
)

MISSING = "missing"
TWICE = "answered more than once, differently"
_NO_SCORE = "no score"

_A = "AaＡａ"
# Groups: letter, number, name, score, out of, n/a; or those of the fields, all empty.
_LINE = re.compile(
    rf"{LEAD}(?:{marker(_A)}([^:：—–―]{{0,160}}?){GAP}{SCORE}{TAIL}"
    rf"|{'|'.join(f'(){key}' for key in FIELD_KEYS)})"
)
_NUM_SLOT_GROUPS = 6
_MARKED = bracketed(_A)
_START = re.compile(rf"{LEAD}(?:{marker(_A)})?")
_SHARE = re.compile(r"\d[^\w:：]{0,4}(?:[/／⁄∕]|out of)")
_UNREADABLE = re.compile(r"<score>|\d\s?[/／⁄∕]")  # a blank, or a score that is none


class SlotReader:
    """Reads an answer; then every slot (from 0) has a score, or a fault, or neither: n/a."""

    def __init__(self, asked: AskedNames, *, is_by_name: bool = False) -> None:
        self.scores: list[float | None] = [None] * len(asked.names)
        self.faults: list[str | None] = [MISSING] * len(asked.names)
        self.rationales: list[str | None] = [None] * len(asked.names)
        self.fields: dict[str, list[str]] = {}  # every answer to each
        self.is_misnumbered = False  # a number not asked for stands beside an anchor's name
        self._pieces: dict[int, list[str]] = {}  # the lines of those rationales that may go on
        self._briefs: list[list[str]] = []
        self._asked = asked
        self._is_by_name = is_by_name
        self._pending: int | None = None  # the slot that the line above named without a score

    def read(self, text: str) -> None:
        """Reads the whole text: runs of lines in their usual shape at once, others one by one."""
        pieces: list[str] | None = None
        position, damaged = 0, "[A0]"
        while position < len(text):
            is_marked = text.find("[A", position, position + 24) >= 0
            if is_marked and not self._is_by_name and not text.startswith(damaged, position):
                run = self._asked.run.match(text, position)
                if run is not None and run.end() > position:
                    pieces, position = self._take(run), run.end()
                    pieces = None if pieces and text.endswith("\n\n", 0, position) else pieces
                    # The next slot's line would not have stopped the run if it were whole.
                    damaged = f"[A{(run.lastindex or 0) // 2 + 1}]"
                    continue
            end = text.find("\n", position)
            line = text[position:] if end < 0 else text[position:end]
            position = len(text) if end < 0 else end + 1
            damaged = "[A0]"
            begun = self._read_line(line)
            pieces = continued(pieces, line) if begun is None else begun
        for slot, lines in self._pieces.items():
            self.rationales[slot] = " ".join(lines) or None
        if self._briefs:
            self.fields["brief"] = [" ".join(lines) for lines in self._briefs]

    def _take(self, run: re.Match[str]) -> list[str] | None:
        """Returns the pieces that the run's last line begins."""
        self._pending = None
        scores, faults, rationales = self.scores, self.faults, self.rationales
        groups, num_slot_groups = run.groups()[: run.lastindex], 2 * len(scores)
        pieces: list[str] | None = None
        last = None
        slot_groups = zip(groups[:num_slot_groups:2], groups[1:num_slot_groups:2], strict=True)
        for slot, (written, text) in enumerate(slot_groups):
            if text is None:
                continue
            score = USUAL_SCORES.get(written)
            if score is None or faults[slot] is not MISSING:
                pieces, last = self._settle(slot, *score_in(written), text), None
            else:  # _settle's usual case, without its cost
                scores[slot], faults[slot], rationales[slot] = score, None, text.strip() or None
                last = slot
        if last is not None:
            pieces = self._pieces[last] = [text for text in (rationales[last],) if text]
        for key, text in zip(FIELDS, groups[num_slot_groups:], strict=False):
            if text is not None:
                pieces = self._begin_field(key, text)
        return pieces

    def _read_line(self, line: str) -> list[str] | None:
        """Returns the pieces that the line begins; None where it begins nothing."""
        found = _LINE.match(line)
        if found is not None and found[2] is None:
            self._pending = None
            key = FIELDS[(found.lastindex or 0) - _NUM_SLOT_GROUPS - 1]
            return self._begin_field(key, line[found.end() :])
        if self._is_by_name:
            return self._read_named(line)
        if found is not None and (pieces := self._read_numbered(line, found)) is not None:
            return pieces
        return self._read_marked(line)

    def _read_numbered(self, line: str, found: re.Match[str]) -> list[str] | None:
        slot = int(found[2]) - 1
        if not 0 <= slot < len(self.scores):
            return self._read_stray(line)
        if not self._asked.plain[slot]:
            pieces = self._read_exact(line, found.start(3), slot)
            if pieces is not None:
                return pieces
        if not _is_name(line, found, self._asked.names[slot]):
            return None
        return self._settle(slot, *score_of(found[4], found[5]), line[found.end() :])

    def _read_marked(self, line: str) -> list[str] | None:
        """Reads a marker that no plain name with a score follows."""
        found = _MARKED.match(line)
        if found is None:
            return self._read_late(line)
        slot = int(found[2]) - 1
        if not 0 <= slot < len(self.scores):
            return self._read_stray(line)
        is_plain = self._asked.plain[slot]
        pieces = None if is_plain else self._read_exact(line, found.end(), slot)
        if pieces is None:
            pieces = self._settle(slot, None, _NO_SCORE, "")
            self._pending = None if _UNREADABLE.search(line, found.end()) else slot
        return pieces

    def _read_exact(self, line: str, start: int, slot: int) -> list[str] | None:
        """Reads a name that must be found whole before anything after it can be."""
        return self._read_score_of({self._asked.folded[slot]: slot}, line, start)

    def _read_named(self, line: str) -> list[str] | None:
        pieces = self._read_score_of(self._asked.slot_of, line, _end_of_marker(line))
        if pieces is not None:
            return pieces
        slot = self._asked.slot_of.get(folded(line[_end_of_marker(line) :][:400]))
        if slot is None:
            return self._read_late(line)
        pieces = self._settle(slot, None, _NO_SCORE, "")
        self._pending = slot
        return pieces

    def _read_late(self, line: str) -> list[str] | None:
        if self._pending is None or not line or line.isspace():
            return None
        slot, self._pending = self._pending, None
        found = LATE_SCORE.match(line)
        if found is None:
            return None
        return self._settle(slot, *score_of(found[1], found[2]), line[found.end() :])

    def _read_stray(self, line: str) -> list[str]:
        self._pending = None
        any_slot_of = dict.fromkeys(self._asked.folded, 0)
        if _named_score(line, _end_of_marker(line), any_slot_of) is not None:
            self.is_misnumbered = True
        return []

    def _read_score_of(self, slot_of: Mapping[str, int], line: str, start: int) -> list[str] | None:
        named = _named_score(line, start, slot_of)
        if named is None:
            return None
        slot, found = named
        after = AFTER_SCORE.match(line, found.end())
        assert after is not None
        return self._settle(slot, *score_of(found[1], found[2]), line[after.end() :])

    def _settle(self, slot: int, score: float | None, fault: str | None, text: str) -> list[str]:
        """Equal answers are one; different ones are none; a line without a score says nothing."""
        self._pending = None
        text = text.strip()
        pieces = [text] if text else []
        known = self.faults[slot]
        if known is MISSING or known is _NO_SCORE:
            self.scores[slot], self.faults[slot], self._pieces[slot] = score, fault, pieces
        elif fault is not _NO_SCORE and (self.scores[slot], known) != (score, fault):
            self.scores[slot], self.faults[slot] = None, TWICE
            self._pieces[slot] = []
        return pieces

    def _begin_field(self, key: str, text: str) -> list[str]:
        if key != "brief":
            self.fields.setdefault(key, []).append(text)
            return []
        self._briefs.append([text])
        return self._briefs[-1]


def read_slots(text: str, asked: AskedNames) -> SlotReader:
    """Returns a reader that has read the whole text."""
    numbered = SlotReader(asked)
    numbered.read(text)
    if None in numbered.faults and not numbered.is_misnumbered:
        return numbered
    named = SlotReader(asked, is_by_name=True)
    named.read(text)
    if 2 * named.faults.count(None) <= len(asked.names):
        if not numbered.is_misnumbered:
            return numbered
        named = SlotReader(asked)  # no number can be trusted, and too few names
    named.is_misnumbered = numbered.is_misnumbered
    return named


def _end_of_marker(line: str) -> int:
    start = _START.match(line)
    assert start is not None
    return start.end()


def _is_name(line: str, found: re.Match[str], name: str) -> bool:
    """Tells whether the text before the score is a name, the anchor's own or another.

    A colon ends any name. Without one, a sentence such as "clear in 7/10 cases" would pass for a
    name and a score.
    """
    written = found[3].strip(" *_`")
    if written == name:
        return True
    if " - " in written or _SHARE.search(written):
        return False
    if found[4] and line[found.start(4) : found.end(5)] in name:
        return False  # it may be the name's own
    gap = line[found.end(3) : found.start(4) if found[4] else found.start(6)]
    if ":" in gap or "：" in gap:
        return True
    is_separated = bool(gap.strip(" \t\u00a0*_`=")) and not written[-1:].isdecimal()
    return not written or is_separated or folded(written) == folded(name)


def _named_score(
    line: str, start: int, slot_of: Mapping[str, int]
) -> tuple[int, re.Match[str]] | None:
    """Returns the slot whose folded name stands from `start` up to a score, and the score."""
    for found in islice(GAP_AND_SCORE.finditer(line, start), 4):
        slot = slot_of.get(folded(line[start : found.start()]))
        if slot is not None:
            return slot, found
    return None
