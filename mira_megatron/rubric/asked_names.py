"""The anchors that an answer is about: their names, and what of them tells answers apart."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from mira_megatron.rubric.reply_lines import (
    COLON_GAP,
    LEAD,
    SCORE,
    USUAL_GAP,
    USUAL_SCORE,
    USUAL_TAIL,
    field_key,
    folded,
)

FIELDS = ("overall", "training_recommendation", "domain_tag", "brief")
FIELD_KEYS = tuple(
    map(field_key, ("overall(?: score)?", "training recommendation", "domain tag", "brief"))
)

_SCORE_INSIDE = re.compile(SCORE)
_NAME_END = re.compile(r"[:：—–―]| - ")
# A name that is not the anchor's: only a colon ends it, and nothing in it could be a score.
_REWORDED = rf"[^:：—–―‒\-−/／\d\n]{{1,80}}+{COLON_GAP}"


@dataclass(frozen=True)
class AskedNames:
    """The anchors' names, each on one line, and what of them tells answers apart."""

    names: tuple[str, ...]

    @cached_property
    def run(self) -> re.Pattern[str]:
        """Matches lines in the order asked for, any of them missing; at worst it matches nothing.

        Groups: score and rationale of each slot, then the fields. It takes the usual
        liberties in one step for all lines; whatever it stops at is read by itself.
        """
        slots = (
            rf"(?:{LEAD}\[A{slot}\][*_` ]{{0,4}}+"
            rf"(?:{re.escape(name)}[*_`]{{0,3}}+{USUAL_GAP}{f'|{_REWORDED}' if is_plain else ''})"
            rf"{USUAL_SCORE}{USUAL_TAIL}([^\n]*+)\n*+)?"
            for slot, (name, is_plain) in enumerate(zip(self.names, self.plain, strict=True), 1)
        )
        fields = (
            rf"(?:(?:{field}: |{LEAD}{key})([^\n]*+)\n*+)?"
            for field, key in zip(FIELDS, FIELD_KEYS, strict=True)
        )
        return re.compile("".join((*slots, *fields)))

    @cached_property
    def plain(self) -> tuple[bool, ...]:
        """True: nothing in the name could be taken for its end or for a score."""
        return tuple(
            not _NAME_END.search(name) and not _SCORE_INSIDE.search(name) and len(name) <= 160
            for name in self.names
        )

    @cached_property
    def folded(self) -> tuple[str, ...]:
        """The names as they are compared."""
        return tuple(folded(name) for name in self.names)

    @cached_property
    def slot_of(self) -> dict[str, int]:
        """The slot (from 0) of every folded name that only one anchor has."""
        counts = Counter(self.folded)
        return {name: slot for slot, name in enumerate(self.folded) if counts[name] == 1 and name}
