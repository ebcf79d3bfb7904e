"""The answer format of the released scorers: written by the rule judge, read from any judge.

[A1] <name>: <score>/10 — <justification>      one line per slot; n/a for a score not given
overall: <0-100>
training_recommendation: <keep | downsample | drop>
domain_tag: <short tag>
brief: <one-sentence summary>

A compact answer (see PromptForm) has the slots' lines only, and those end with the score; one of
digits alone is read by digits.py.

Reading is strict first: one regex knows the whole answer as it was asked for. Any other text is
repaired line by line (slot_lines.py); what is still missing then is None, with a fault that says
why. A bare "7" or "7/100" is no score, since what it is out of would be a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from mira_megatron.rubric.asked_names import AskedNames
from mira_megatron.rubric.digits import read_scores
from mira_megatron.rubric.own_words import own_words
from mira_megatron.rubric.prompt_form import FULL, PromptForm
from mira_megatron.rubric.prompts import BRIEF, DOMAIN_TAG, JUSTIFICATION, one_line
from mira_megatron.rubric.reply_lines import USUAL_SCORES, decimal, tidy
from mira_megatron.rubric.slot_lines import MISSING, TWICE, SlotReader, read_slots
from mira_megatron.rubric.verdict import RECOMMENDATIONS, Verdict

_Value = TypeVar("_Value", float, str)

_NOT_GIVEN = "n/a"
_BLANKS = frozenset(
    ("", JUSTIFICATION, DOMAIN_TAG, BRIEF, "<0-100>", f"<{' | '.join(RECOMMENDATIONS)}>")
)
_SCORES: dict[str, float | None] = {**USUAL_SCORES, _NOT_GIVEN: None}

# The last alternatives: a sentence may follow, but nothing that makes the number a range.
_OVERALL = re.compile(
    r"<?([-−]?\d{1,6}(?:[.．٫]\d{1,6}|[,，]\d{1,2})?)>?"
    r"\s?(?:[/／⁄∕]\s?(\d{1,6})|out of\s(\d{1,6})|%)?(?:[.。]?$|\s?[—–(（,;；][^\d]|\s-\s[^\d])"
)
_RECOMMENDATION = re.compile(
    r"<?(keep|down[\s-]?sample|drop)(?!\w|\s?[|/,]|\s(?:or|and)\b)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedReply:
    """What could be read from a judge's reply; slots in the order of the anchors asked for."""

    scores: tuple[float | None, ...]  # 0-10
    rationales: tuple[str | None, ...]
    overall: float | None  # 0-100
    training_recommendation: str | None
    domain_tag: str | None
    brief: str | None
    status: str  # ok: every line was answered; partial: some; unparsed: no slot was
    reason: str | None  # what is missing or was refused, where the status is not ok


def format_reply(names: Sequence[str], verdict: Verdict, form: PromptForm = FULL) -> str:
    """Returns the verdict as reply text, a line per slot and field; other forms: whole scores."""
    scores = verdict.scores if form.answers == "full" else tuple(map(_whole, verdict.scores))
    if form.answers == "digits":
        return " ".join(_NOT_GIVEN if score is None else f"{score:g}" for score in scores)
    slots = [
        f"[A{slot}] {one_line(name)}: {_NOT_GIVEN if score is None else f'{score:g}/10'}"
        for slot, (name, score) in enumerate(zip(names, scores, strict=True), start=1)
    ]
    if form.answers == "compact":
        return "\n".join(slots)
    slots = [
        f"{line} — {one_line(rationale)}"
        for line, rationale in zip(slots, verdict.rationales, strict=True)
    ]
    overall = _NOT_GIVEN if verdict.overall is None else f"{verdict.overall:g}"
    footer = (
        f"overall: {overall}",
        f"training_recommendation: {verdict.training_recommendation}",
        f"domain_tag: {one_line(verdict.domain_tag)}",
        f"brief: {one_line(verdict.brief)}",
    )
    return "\n".join((*slots, *footer))


def _whole(score: float | None) -> int | None:
    """Returns the nearest integer; halves go up."""
    return None if score is None else int(score + 0.5)


def parse_reply(text: str, names: Sequence[str], form: PromptForm = FULL) -> ParsedReply:
    """Returns what `text` answers for the named anchors; never raises.

    Of a compact answer only the slots are read: nothing else of it is missed, or used.
    """
    if form.answers == "digits":
        return _read_digits(text, len(names))
    is_compact = form.answers == "compact"
    asked, undamaged = _asked(tuple(names), is_compact)
    if is_compact:
        return _read_undamaged_compact(text, undamaged) or _repair_compact(text, asked)
    return _read_undamaged(text, undamaged) or _repair(text, asked)


@lru_cache(maxsize=256)  # one entry per source group is in use at a time
def _asked(names: tuple[str, ...], is_compact: bool) -> tuple[AskedNames, re.Pattern[str]]:
    """Returns the names, and the pattern of an answer about them that is exactly as asked for."""
    asked = AskedNames(tuple(one_line(name) for name in names))
    slots = [
        rf"\[A{slot}\] {re.escape(name)}: ([0-9n/a]{{3,5}})"
        for slot, name in enumerate(asked.names, start=1)
    ]
    if is_compact:
        return asked, re.compile("\n".join(slots) + r"\s*+")
    text = r"(\S.*+)(?<=\S)"
    footer = (
        rf"overall: ([0-9]{{1,3}}(?:\.[0-9]{{1,6}})?|{_NOT_GIVEN})\n"
        rf"training_recommendation: ({'|'.join(RECOMMENDATIONS)})\n"
        rf"domain_tag: {text}\nbrief: {text}\s*+"
    )
    return asked, re.compile("".join(rf"{slot} — {text}\n" for slot in slots) + footer)


def _read_undamaged(text: str, undamaged: re.Pattern[str]) -> ParsedReply | None:
    found = None if "\r" in text else undamaged.fullmatch(text)
    if found is None:
        return None
    *groups, overall, recommendation, domain_tag, brief = found.groups()
    try:
        scores = tuple(map(_SCORES.__getitem__, groups[::2]))
    except KeyError:  # decimals, and what is no score
        return None
    value = None if overall == _NOT_GIVEN else float(overall)
    if (value or 0) > 100 or ("<" in text and not _BLANKS.isdisjoint(found.groups())):
        return None
    return ParsedReply(
        scores=scores,
        rationales=tuple(groups[1::2]),
        overall=value,
        training_recommendation=recommendation,
        domain_tag=domain_tag,
        brief=brief,
        status="ok",
        reason=None,
    )


def _read_undamaged_compact(text: str, undamaged: re.Pattern[str]) -> ParsedReply | None:
    found = undamaged.fullmatch(text)
    if found is None or not found.groups() or not all(map(_SCORES.__contains__, found.groups())):
        return None
    return _compact(tuple(map(_SCORES.__getitem__, found.groups())), "ok", None)


def _read_digits(text: str, num_slots: int) -> ParsedReply:
    scores, faults = read_scores(text, num_slots)
    is_unparsed = all(score is None for score in scores)
    status = "unparsed" if is_unparsed else "partial" if faults else "ok"
    return _compact(scores, status, "; ".join(faults) or None)


def _repair_compact(text: str, asked: AskedNames) -> ParsedReply:
    part, note = own_words(text)
    reader = read_slots(part, asked)
    faults = _slot_faults(reader, note)
    return _compact(tuple(reader.scores), _status(reader, faults), "; ".join(faults) or None)


def _compact(scores: tuple[float | None, ...], status: str, reason: str | None) -> ParsedReply:
    return ParsedReply(
        scores=scores,
        rationales=(None,) * len(scores),
        overall=None,
        training_recommendation=None,
        domain_tag=None,
        brief=None,
        status=status,
        reason=reason,
    )


def _slot_faults(reader: SlotReader, note: str | None) -> list[str]:
    faults = [note] if note else []
    faults += ["the slot numbers are not those asked for"] if reader.is_misnumbered else []
    if any(reader.faults):
        faults += [f"A{number}: {fault}" for number, fault in enumerate(reader.faults, 1) if fault]
    return faults


def _status(reader: SlotReader, faults: Sequence[str]) -> str:
    return "unparsed" if None not in reader.faults else "partial" if faults else "ok"


def _repair(text: str, asked: AskedNames) -> ParsedReply:
    part, note = own_words(text)
    reader = read_slots(part, asked)
    is_marked = "*" in part or "`" in part or "<" in part
    faults = _slot_faults(reader, note)
    fields = reader.fields
    return ParsedReply(
        scores=tuple(reader.scores),
        rationales=tuple(map(_filled, reader.rationales) if is_marked else reader.rationales),
        overall=_agreed("overall", fields, _read_overall, faults),
        training_recommendation=_agreed(
            "training_recommendation", fields, _read_recommendation, faults
        ),
        domain_tag=_agreed("domain_tag", fields, _read_text, faults),
        brief=_agreed("brief", fields, _read_text, faults),
        status=_status(reader, faults),
        reason="; ".join(faults) or None,
    )


def _filled(text: str | None) -> str | None:
    return None if text is None or (text := tidy(text)) in _BLANKS else text


def _agreed(
    key: str,
    fields: Mapping[str, Sequence[str]],
    read: Callable[[str], tuple[_Value | None, str | None]],
    faults: list[str],
) -> _Value | None:
    """Returns the one value of a field; what is wrong where there is none goes to `faults`."""
    texts = [text for text in map(tidy, fields.get(key, ())) if text not in _BLANKS]
    values = {read(text) for text in texts} if len(texts) > 1 else list(map(read, texts))
    if len(values) != 1:
        faults.append(f"{key}: {TWICE if values else MISSING}")
        return None
    value, fault = values.pop()
    if fault is not None:
        faults.append(f"{key}: {fault}")
    return value


def _read_overall(text: str) -> tuple[float | None, str | None]:
    if len(text) <= 2 and text.isdecimal():
        return float(text), None
    if text.lower() in (_NOT_GIVEN, f"{_NOT_GIVEN}/100"):
        return None, None
    found = _OVERALL.match(text)
    if found is None or int(found[2] or found[3] or 100) != 100:
        return None, "not a number out of 100"
    value = decimal(found[1])
    return (value, None) if 0 <= value <= 100 else (None, f"{found[1]} is outside 0-100")


def _read_recommendation(text: str) -> tuple[str | None, str | None]:
    if text in RECOMMENDATIONS:
        return text, None
    found = _RECOMMENDATION.match(text)
    if found is None:
        return None, f"none of {', '.join(RECOMMENDATIONS)}"
    return re.sub(r"[\s-]", "", found[1]).lower(), None


def _read_text(text: str) -> tuple[str | None, str | None]:
    return text, None
