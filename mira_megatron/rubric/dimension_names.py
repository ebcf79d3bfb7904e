"""What may stand in a rubric: names and reasons come from a model's answers and end up in prompts.

A name becomes part of every answer line of its group, and a reason part of its calibration, so
neither may hold what the answer format itself is made of. People's edits pass the same check.
"""

from __future__ import annotations

import re
import unicodedata

MAX_NAME_CHARS = 80

# In the form that NFKC gives: full-width brackets, letters and digits are told by their plain ones.
_BLANK = re.compile(
    r"<\s*(?:score|justification|dimension|reason|short tag|one-sentence summary|0-100|keep\b[^>]*)"
    r"\s*>",
    re.IGNORECASE,
)
_SLOT_MARKER = re.compile(r"[\[【]\s*[ACDQT]\s*\d+\s*[\]】]", re.IGNORECASE)
_FENCE = re.compile(r"\b(?:BEGIN|END)[ _]RECORD\b", re.IGNORECASE)
_SCORE = re.compile(r"\d\s*/\s*10(?!\d)")
# Joiners are how Persian and Indic words are spelt; every other format character is invisible.
_JOINERS = "\u200c\u200d"


def name_fault(name: str) -> str | None:
    """Returns why this cannot be a dimension's name ("is empty", "holds …"), or None if it can."""
    if len(name) > MAX_NAME_CHARS:
        return f"has {len(name):,} characters, at most {MAX_NAME_CHARS} fit"
    if _SCORE.search(unicodedata.normalize("NFKC", name)):
        return "holds a score such as 8/10"
    return reason_fault(name)


def reason_fault(reason: str) -> str | None:
    """Returns why this cannot be quoted in a prompt as a reason, or None if it can."""
    if not reason:
        return "is empty"
    if not reason.isprintable() and any(_is_invisible(char) for char in reason):
        return "holds a line break or an invisible character"
    if " ".join(reason.split()) != reason:
        return "holds white space at an end, or more than one in a row"
    plain = reason if reason.isascii() else unicodedata.normalize("NFKC", reason)
    if _SLOT_MARKER.search(plain):
        return "holds a slot marker such as [A1]"
    if _BLANK.search(plain):
        return "holds a blank of the answer template such as <score>"
    if _FENCE.search(plain):
        return "holds a marker of where a record begins or ends"
    return None


def _is_invisible(char: str) -> bool:
    category = unicodedata.category(char)
    return category in ("Zl", "Zp") or (category.startswith("C") and char not in _JOINERS)
