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
from mira_megatron.eval.contamination.arrays import U64
from mira_megatron.eval.contamination.code_tokens import text_tokens
from mira_megatron.eval.contamination.items import SHAPE_OF, Item, Kind, TextForm
from mira_megatron.eval.contamination.ngram_index import (
    NGRAM_TOKENS,
    HashSet,
    NgramIndex,
    PhraseIndex,
    SurfaceText,
    build_index,
    build_phrases,
)
from mira_megatron.eval.contamination.postings import Postings

_CONTENT = "content.json"
_QUERY_WORDS = ("select", "with")


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
    def query_words(self) -> U64:
        """Hashes of the tokens that a query may begin with; none where none is looked for."""
        words = _QUERY_WORDS if self.queries else ()
        return np.array([text_tokens(word).hash_T[0] for word in words], dtype=np.uint64)


def build_needles(items: Sequence[Item], max_items: int) -> Needles:
    """Returns what to look for.

    Raises ModuleNotFoundError for sqlglot, of the extra `eval`, where items have queries.
    """
    names: list[tuple[Item, Kind]] = []
    texts: dict[TextForm, list[SurfaceText]] = {form: [] for form in TextForm}
    phrases: dict[str, list[int]] = defaultdict(list)
    queries: dict[str, list[int]] = defaultdict(list)
    tables: set[str] = set()
    sql = _sql() if any(item.query for item in items) else None
    for item in items:
        for surface in item.surfaces:
            texts[surface.form].append(
                SurfaceText(
                    surface=len(names), text=surface.text, split=item.split, cluster=item.cluster
                )
            )
            names.append((item, surface.kind))
            if surface.kind in SHAPE_OF and surface.form is TextForm.CODE:
                texts[TextForm.SHAPE].append(
                    SurfaceText(
                        surface=len(names),
                        text=surface.text,
                        split=item.split,
                        cluster=item.cluster,
                    )
                )
                names.append((item, SHAPE_OF[surface.kind]))
        for kind, own in ((Kind.REFERENCE, item.references), (Kind.TEST_NAMES, item.test_names)):
            for phrase in own:
                phrases[phrase].append(len(names))
            names += [(item, kind)] if own else []
        if item.query is not None and sql is not None:
            hashes = sql.query_hashes(item.query, item.dialect)
            for kind in (Kind.QUERY, Kind.MASKED_QUERY):
                if hashes is not None:
                    key = hashes.exact if kind is Kind.QUERY else hashes.masked
                    queries[key].append(len(names))
                names.append((item, kind))
            tables |= sql.tables_of(item.query, item.dialect) if hashes is not None else set()
    indices = {
        form: build_index(own, form, len(names), max_items) for form, own in texts.items() if own
    }
    found = build_phrases(phrases, len(names), [kind is Kind.TEST_NAMES for _, kind in names])
    measured = {surface for own in queries.values() for surface in own}
    for postings in (*(index.postings for index in indices.values()), found.postings):
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
        phrases=found,
        queries=dict(queries),
        tables=frozenset(tables),
    )


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
