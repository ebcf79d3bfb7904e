"""An explanation for people, in the terminal, and for programs, as one JSON object.

What strangers wrote (origins, rationales, anchors' names, ids) is printed as text, never as markup,
and what would steer a terminal is shown as an escape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.explain.decided_records import (
    ABOVE_CUTOFF,
    BEHIND_FLOORS,
    BELOW_CUTOFF,
    DRAWN,
    NOTHING_FITS,
    PINNED,
    RESERVED,
    TIE,
    Decided,
)
from mira_megatron.explain.explanation import ArmExplanation, Explanation
from mira_megatron.explain.placed_records import BlendPlace
from mira_megatron.explain.rated_records import RatedRecord, Slot
from mira_megatron.explain.slots import COUNTED
from mira_megatron.written_numbers import MISSING, decimal, grouped
from mira_megatron.written_tables import terminal_table

_SCORE_DIGITS = 3
_WHY = {
    ABOVE_CUTOFF: "not below the cutoff",
    BELOW_CUTOFF: "below the cutoff",
    BEHIND_FLOORS: "what floors leave of the budget of its scope does not hold the first in rank",
    DRAWN: "it has no score and was drawn, as the arm's `nulls` say",
    NOTHING_FITS: "the budget of its scope does not hold the first in rank",
    PINNED: "its source is pinned",
    RESERVED: "reserved by the floor of its source",
    TIE: "at the cutoff, and behind it by the tie rule",
}
_DECISIONS = {
    "held_out": "held out for validation: no arm ever trains on it",
    "duplicate_of_held_out": "repeats a held-out text",
    "source_not_trained_on": "its source is not trained on",
    "in_another_arm": "kept, or a copy of it, by an arm that this one goes without",
    "no_score": "it has no score",
    "beyond_cap": "beyond the cap of its source",
}


def explanation_json(found: Explanation) -> str:
    """Returns the explanation as JSON; control characters are escaped, nulls stay null."""
    return json.dumps(asdict(found), indent=2)


def print_explanation(console: Console, found: Explanation) -> None:
    """Prints where a record comes from, its scores, where it lies and what each arm decided."""
    for line in _origin_lines(found):
        _print(console, line)
    if found.rating is not None:
        console.print()
        console.print(_slot_table(found.rating))
        for line in _rating_lines(found.rating):
            _print(console, line)
    for line in _score_lines(found):
        _print(console, line)
    for arm in found.arms:
        console.print()
        _print(console, f"Arm {arm.arm}: {_verdict(arm)}", "bold")
        for line in _arm_lines(arm):
            _print(console, f"  {line}")


def visible(text: str) -> str:
    """Returns text with an escape in place of each character that would not print as itself."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _print(console: Console, line: str, style: str = "") -> None:
    # Whole, at any width: a path or an id that is cut cannot be searched for.
    console.print(Text(visible(line), style), soft_wrap=True)


def _origin_lines(found: Explanation) -> Iterator[str]:
    yield f"Record {found.record_id}"
    group = f", group {found.source_group}" if found.source_group else ""
    yield f"Source {found.source}{group}: record {found.row + 1:,} of it"
    if found.record is not None:
        record = found.record
        yield f"From {record.origin}"
        yield f"{record.family}, {record.num_chars:,} characters, content {record.content_hash}"
        if record.meta is not None:
            yield f"Meta {record.meta}"
    elif found.is_adopted:
        yield "Adopted as tokens: there is no text of it here"
    place = found.tokens
    if place is None:
        yield "Not tokenised yet"
        return
    start = "no sequence" if place.byte_offset is None else f"from byte {place.byte_offset:,}"
    yield f"Tokens {place.bin}"
    yield (
        f"  document {place.document:,} of {place.prefix}, {start}: {place.num_tokens:,} tokens, "
        f"{place.num_bytes:,} bytes"
    )


def _slot_table(rating: RatedRecord) -> Table:
    table = terminal_table("Slots")
    has_cells = any(slot.reliability is not None for slot in rating.slots)
    has_decisions = any(
        slot.reliability is not None and slot.reliability.decision for slot in rating.slots
    )
    table.add_column("Slot", no_wrap=True)
    table.add_column("Score", justify="right", no_wrap=True)
    table.add_column("In the score", no_wrap=True)
    for heading in ("MAE", "rho") if has_cells else ():
        table.add_column(heading, justify="right", no_wrap=True)
    if has_decisions:
        table.add_column("Cell", no_wrap=True)
    table.add_column("Anchor: rationale", overflow="fold")
    for slot in rating.slots:
        style = "" if slot.part == COUNTED else "dim"
        cells = _slot_cells(slot, has_cells=has_cells, has_decisions=has_decisions)
        table.add_row(*(Text(visible(cell), style) for cell in cells))
    return table


def _slot_cells(slot: Slot, *, has_cells: bool, has_decisions: bool) -> Iterator[str]:
    yield slot.anchor_id
    yield decimal(slot.score)
    yield slot.part.replace("_", " ")
    cell = slot.reliability
    if has_cells:
        yield decimal(None if cell is None else cell.mae)
        yield decimal(None if cell is None else cell.rho)
    if has_decisions:
        yield (cell.decision if cell is not None else None) or MISSING
    yield ": ".join(part for part in (slot.name or MISSING, slot.rationale) if part)


def _rating_lines(rating: RatedRecord) -> Iterator[str]:
    status = rating.status + (f" ({rating.reason})" if rating.reason else "")
    yield f"Rated by {rating.model}, answers {rating.answer_mode}, status {status}"
    arithmetic = rating.arithmetic
    if arithmetic is None:
        return
    usable = f"{arithmetic.num_usable} of {len(rating.slots)} slots are usable"
    if arithmetic.score is None:
        yield f"{usable}, fewer than min_slots {arithmetic.min_slots}: no score"
        return
    counted = [slot.score for slot in rating.slots if slot.part == COUNTED]
    total = sum(score for score in counted if score is not None)
    yield (
        f"{usable}; trim {arithmetic.trim_fraction:g} cuts {arithmetic.num_trimmed_each_end} at "
        f"each end; {decimal(total, _SCORE_DIGITS)} / {arithmetic.num_counted} = "
        f"{decimal(arithmetic.score, _SCORE_DIGITS)}"
    )


def _score_lines(found: Explanation) -> Iterator[str]:
    if found.rating is None and not found.is_adopted:
        yield "Not rated yet"
    for scored in found.scores:
        value = f"none ({scored.reason})" if scored.score is None else None
        yield f"Score in {scored.table}: {value or decimal(scored.score, _SCORE_DIGITS)}"
    if found.is_score_reproduced is False:
        yield (
            "The arithmetic above does not give the score in the table: ratings or cells changed "
            "since. Run `mira aggregate`."
        )


def _verdict(arm: ArmExplanation) -> str:
    decided = arm.decided
    if decided is None:
        return f"not decided ({arm.state})"
    verdict = "kept" if decided.is_kept else "dropped"
    if decided.times > 1:
        verdict += f", seen {decided.times} times"
    return f"{verdict}: {_reason(decided)}"


def _reason(decided: Decided) -> str:
    if decided.decision.startswith("denied_by_"):
        return f"mask {decided.decision.removeprefix('denied_by_')} of with_masks drops it"
    said = _DECISIONS.get(decided.decision)
    why = None if decided.why is None else _WHY.get(decided.why, decided.why.replace("_", " "))
    return ": ".join(part for part in (said, why) if part) or decided.decision


def _arm_lines(arm: ArmExplanation) -> Iterator[str]:
    if arm.state not in ("done", "waiting", "unfinished"):
        yield f"The recipe or its inputs changed since ({arm.state}): this is what was selected"
    if arm.decided is not None:
        yield from _decided_lines(arm.decided)
    if arm.blend is not None:
        yield from _blend_lines(arm.blend)


def _decided_lines(decided: Decided) -> Iterator[str]:
    if decided.scope is not None:
        difference = ""
        if decided.score_minus_cutoff is not None:
            side = "above" if decided.score_minus_cutoff >= 0 else "below"
            difference = (
                f"; the record is {abs(decided.score_minus_cutoff):.{_SCORE_DIGITS}f} {side}"
            )
        cutoff = decimal(decided.cutoff, _SCORE_DIGITS)
        if decided.is_cutoff_of_floors:
            cutoff = f"none by rank, floors reserve down to {cutoff}"
        yield f"Scope {decided.scope}, ranked by {decided.score_table}: cutoff {cutoff}{difference}"
    distance = decided.distance
    if distance is not None:
        equal = f" ({distance.num_equal:,} with its score)" if distance.num_equal > 1 else ""
        score = decimal(distance.score, _SCORE_DIGITS)
        yield f"Rank {distance.rank:,} of {distance.num_ranked:,} at {score}{equal}"
        between = "kept behind" if decided.is_kept else "dropped ahead of"
        yield (
            f"{grouped(distance.num_between)} records are {between} it; with its own they hold "
            f"{grouped(distance.tokens_between)} tokens"
        )
    for copy in decided.copies:
        held_out = ", held out" if copy.is_held_out else ""
        kept_by = f", kept by {', '.join(copy.kept_by)}" if copy.kept_by else ""
        yield f"Same text: {copy.record_id} of {copy.source}{held_out}{kept_by}"


def _blend_lines(blend: BlendPlace) -> Iterator[str]:
    numbers = ", ".join(f"{number:,}" for number in blend.sequences)
    yield f"In the blend ({blend.split}, {blend.handover}): sequence {numbers} of {blend.prefix}"
    yield f"  from byte {blend.byte_offset:,} of {blend.bin}"
