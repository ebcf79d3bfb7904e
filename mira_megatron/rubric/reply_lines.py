"""The tolerant line grammar that both parsers of judges' answers share.

Judges decorate: bold, bullets, numbering, other dashes, full-width signs, wrapped lines. The pieces
below accept that around a marker, a name and a score. Every repetition is bounded or possessive,
so that no answer, however hostile, costs more than time linear in its length.
"""

from __future__ import annotations

import re
from unicodedata import normalize

# Members of character classes. White space within a line only, with the invisible among it.
_SPACE = r" \t\u00a0\u2000-\u200b\u202f\u205f\u3000\ufeff"
_BOLD = r"*_`"
_ORNAMENT = _SPACE + _BOLD
DASH = r"\-–—―‒‐‑−－─"
_COLON = ":："
_SLASH = "/／⁄∕"
_OPEN, _CLOSE = r"\[【［〔(（", r"\]】］〕)）"

_LABEL = (
    rf"(?:(?:[Ss]core|SCORE|[Rr]ating|得分|评分|分数|分數)[{_ORNAMENT}]{{0,4}}+[{_COLON}]?+"
    rf"[{_ORNAMENT}]{{0,4}}+)?"
)
# Bullets, headings and numbering before a line's own words. No ">": a quotation is no answer.
LEAD = (
    rf"[#•·●▪◦+{_ORNAMENT}{DASH}]{{0,16}}+(?:\d{{1,3}}[.)、．][{_SPACE}]{{0,2}}[{_BOLD}]{{0,3}})?"
)
# What may stand between a name and its score. A dash after a digit makes a range: 7-8/10.
COLON_GAP = rf"[{_COLON}][{_ORNAMENT}(（<]{{0,6}}+{_LABEL}"
GAP = rf"(?:[{_COLON}{_ORNAMENT}(（=]|(?<!\d)[{DASH}])[{_ORNAMENT}(（<]{{0,6}}+{_LABEL}"
_ENDED = rf"(?![.．,，]?\d|[{_SPACE}]?[{_SLASH}][{_SPACE}]?\d)"
# Groups: the number, what it is out of, n/a. \d takes the digits of any script, as float() does.
SCORE = (
    rf"(?:([-−]?\d{{1,6}}(?:[.．٫]\d{{1,20}}|[,，]\d{{1,2}})?)[{_ORNAMENT}>)）]{{0,6}}+"
    rf"(?:[{_SLASH}]|out[{_SPACE}]{{1,3}}of)[{_ORNAMENT}<(]{{0,6}}+(\d{{1,6}}){_ENDED}"
    rf"|([Nn][{_SPACE}]?[.{_SLASH}][{_SPACE}]?[Aa])(?![A-Za-z])\.?"
    rf"(?:[{_SPACE}]?[{_SLASH}][{_SPACE}]?10)?)"
)
_SEPARATOR = rf"(?:[{DASH}]{{1,3}}|[{_COLON}。，；→|]|[.,;](?!\S))"
TAIL = (
    rf"[>{_BOLD}{_CLOSE}]{{0,6}}+[{_SPACE}]?分?"
    rf"(?:[{_SPACE}]{{0,4}}(?:{_SEPARATOR}|\*{{1,3}}{_SEPARATOR}\*{{1,3}}))?"
)

# The same for runs of lines, where speed counts: the undamaged form first, then the usual others.
# Group: the score as it is written.
USUAL_GAP = rf"(?:: (?=\d)|{GAP}|[{_COLON}]?[{_ORNAMENT}]{{0,4}}+\n[{_ORNAMENT}]{{0,4}}+)"
USUAL_SCORE = (
    rf"(\d{{1,2}}/10(?= [^{_SLASH}])|[Nn]/[Aa](?![A-Za-z./／])"
    rf"|\d{{1,2}}(?:\.\d{{1,20}})?[{_ORNAMENT}]{{0,4}}+[/／][{_ORNAMENT}]{{0,4}}+(?:10|１０){_ENDED})"
)
USUAL_TAIL = rf"(?: [—–\-] |{TAIL})"

GAP_AND_SCORE = re.compile(GAP + SCORE)
AFTER_SCORE = re.compile(TAIL)
# A score on a line of its own, below its name; -3 is a number there, and - 3 a bullet.
LATE_SCORE = re.compile(rf"[•·●▪◦+(（{_ORNAMENT}{DASH}]{{0,12}}{_LABEL}(?<![{DASH}]){SCORE}{TAIL}")
_ANSWER_LIKE = re.compile(
    rf"{LEAD}(?:[\[【［][{_SPACE}]?[A-Za-z][{_SPACE}]?\d{{1,3}}"
    rf"|[^{_COLON}]{{1,80}}+{COLON_GAP}{SCORE})"
)
_REASON = re.compile(
    rf"{LEAD}(?:(?:justification|rationale|reason|reasoning|comment|理由|原因|说明|說明)"
    rf"[{_ORNAMENT}]{{0,4}}+[{_COLON}][{_BOLD}]{{0,3}}+)?",
    re.IGNORECASE,
)

USUAL_SCORES = {f"{score}/10": float(score) for score in range(11)}
_SCORE = re.compile(SCORE)
_SIGNS_AND_POINTS = str.maketrans("−．٫,，", "-....")
_FOLDED = str.maketrans(dict.fromkeys("–—―‒‐‑−－─", "-") | dict.fromkeys("*`\"'“”‘’", None))


def marker(letters: str) -> str:
    """Returns the pattern of [A1] and its variants; groups: the letter, the number."""
    return (
        rf"[{_OPEN}]?+[{_ORNAMENT}]{{0,3}}+([{letters}])[{_SPACE}]?+[-#.]?+[{_SPACE}]?+(\d{{1,3}}+)"
        rf"[{_ORNAMENT}]{{0,2}}+(?:[{_CLOSE}]|(?!\w))[{_BOLD}]{{0,3}}+"
        rf"(?:[{_SPACE}]?[.、{_COLON}](?![{_ORNAMENT}(（<]{{0,6}}+[-−]?\d))?"
    )


def bracketed(letters: str) -> re.Pattern[str]:
    """Returns the pattern of a line that starts with a marker in brackets, whatever follows it."""
    return re.compile(rf"{LEAD}(?=[{_OPEN}]){marker(letters)}")


def field_key(words: str) -> str:
    """Returns the pattern of a field's name, up to its value: "domain tag" for **Domain-tag**: …"""
    key = words.replace(" ", rf"[-_{_SPACE}]?")
    return rf"(?i:{key})[{_ORNAMENT}]{{0,6}}+[{_COLON}][{_BOLD}]{{0,3}}+"


def score_of(number: str | None, out_of: str | None) -> tuple[float | None, str | None]:
    """Returns the score of SCORE's groups and what is wrong with it; neither for n/a."""
    if number is None or out_of is None:
        return None, None
    if int(out_of) != 10:
        return None, f"{number}/{out_of} is not out of 10"
    score = decimal(number)
    return (score, None) if 0 <= score <= 10 else (None, f"{number}/10 is outside 0-10")


def score_in(text: str) -> tuple[float | None, str | None]:
    """Returns `score_of` what USUAL_SCORE matched."""
    found = _SCORE.match(text)
    assert found is not None
    return score_of(found[1], found[2])


def decimal(number: str) -> float:
    """Returns the value of a number as judges write it: -7, 7.5, 7,5 or ７．５."""
    return float(number.translate(_SIGNS_AND_POINTS))


def folded(name: str) -> str:
    """Returns the name for comparisons: without case, marks, and kinds of dash, space and width."""
    return " ".join(normalize("NFKC", name).translate(_FOLDED).casefold().split()).strip(" :-")


def tidy(text: str) -> str:
    """Returns the text without markdown that wraps it, or whose beginning is not in it."""
    text = text.strip()
    for mark in ("**", "*", "`") if "*" in text or "`" in text else ():
        count, is_wrapped = text.count(mark), text.startswith(mark) and text.endswith(mark)
        if is_wrapped and count == 2 and len(text) > 2 * len(mark):
            text = text[len(mark) : -len(mark)].strip()
        elif count % 2 and text.endswith(mark):
            text = text[: -len(mark)].rstrip()
    return text


def is_answer_like(line: str) -> bool:
    """Tells whether the line answers for something, be it nothing that was asked for."""
    return _ANSWER_LIKE.match(line) is not None


def continued(pieces: list[str] | None, line: str) -> list[str] | None:
    """Returns what the next line continues, given what this one does; None for nothing.

    A line that begins nothing belongs to the text before it, up to a blank line; a blank line
    before the text's first word does not count.
    """
    if pieces is None:
        return None
    if not line or line.isspace():
        return None if pieces else pieces
    if line.lstrip().startswith("```") or is_answer_like(line):
        return None
    pieces.append((line if pieces else _REASON.sub("", line, count=1)).strip())
    return pieces
