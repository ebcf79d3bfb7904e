"""One line of an anchor file -> Anchor, every field checked: files are written by people too.

Names and reasons end up in prompts, so they pass the same check as a teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import orjson

from mira_megatron.config import nearest
from mira_megatron.records import LEVELS, NUM_SLOTS, PARTS_OF_THINK, Anchor, Medoid, Reference
from mira_megatron.rubric.dimension_names import name_fault, reason_fault

ANCHOR_FIELDS = tuple(field.name for field in fields(Anchor))
REFERENCE_FIELDS = tuple(field.name for field in fields(Reference))
MEDOID_FIELDS = tuple(field.name for field in fields(Medoid))
_OPTIONAL_TOGETHER = ("record_id", "source")  # of a reference that a person wrote


def json_line(line: bytes, where: str) -> dict[str, Any]:
    """Returns the object on a line of a file; ValueError with file and line where there is none."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    return mapping(row, where)


def anchor_from_json(row: Mapping[str, Any], where: str) -> Anchor:
    """Returns a line's anchor; all but the name may be missing.

    Raises ValueError with the line, the field, what it holds and what was expected.
    """
    _check_keys(row, ANCHOR_FIELDS, ("name",), where)
    medoid = row.get("medoid")
    return Anchor(
        anchor_id=_identifier(row.get("anchor_id", ""), f"{where}: anchor_id"),
        name=_checked(row["name"], name_fault, f"{where}: name"),
        description=_optional(row.get("description"), reason_fault, f"{where}: description"),
        part=_one_of(row.get("part"), (None, *PARTS_OF_THINK), f"{where}: part"),
        cluster_size=_count(row.get("cluster_size"), f"{where}: cluster_size"),
        aliases=_aliases(row.get("aliases"), f"{where}: aliases"),
        medoid=None if medoid is None else _medoid(medoid, f"{where}: medoid"),
        references=_references(row.get("references"), f"{where}: references"),
        rubric_version=_identifier(row.get("rubric_version", ""), f"{where}: rubric_version"),
    )


def check_parts(anchors: Sequence[Anchor], where: str) -> None:
    """Raises ValueError unless no anchor has a part, or each part has its five in order."""
    parts = [anchor.part for anchor in anchors]
    share = NUM_SLOTS // len(PARTS_OF_THINK)
    if set(parts) != {None} and parts != [part for part in PARTS_OF_THINK for _ in range(share)]:
        raise ValueError(
            f"{where}: parts are {', '.join(map(str, parts))}; expected null for all, or {share} "
            f"each of {', '.join(PARTS_OF_THINK)} in this order"
        )


def score(value: object, where: str) -> float:
    """Returns a score 0-10; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise ValueError(f"{where}={value!r}: expected a number from 0 to 10")
    return float(value)


def mapping(value: object, where: str) -> dict[str, Any]:
    """Returns a JSON object; ValueError for anything else."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, got {_short(value)}")
    return value


def items(value: object, where: str) -> list[Any]:
    """Returns a JSON list, empty for null; ValueError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, got {_short(value)}")
    return value


def _medoid(value: object, where: str) -> Medoid:
    row = mapping(value, where)
    _check_keys(row, MEDOID_FIELDS, MEDOID_FIELDS, where)
    return Medoid(
        record_id=_identifier(row["record_id"], f"{where}.record_id"),
        source=_identifier(row["source"], f"{where}.source"),
        score=score(row["score"], f"{where}.score"),
        reason=_checked(row["reason"], reason_fault, f"{where}.reason"),
    )


def _references(value: object, where: str) -> tuple[Reference, ...]:
    found = [_reference(row, f"{where}[{index}]") for index, row in enumerate(items(value, where))]
    levels = [LEVELS.index(one.level) for one in found]
    if levels != sorted(levels) or found != sorted(found, key=lambda one: one.score):
        scores = ", ".join(f"{one.level} {one.score:g}" for one in found)
        raise ValueError(f"{where}: {scores}; expected low to high")
    return tuple(found)


def _reference(value: object, where: str) -> Reference:
    row = mapping(value, where)
    needed = [name for name in REFERENCE_FIELDS if name not in _OPTIONAL_TOGETHER]
    _check_keys(row, REFERENCE_FIELDS, needed, where)
    level = _one_of(row["level"], LEVELS, f"{where}.level")
    assert level is not None
    return Reference(
        level=level,
        record_id=_identifier_or_none(row.get("record_id"), f"{where}.record_id"),
        source=_identifier_or_none(row.get("source"), f"{where}.source"),
        score=score(row["score"], f"{where}.score"),
        reason=_checked(row["reason"], reason_fault, f"{where}.reason"),
    )


def _aliases(value: object, where: str) -> tuple[tuple[str, int], ...]:
    found = []
    for index, pair in enumerate(items(value, where)):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{where}[{index}]: expected [name, count], got {_short(pair)}")
        name = _checked(pair[0], name_fault, f"{where}[{index}]")
        count = _count(pair[1], f"{where}[{index}]")
        found.append((name, count or 0))
    return tuple(found)


def _check_keys(
    row: Mapping[str, Any], known: Iterable[str], needed: Iterable[str], where: str
) -> None:
    for key in row:
        if key not in known:
            raise ValueError(f"{where}: unknown field {key!r}.{nearest(key, known)}")
    for key in needed:
        if row.get(key) is None:
            raise ValueError(f"{where}: field {key!r} is missing")


def _checked(value: object, fault_of: Callable[[str], str | None], where: str) -> str:
    text = _text(value, where)
    fault = fault_of(text)
    if fault:
        raise ValueError(f"{where}={_short(text)} {fault}")
    return text


def _optional(value: object, fault_of: Callable[[str], str | None], where: str) -> str | None:
    return None if value is None else _checked(value, fault_of, where)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {_short(value)}")
    return value


def _identifier(value: object, where: str) -> str:
    text = _text(value, where)
    if not text.isprintable():
        raise ValueError(f"{where}={_short(text)} holds a character that cannot be printed")
    return text


def _identifier_or_none(value: object, where: str) -> str | None:
    return None if value is None else _identifier(value, where)


def _one_of(value: object, choices: Sequence[str | None], where: str) -> str | None:
    if (value is not None and not isinstance(value, str)) or value not in choices:
        expected = ", ".join("null" if choice is None else choice for choice in choices)
        raise ValueError(f"{where}={_short(value)} must be one of {expected}")
    return value


def _count(value: object, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{where}={_short(value)}: expected a whole number, or null")
    return value


def _short(value: object) -> str:
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:77]}..."
