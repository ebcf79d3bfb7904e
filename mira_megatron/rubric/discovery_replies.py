"""The answer format of free-form judging: written by the rule judge, read from any judge.

[D1] <dimension>: <score>/10 — <reason>        about fifteen lines
[T1] … [C1] … [Q1] …                            in their place for qa_with_think: about five each
                                                on the thinking, the combination and the answer

A dimension's name later becomes part of prompts and so does its reason, and a judge may have been
talked into them by the record. So a line is refused whose name or reason could be read there as
something else (dimension_names.py), and one with another letter than its family's, since what it
was meant for is not known. Refused lines are counted, never mended.

Where no line has a marker, `name: score` lines count without; but not for qa_with_think, whose
parts only the letter tells apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import category

from mira_megatron.records import PARTS_OF_THINK
from mira_megatron.rubric.dimension_names import name_fault, reason_fault
from mira_megatron.rubric.fence import quote
from mira_megatron.rubric.own_words import own_words
from mira_megatron.rubric.prompts import one_line
from mira_megatron.rubric.proposal_lines import UNFILLED, ProposalLine, ProposalReader
from mira_megatron.rubric.reply_lines import DASH, SCORE, tidy
from mira_megatron.rubric.verdict import Proposal

MAX_REASON_CHARS = 2_000  # a reason is one line; longer ones come from judges that lost the thread
MAX_PROPOSALS = 30  # twice what is asked for: an answer that goes on and on is none

_PART_OF_LETTER: dict[str, str | None] = dict(zip("TCQ", PARTS_OF_THINK, strict=True))
_SCORE_AGAIN = re.compile(rf"\s*(?:{SCORE})\s*[:：{DASH}]")

_FILLED_BLANK = re.compile(r"<([^<>|][^<>]*)>")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedProposals:
    """What could be read from a free-form judgement."""

    proposals: tuple[Proposal, ...]  # in the order of the answer, each once
    status: str  # ok: every answer line was read; partial: some were; unparsed: none was
    reason: str | None  # how many lines were refused and why, where the status is not ok


def format_proposals(family: str, proposals: Sequence[Proposal]) -> str:
    """Returns the proposals as answer text, numbered within their part.

    Raises ValueError for a part that the family has not.
    """
    letters = {part: letter for letter, part in _parts(family).items()}
    counts: Counter[str] = Counter()
    lines = []
    for proposal in proposals:
        if proposal.part not in letters:
            raise ValueError(
                f"part={proposal.part!r} of {proposal.dimension!r}: family {family} has the parts "
                f"{', '.join(map(repr, letters))}"
            )
        letter = letters[proposal.part]
        counts[letter] += 1
        lines.append(
            f"[{letter}{counts[letter]}] {one_line(proposal.dimension)}: {proposal.score:g}/10 — "
            f"{one_line(proposal.reason)}"
        )
    return "\n".join(lines)


def parse_proposals(text: str, family: str) -> ParsedProposals:
    """Returns what `text` proposes for a record of the family; never raises for any text."""
    words, note = own_words(text)
    reader = ProposalReader(_parts(family))
    reader.read(words)
    if not reader.is_any_marked and family != "qa_with_think":
        reader = ProposalReader(_parts(family), is_unmarked=True)
        reader.read(words)
    proposals, refused = _usable(reader.lines)
    refused = reader.refused + refused
    faults = [note] if note else []
    if refused:
        counts = ", ".join(f"{fault} {count}" for fault, count in refused.items())
        faults.append(f"lines refused: {counts}")
    if not proposals and not faults:
        faults.append("no line names a dimension and its score")
    return ParsedProposals(
        proposals=proposals,
        status="unparsed" if not proposals else "partial" if faults else "ok",
        reason="; ".join(faults) or None,
    )


def _parts(family: str) -> dict[str, str | None]:
    """Returns the letters of the family's lines, and the part that each stands for."""
    return _PART_OF_LETTER if family == "qa_with_think" else {"D": None}


def _usable(lines: Sequence[ProposalLine]) -> tuple[tuple[Proposal, ...], Counter[str]]:
    """Returns the proposals that later prompts may hold, and why the other lines are refused."""
    proposals: dict[Proposal, None] = {}  # a repeated line is one
    refused: Counter[str] = Counter()
    for line in lines:
        name, reason = _name(line.name), one_line(tidy(_printable(" ".join(line.pieces))))
        proposal = Proposal(part=line.part, dimension=name, score=line.score, reason=reason)
        fault = _fault(name, reason)
        if fault is None and proposal not in proposals and len(proposals) == MAX_PROPOSALS:
            fault = f"after the first {MAX_PROPOSALS}"
        if fault is None:
            proposals[proposal] = None
        else:
            refused[fault] += 1
    return tuple(proposals), refused


def _name(written: str) -> str:
    name = tidy(_printable(written))
    filled_blank = None if UNFILLED.fullmatch(name) else _FILLED_BLANK.fullmatch(name)
    return one_line(filled_blank[1] if filled_blank else name)


def _printable(text: str) -> str:
    """Returns the text without control, direction and invisible characters; joiners are letters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        for character in text
        if character.isspace()
        or character in "\u200c\u200d"
        or not category(character).startswith("C")
    )


def _fault(name: str, reason: str) -> str | None:
    """Returns why the line must not be used, None where it may."""
    fault_of_name, fault_of_reason = name_fault(name), reason_fault(reason)
    if fault_of_name is not None:
        return f"a name that {fault_of_name}"
    if quote(name) != name:
        return "a name that holds a control token"
    if fault_of_reason is not None:
        return f"a reason that {fault_of_reason}"
    if len(reason) > MAX_REASON_CHARS:
        return f"a reason of more than {MAX_REASON_CHARS:,} characters"
    return "two scores" if _SCORE_AGAIN.match(reason) else None
