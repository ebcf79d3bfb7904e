"""The sources a recipe adopts: `.bin/.idx` that exist already, with ids and scores if there are.

A table is joined by document number (its column `document`), by id (its column `record_id`), or
row by row. Document numbers run through all prefixes of the source, in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mira_megatron.config import Recipe, check_name, nearest, typed
from mira_megatron.tokenization.index_file import idx_path

UNSCORED_PIN, UNSCORED_LEAVE_OUT = "pin", "leave_out"
_UNSCORED = (UNSCORED_LEAVE_OUT, UNSCORED_PIN)
_NESTED = ("ids", "scores")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableConfig:
    """Parquet files, one after another, with a value per document."""

    paths: list[str]
    column: str  # of the values
    document: str | None = None  # column of document numbers, from 0
    record_id: str | None = None  # column of ids; with neither, row i belongs to document i

    def __post_init__(self) -> None:
        if self.document is not None and self.record_id is not None:
            raise ValueError(
                f"document={self.document!r} and record_id={self.record_id!r}: a table is joined "
                "by one of them"
            )
        if self.column in (self.document, self.record_id):
            raise ValueError(
                f"column={self.column!r}: is the values and says whose they are; name two columns"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptConfig:
    """What one adopted source's entry says besides its tables."""

    prefixes: list[str]  # paths of .bin/.idx pairs without the ending; wildcards allowed
    group: str | None = None  # the source group it is ranked in; its own by default
    unscored: str = UNSCORED_LEAVE_OUT  # under an arm whose score it lacks: leave_out | pin
    # Reads every token once: ids within the vocabulary, documents that end with EOD, and copies of
    # held-out documents. False takes ids for texts and trusts the rest.
    check_tokens: bool = True

    def __post_init__(self) -> None:
        if not self.prefixes:
            raise ValueError("prefixes=[]: name at least one .bin/.idx pair")
        if self.group is not None:
            check_name("group", self.group)
        if self.unscored not in _UNSCORED:
            raise ValueError(f"unscored={self.unscored!r} must be one of {', '.join(_UNSCORED)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptedSource:
    """One source that exists as token datasets."""

    name: str
    config: AdoptConfig
    ids: TableConfig | None
    scores: Mapping[str, TableConfig]  # by the name of the score table they become
    folder: Path  # from which its paths start

    @property
    def group(self) -> str | None:
        """Returns the source group that is pinned, if any."""
        return self.config.group

    @property
    def unscored(self) -> str:
        """Returns what becomes of it under an arm whose score it lacks."""
        return self.config.unscored

    def table_paths(self, table: TableConfig) -> list[Path]:
        """Returns the files of a table; FileNotFoundError names one that is not there."""
        paths = [(self.folder / Path(path).expanduser()).resolve() for path in table.paths]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"adopt.{self.name}: {path}: no such file")
        return paths

    def path_prefixes(self) -> list[Path]:
        """Returns its prefixes, in the order given, matches of a wildcard in natural order.

        Raises FileNotFoundError for an entry that names nothing, and ValueError for one that
        cannot be read in place, for a pair that is named twice, and for two of one file name
        without a table of ids.
        """
        found = [prefix for entry in self.config.prefixes for prefix in self._matches(entry)]
        pairs: dict[Path, Path] = {}
        by_name: dict[str, Path] = {}
        for prefix in found:
            first = pairs.setdefault(idx_path(prefix).resolve(), prefix)
            if first is not prefix:
                raise ValueError(
                    f"adopt.{self.name}: {prefix} is named twice; every document would be trained "
                    "on twice. To repeat documents, give the arm repeat_fraction and repeat_times."
                )
            namesake = by_name.setdefault(prefix.name, prefix)
            if namesake is not prefix and self.ids is None:
                raise ValueError(
                    f"adopt.{self.name}: {namesake} and {prefix} have one file name, by which "
                    f"documents get their ids. Give adopt.{self.name}.ids, or make them sources of "
                    "their own."
                )
        return found

    def _matches(self, entry: str) -> list[Path]:
        if re.match(r"[a-z0-9]+://", entry):
            raise ValueError(
                f"adopt.{self.name}: {entry}: index views link to a .bin in a file system, and "
                "object storage has no links. Copy the pair to a disk that all nodes see, or mount "
                "the bucket."
            )
        stem = re.sub(r"\.(bin|idx)$", "", entry)
        path = Path(stem).expanduser()
        literal = self.folder / path  # an absolute one stays as it is
        if Path(f"{literal}.idx").is_file():
            return [literal]
        start = Path(path.anchor) if path.is_absolute() else self.folder
        pattern = path.relative_to(path.anchor).as_posix()
        matches = list(start.glob(f"{pattern}.idx"))
        if not matches:
            raise FileNotFoundError(
                f"adopt.{self.name}: {literal}.idx: no such index. Name prefixes without "
                ".bin or .idx"
            )
        prefixes = [match.with_name(match.name.removesuffix(".idx")) for match in matches]
        return sorted(prefixes, key=lambda prefix: _natural(str(prefix)))


def adopted_sources(recipe: Recipe) -> dict[str, AdoptedSource]:
    """Returns the adopted sources by name; ValueError names the entry and key that is wrong."""
    adopted = {
        name: _adopted(recipe, name, entry) for name, entry in recipe.mapping("adopt").items()
    }
    both = sorted(set(adopted) & set(recipe.mapping("sources")))
    if both:
        raise ValueError(
            f"{recipe.path}: {', '.join(both)}: under `sources` and under `adopt`; a source is "
            "read from raw files or adopted as tokens, not both"
        )
    return adopted


def check_no_pair_adopted_twice(sources: Iterable[AdoptedSource]) -> None:
    """Raises ValueError where two sources name one pair: its documents would count twice."""
    names: dict[Path, str] = {}
    for source in sources:
        for prefix in source.path_prefixes():
            first = names.setdefault(idx_path(prefix).resolve(), source.name)
            if first != source.name:
                raise ValueError(
                    f"adopt.{source.name}: {prefix} belongs to {first} too; every document in it "
                    "would be trained on twice. Name it under one of them."
                )


def _adopted(recipe: Recipe, name: str, entry: object) -> AdoptedSource:
    where = f"{recipe.path}: adopt.{name}"
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"{where}: expected a mapping such as {{prefixes: [/data/wiki_*]}}, got {entry!r}"
        )
    known = [*_NESTED, *(field.name for field in fields(AdoptConfig))]
    for key in entry:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}.{nearest(str(key), known)}")
    flat = {key: value for key, value in entry.items() if key not in _NESTED}
    if isinstance(flat.get("prefixes"), str):
        flat["prefixes"] = [flat["prefixes"]]
    tables = entry.get("scores") or {}
    if not isinstance(tables, Mapping):
        raise ValueError(f"{where}.scores: expected score names with a table each, got {tables!r}")
    for score in tables:
        check_name(f"{where}.scores", str(score))
    return AdoptedSource(
        name=name,
        config=typed(AdoptConfig, flat, where=where),
        ids=_table(entry["ids"], f"{where}.ids", "record_id") if entry.get("ids") else None,
        scores={
            str(score): _table(table, f"{where}.scores.{score}", "score")
            for score, table in sorted(tables.items())
        },
        folder=recipe.path.parent,
    )


def _table(values: object, where: str, column: str) -> TableConfig:
    given: dict[str, Any] = dict(values) if isinstance(values, Mapping) else {"paths": values}
    if isinstance(given.get("paths"), str):
        given["paths"] = [given["paths"]]
    return typed(TableConfig, {"column": column, **given}, where=where)


def _natural(text: str) -> list[tuple[int, int | str]]:
    """Returns what sorts shard_2 before shard_10."""
    pieces = re.findall(r"\d+|\D+", text)
    return [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in pieces]
