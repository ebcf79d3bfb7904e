"""Published tables as data: rows of stated numbers, and what is known of how they came about.

Numbers are kept as they were printed, decimals and all: 53.91 says something that 53.910001 does
not. See eval/published/mira_paper.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from mira_megatron.eval.comparison.table import CATEGORIES, MACRO, TITLES

_NUMBER = re.compile(r"\d{1,3}(\.\d+)?")
_KEYS = ("name", "source", "sizes", "rows", "best", "notes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How many tasks a benchmark may have had, the likeliest first, and who says so."""

    counts: tuple[int, ...]
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One row; numbers in percent, as printed."""

    label: str
    stated: Mapping[str, Decimal]  # by the table's names: categories, macro


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """One file of eval/published."""

    name: str
    path: Path
    source: str
    rows: tuple[PublishedRow, ...]
    best: Mapping[str, Decimal]  # numbers of single benchmarks whose row is not known
    sizes: Mapping[str, Size]
    notes: tuple[str, ...]


def load_published(path: Path) -> PublishedTable:
    """Returns the table of a file; FileNotFoundError, or ValueError with file, place and value."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file; eval/published has the tables of this repository"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    fields = _mapping(content, str(path))
    unknown = sorted(set(fields) - set(_KEYS))
    if unknown or "rows" not in fields:
        raise ValueError(f"{path}: unknown keys {unknown}; expected {', '.join(_KEYS)}")
    rows = _mapping(fields["rows"], f"{path}: rows")
    return PublishedTable(
        name=str(fields.get("name", path.stem)),
        path=path,
        source=str(fields.get("source", "")),
        rows=tuple(
            PublishedRow(
                label=label,
                stated=_numbers(stated, f"{path}: rows.{label}", (*CATEGORIES, MACRO)),
            )
            for label, stated in rows.items()
        ),
        best=_numbers(fields.get("best") or {}, f"{path}: best", tuple(TITLES)),
        sizes={
            name: _size(size, f"{path}: sizes.{name}")
            for name, size in _mapping(fields.get("sizes") or {}, f"{path}: sizes").items()
        },
        notes=tuple(map(str, fields.get("notes") or ())),
    )


def _numbers(stated: Any, where: str, known: tuple[str, ...]) -> dict[str, Decimal]:
    numbers = {}
    for name, text in _mapping(stated, where).items():
        if name not in known:
            raise ValueError(f"{where}: unknown name {name!r}; expected {', '.join(known)}")
        if not isinstance(text, str) or not _NUMBER.fullmatch(text) or Decimal(text) > 100:
            raise ValueError(f"{where}.{name}={text!r}, expected percent as printed, such as 53.91")
        numbers[name] = Decimal(text)
    return numbers


def _size(size: Any, where: str) -> Size:
    fields = _mapping(size, where)
    counts = fields.get("counts")
    if not isinstance(counts, list) or not counts or not all(_is_count(each) for each in counts):
        raise ValueError(f"{where}.counts={counts!r}, expected a list of numbers of tasks")
    return Size(counts=tuple(map(int, counts)), source=str(fields.get("source", "")))


def _is_count(text: object) -> bool:
    return isinstance(text, str) and text.isdecimal() and int(text) > 0


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {value!r}, expected a mapping")
    return value
