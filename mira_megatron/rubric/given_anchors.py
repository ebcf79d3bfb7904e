"""Anchors that a recipe brings along, so that nothing is discovered for a group.

    scorers:
      <group>:
        anchors_path: my.jsonl           # in the format of anchors.jsonl, or …
        anchor_fields: {name: dim_name, references: examples, references.score: rating}
        published: text-group3           # … a table that is shipped with this package

`anchor_fields` maps our fields to those of a foreign file, of which no other field is then taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mira_megatron.config import Recipe, nearest
from mira_megatron.records import LEVELS, NUM_SLOTS, Anchor
from mira_megatron.rubric.anchor_files import read_anchors, with_version
from mira_megatron.rubric.anchor_json import (
    ANCHOR_FIELDS,
    MEDOID_FIELDS,
    REFERENCE_FIELDS,
    anchor_from_json,
    check_parts,
    items,
    json_line,
    mapping,
    score,
)

PUBLISHED = Path(__file__).parent / "published"

_FOREIGN_FIELDS = (
    *(name for name in ANCHOR_FIELDS if name not in ("aliases", "rubric_version")),
    *(f"medoid.{name}" for name in MEDOID_FIELDS),
    *(f"references.{name}" for name in REFERENCE_FIELDS),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenAnchors:
    """Where a group's anchors come from instead of its judgments."""

    path: Path
    family: str | None = None  # that they were made for, where it is known
    fields: Mapping[str, str] = field(default_factory=dict)  # ours -> theirs; empty: our format


def given_anchors(recipe: Recipe, group: str) -> GivenAnchors | None:
    """Returns the anchors that the recipe gives for a group, or None: they are to be discovered.

    Raises ValueError for settings that contradict each other or name nothing; reads no file.
    """
    where = f"{recipe.path}: scorers.{group}"
    entry = mapping(recipe.mapping("scorers").get(group) or {}, where)
    path, published = entry.get("anchors_path"), entry.get("published")
    fields = mapping(entry.get("anchor_fields") or {}, f"{where}.anchor_fields")
    if path and published:
        raise ValueError(f"{where}: anchors_path and published exclude each other; give one")
    if fields and not path:
        raise ValueError(f"{where}: anchor_fields is for a file at anchors_path; none is given")
    for name in fields:
        if name not in _FOREIGN_FIELDS:
            tail = nearest(str(name), _FOREIGN_FIELDS)
            raise ValueError(f"{where}.anchor_fields: unknown field {name!r}.{tail}")
    if fields and "name" not in fields:
        raise ValueError(f"{where}.anchor_fields: say which field holds the name, as name: …")
    if published:
        return _published(str(published), f"{where}.published")
    return GivenAnchors(path=recipe.path_of(str(path)), fields=fields) if path else None


def published_names() -> tuple[str, ...]:
    """Returns the names of the shipped tables."""
    return tuple(sorted(path.stem for path in PUBLISHED.glob("*.jsonl")))


def read_given(given: GivenAnchors, *, name: str, family: str) -> tuple[Anchor, ...]:
    """Returns the given anchors; those of a foreign file get a version under `name`.

    Raises ValueError where they are no anchors, or none for records of this family.
    """
    anchors = _read_foreign(given, name) if given.fields else read_anchors(given.path)
    has_parts = anchors[0].part is not None
    made_for = given.family or ("qa_with_think" if has_parts else family)
    if made_for != family:
        raise ValueError(
            f"{given.path}: these anchors are for records of family {made_for}, but the group's "
            f"family is {family}. Name them under a group of their family"
        )
    return anchors


def _published(name: str, where: str) -> GivenAnchors:
    names = published_names()
    if name not in names:
        raise ValueError(f"{where}: no table {name!r} is shipped.{nearest(name, names)}")
    family = name.rpartition("-group")[0].replace("-", "_")
    return GivenAnchors(path=PUBLISHED / f"{name}.jsonl", family=family)


def _read_foreign(given: GivenAnchors, name: str) -> tuple[Anchor, ...]:
    lines = enumerate(given.path.read_bytes().split(b"\n"), start=1)
    rows = {f"{given.path}:{number}": line for number, line in lines if line.strip()}
    if len(rows) != NUM_SLOTS:
        raise ValueError(f"{given.path}: {len(rows)} anchors; expected {NUM_SLOTS}, one per line")
    anchors = [
        anchor_from_json(_converted(json_line(line, where), given.fields, where), where)
        for where, line in rows.items()
    ]
    if "anchor_id" in given.fields:
        anchors.sort(key=lambda anchor: int(anchor.anchor_id[1:]))
    check_parts(anchors, str(given.path))
    return with_version(name, anchors)


def _converted(row: Mapping[str, Any], fields: Mapping[str, str], where: str) -> dict[str, Any]:
    """Returns a foreign line in our fields."""
    values: dict[str, Any] = {}
    for ours, theirs in fields.items():
        if "." in ours:
            continue
        if theirs not in row:
            raise ValueError(f"{where}: no field {theirs!r}.{nearest(theirs, row)}")
        values[ours] = row[theirs]
    if "anchor_id" in values:
        values["anchor_id"] = _slot(values["anchor_id"], f"{where}: {fields['anchor_id']}")
    if values.get("medoid") is not None:
        values["medoid"] = _nested(values["medoid"], "medoid", fields, MEDOID_FIELDS, where)
    if values.get("references") is not None:
        values["references"] = _foreign_references(values["references"], fields, where)
    return values


def _foreign_references(
    value: object, fields: Mapping[str, str], where: str
) -> list[dict[str, Any]]:
    """Returns references low to high; where they have no level, it is their third by score."""
    where = f"{where}: {fields['references']}"
    found = [
        _nested(row, "references", fields, REFERENCE_FIELDS, f"{where}[{index}]")
        for index, row in enumerate(items(value, where))
    ]
    for reference in found:
        reference["score"] = score(reference.get("score"), f"{where}: score")
    found.sort(key=lambda reference: reference["score"])
    if not any(reference.get("level") for reference in found):
        for reference, level in zip(found, _levels(len(found)), strict=True):
            reference["level"] = level
    return found


def _levels(num_references: int) -> list[str]:
    few = {0: [], 1: ["middle"], 2: ["low", "high"]}
    if num_references in few:
        return few[num_references]
    thirds = np.array_split(np.arange(num_references), len(LEVELS))
    return [level for level, third in zip(LEVELS, thirds, strict=True) for _ in third]


def _nested(
    value: object, outer: str, fields: Mapping[str, str], names: tuple[str, ...], where: str
) -> dict[str, Any]:
    row = mapping(value, where)
    values = {name: row.get(fields.get(f"{outer}.{name}", name)) for name in names}
    if isinstance(values["reason"], str):
        values["reason"] = " ".join(values["reason"].split())  # prompts quote it on one line
    return values


def _slot(value: object, where: str) -> str:
    """Returns A1.. for however a foreign file numbers its slots."""
    number = re.fullmatch(r"\D*(\d{1,3})", str(value))
    if number is None:
        raise ValueError(f"{where}={value!r}: expected a slot's number, such as A1")
    return f"A{int(number[1])}"
