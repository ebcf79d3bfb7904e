"""The answer format of the released scorers: written by the rule judge, read from any judge.

[A1] <name>: <score>/10 — <justification>      one line per slot; n/a for a score not given
overall: <0-100>
training_recommendation: <keep | downsample | drop>
domain_tag: <short tag>
brief: <one-sentence summary>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mira_megatron.rubric.prompts import BRIEF, DOMAIN_TAG, JUSTIFICATION, one_line
from mira_megatron.rubric.verdict import RECOMMENDATIONS, Verdict

_NOT_GIVEN = "n/a"
_NUMBER = r"-?\d{1,6}(?:\.\d{1,6})?"
_SLOT = re.compile(r"\[A(\d{1,3})\]\s*(.*)")
_SCORE = re.compile(
    rf"[:—–-]\s*(?:({_NUMBER})\s*/\s*10(?!\d|\.\d)|(n/a)(?:/10)?)"
    r"(?:\s*(?:—|–|--?|[:.,])\s*|\s+|$)(.*)",
    re.IGNORECASE,
)
_FOOTER = re.compile(
    r"(overall|training_recommendation|domain_tag|brief)\s*:\s*(.*)", re.IGNORECASE
)
_OVERALL = re.compile(rf"({_NUMBER})(?:\s*/\s*100)?")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    score: float | None
    rationale: str | None
    fault: str | None  # why the score is missing, unless the judge gave none with n/a


def format_reply(names: Sequence[str], verdict: Verdict) -> str:
    """Returns the verdict as reply text, one line per slot and field."""
    slots = [
        f"[A{slot}] {one_line(name)}: {_NOT_GIVEN if score is None else f'{score}/10'} — "
        f"{one_line(rationale)}"
        for slot, (name, score, rationale) in enumerate(
            zip(names, verdict.scores, verdict.rationales, strict=True), start=1
        )
    ]
    overall = _NOT_GIVEN if verdict.overall is None else f"{verdict.overall:g}"
    footer = (
        f"overall: {overall}",
        f"training_recommendation: {verdict.training_recommendation}",
        f"domain_tag: {one_line(verdict.domain_tag)}",
        f"brief: {one_line(verdict.brief)}",
    )
    return "\n".join((*slots, *footer))


def parse_reply(text: str, names: Sequence[str]) -> ParsedReply:
    """Returns what `text` answers for the named anchors; never raises.

    The slot number decides which anchor a line answers, not the name written beside it.
    """
    answers: dict[int, list[_Slot]] = {}
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        stripped = line.strip()
        slot, field = _SLOT.match(stripped), _FOOTER.match(stripped)
        if slot and 1 <= int(slot[1]) <= len(names):
            number = int(slot[1])
            answers.setdefault(number, []).append(_read_slot(slot[2], names[number - 1]))
        elif field:
            fields.setdefault(field[1].lower(), field[2].strip())
    slots = [_settle(answers.get(number, [])) for number in range(1, len(names) + 1)]
    faults = [f"A{number}: {slot.fault}" for number, slot in enumerate(slots, 1) if slot.fault]
    overall, overall_fault = _read_overall(fields.get("overall"))
    recommendation = fields.get("training_recommendation", "").lower()
    domain_tag, brief = _filled(fields, "domain_tag", DOMAIN_TAG), _filled(fields, "brief", BRIEF)
    faults += [overall_fault] if overall_fault else []
    faults += [] if recommendation in RECOMMENDATIONS else ["training_recommendation: missing"]
    faults += [] if domain_tag else ["domain_tag: missing"]
    faults += [] if brief else ["brief: missing"]
    is_any_answered = any(slot.fault is None for slot in slots)
    return ParsedReply(
        scores=tuple(slot.score for slot in slots),
        rationales=tuple(slot.rationale for slot in slots),
        overall=overall,
        training_recommendation=recommendation if recommendation in RECOMMENDATIONS else None,
        domain_tag=domain_tag,
        brief=brief,
        status="unparsed" if not is_any_answered else "partial" if faults else "ok",
        reason="; ".join(faults) or None,
    )


def _read_slot(rest: str, name: str) -> _Slot:
    """Reads what stands after [A…]: the name, or another one, then score and rationale."""
    expected = one_line(name)
    if rest.startswith(expected):
        match = _SCORE.match(rest[len(expected) :].lstrip())
    else:
        match = _SCORE.search(rest)
    if match is None:
        return _Slot(score=None, rationale=None, fault="no score")
    rationale = match[3].strip()
    filled = rationale if rationale not in ("", JUSTIFICATION) else None
    if match[2]:
        return _Slot(score=None, rationale=filled, fault=None)
    score = float(match[1])
    if not 0 <= score <= 10:
        return _Slot(score=None, rationale=filled, fault=f"{match[1]}/10 is outside 0-10")
    return _Slot(score=score, rationale=filled, fault=None)


def _settle(answers: Sequence[_Slot]) -> _Slot:
    """Returns the one answer of a slot; several with different scores are none."""
    if not answers:
        return _Slot(score=None, rationale=None, fault="missing")
    if len({(answer.score, answer.fault) for answer in answers}) > 1:
        return _Slot(score=None, rationale=None, fault="answered more than once, differently")
    return answers[0]


def _read_overall(written: str | None) -> tuple[float | None, str | None]:
    """Returns the value and, where there is none, what is wrong; n/a is a value not given."""
    if written is None:
        return None, "overall: missing"
    if written.lower() == _NOT_GIVEN:
        return None, None
    number = _OVERALL.fullmatch(written)
    if number is None:
        return None, "overall: not a number"
    value = float(number[1])
    return (value, None) if 0 <= value <= 100 else (None, f"overall: {number[1]} is outside 0-100")


def _filled(fields: dict[str, str], key: str, blank: str) -> str | None:
    value = fields.get(key, "")
    return value if value not in ("", blank) else None
