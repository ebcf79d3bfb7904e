"""Everything that a scan looks for, made from items, and kept in files that processes map.

A folder of .npy arrays and one JSON: 16 workers share the arrays' memory.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mira_megatron.atomic_files import write_bytes
from mira_megatron.eval.contamination.code_tokens import text_tokens
from mira_megatron.eval.contamination.hash_set import HashSet
from mira_megatron.eval.contamination.items import SHAPE_OF, Item, Kind, TextForm
from mira_megatron.eval.contamination.ngram_index import (
    NGRAM_TOKENS,
    NgramIndex,
    PhraseIndex,
    SurfaceText,
    build_index,
    build_phrases,
)
from mira_megatron.eval.contamination.postings import Postings

_CONTENT = "content.json"
_QUERY_WORD = "select"  # every query has it; `with` is in every other sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceName:
    """Which part of which item a surface is."""

    benchmark: str
    split: str
    task_id: str
    kind: str
    is_measured: bool  # False: too short, or all of it is boilerplate


@dataclass(frozen=True, kw_only=True, slots=True)
class Needles:
    """What is looked for."""

    surfaces: tuple[SurfaceName, ...]  # by their numbers
    ngrams: Mapping[TextForm, NgramIndex]
    phrases: PhraseIndex
    queries: Mapping[str, Sequence[int]]  # surfaces by the hash of a normal form
    tables: frozenset[str]  # that the queries read from

    @property
    def query_word(self) -> np.uint64 | None:
        """The hash of the token that every query has; None where no query is looked for."""
        return np.uint64(text_tokens(_QUERY_WORD).hash_T[0]) if self.queries else None


def build_needles(items: Sequence[Item], max_items: int) -> Needles:
    """Returns what to look for.

    Raises ModuleNotFoundError for sqlglot, of the extra `eval`, where items have queries.
    """
    gathered = _Gathered(_sql() if any(item.query for item in items) else None)
    for item in items:
        gathered.add(item)
    names = gathered.names
    indices = {
        form: build_index(own, form, len(names), max_items)
        for form, own in gathered.texts.items()
        if own
    }
    is_share = [kind is Kind.TEST_NAMES for _, kind in names]
    phrases = build_phrases(gathered.phrases, len(names), is_share)
    measured = {surface for own in gathered.queries.values() for surface in own}
    for postings in (*(index.postings for index in indices.values()), phrases.postings):
        measured |= set(np.flatnonzero(postings.total_S).tolist())
    return Needles(
        surfaces=tuple(
            SurfaceName(
                benchmark=item.benchmark,
                split=item.split,
                task_id=item.task_id,
                kind=kind.value,
                is_measured=number in measured,
            )
            for number, (item, kind) in enumerate(names)
        ),
        ngrams=indices,
        phrases=phrases,
        queries=dict(gathered.queries),
        tables=frozenset(gathered.tables),
    )


class _Gathered:
    """The surfaces of all items, numbered in the order in which they are added."""

    def __init__(self, sql: Any) -> None:
        self.names: list[tuple[Item, Kind]] = []
        self.texts: dict[TextForm, list[SurfaceText]] = {form: [] for form in TextForm}
        self.phrases: dict[str, list[int]] = defaultdict(list)
        self.queries: dict[str, list[int]] = defaultdict(list)
        self.tables: set[str] = set()
        self._sql = sql

    def add(self, item: Item) -> None:
        """Adds an item's surfaces."""
        for surface in item.surfaces:
            self._add_text(item, surface.kind, surface.form, surface.text)
            if surface.kind in SHAPE_OF and surface.form is TextForm.CODE:
                self._add_text(item, SHAPE_OF[surface.kind], TextForm.SHAPE, surface.text)
        self._add_phrases(item, Kind.REFERENCE, item.references)
        self._add_phrases(item, Kind.TEST_NAMES, item.test_names)
        if item.query is not None:
            self._add_query(item, item.query)

    def _add_text(self, item: Item, kind: Kind, form: TextForm, text: str) -> None:
        self.texts[form].append(
            SurfaceText(surface=len(self.names), text=text, split=item.split, cluster=item.cluster)
        )
        self.names.append((item, kind))

    def _add_phrases(self, item: Item, kind: Kind, phrases: Sequence[str]) -> None:
        for phrase in phrases:
            self.phrases[phrase].append(len(self.names))
        if phrases:
            self.names.append((item, kind))

    def _add_query(self, item: Item, query: str) -> None:
        hashes = self._sql.query_hashes(query, item.dialect)
        if hashes is not None:
            self.queries[hashes.exact].append(len(self.names))
            self.queries[hashes.masked].append(len(self.names) + 1)
            self.tables |= self._sql.tables_of(query, item.dialect)
        self.names += [(item, Kind.QUERY), (item, Kind.MASKED_QUERY)]


def save_needles(needles: Needles, folder: Path) -> None:
    """Writes what to look for; the JSON comes last, and its being there says that all is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in _arrays(needles):
        np.save(folder / f"{name}.npy", values)
    content = {
        "surfaces": [asdict(each) for each in needles.surfaces],
        "forms": list(needles.ngrams),
        "lengths": list(needles.phrases.by_length),
        "queries": needles.queries,
        "tables": sorted(needles.tables),
    }
    write_bytes(folder / _CONTENT, orjson.dumps(content))


def open_needles(folder: Path) -> Needles:
    """Returns what `save_needles` wrote, the arrays mapped."""
    content: dict[str, Any] = orjson.loads((folder / _CONTENT).read_bytes())

    def array(name: str) -> npt.NDArray[Any]:
        mapped: npt.NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
        return mapped

    def hash_set(name: str) -> HashSet:
        return HashSet(array(f"{name}.hashes"), array(f"{name}.bitmap"))

    def postings(name: str) -> Postings:
        return Postings(*(array(f"{name}.{each}") for each in _POSTINGS))

    return Needles(
        surfaces=tuple(SurfaceName(**each) for each in content["surfaces"]),
        ngrams={
            TextForm(form): NgramIndex(
                NGRAM_TOKENS[TextForm(form)],
                hash_set(form),
                hash_set(f"{form}.skeletons"),
                postings(form),
            )
            for form in content["forms"]
        },
        phrases=PhraseIndex(
            hash_set("phrases"),
            {
                length: (array(f"phrases.{length}.hashes"), array(f"phrases.{length}.keys"))
                for length in content["lengths"]
            },
            postings("phrases"),
        ),
        queries=content["queries"],
        tables=frozenset(content["tables"]),
    )


_POSTINGS = ("entry_starts", "surfaces", "weights", "totals")


def _arrays(needles: Needles) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for form, index in needles.ngrams.items():
        yield f"{form}.skeletons.hashes", index.skeletons.sorted_G
        yield f"{form}.skeletons.bitmap", index.skeletons.bitmap
    named = [(form.value, index.hashes, index.postings) for form, index in needles.ngrams.items()]
    named.append(("phrases", needles.phrases.last, needles.phrases.postings))
    for name, hashes, postings in named:
        yield f"{name}.hashes", hashes.sorted_G
        yield f"{name}.bitmap", hashes.bitmap
        values = (
            postings.entry_start_K1,
            postings.surface_E,
            postings.weight_E,
            postings.total_S,
        )
        for each, array in zip(_POSTINGS, values, strict=True):
            yield f"{name}.{each}", array
    for length, (hash_P, key_P) in needles.phrases.by_length.items():
        yield f"phrases.{length}.hashes", hash_P
        yield f"phrases.{length}.keys", key_P


def has_needles(folder: Path) -> bool:
    """Returns whether `save_needles` wrote all of a folder."""
    return (folder / _CONTENT).is_file()


def sql_version() -> str:
    """Returns the version of sqlglot; ModuleNotFoundError, of the extra `eval`, without it."""
    _sql()
    return version("sqlglot")


def _sql() -> Any:
    """Returns the module that owns sqlglot; only suites with SQL need it."""
    return importlib.import_module("mira_megatron.eval.contamination.sql_queries")
