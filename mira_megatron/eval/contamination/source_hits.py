"""What of the benchmarks in the recipe's `eval.suite` lies in the records of each source.

Reads   records/<source>/, the data files of the suite's benchmarks (eval.benchmarks: these alone)
Writes  benchmark_hits/<source>/parts/<source>/part-*.parquet: a row per record and surface of a
        benchmark's item, HIT_SCHEMA of scan.py; a part for each part of the records

The scan is that of `mira decontaminate`. The ablation's table joins its hits with keep masks, and
so says how much of the benchmarks each arm was trained on: what a corpus has of them is no property
of an arm, but what an arm keeps of it is. Adopted sources are tokens without texts: no unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.eval.contamination.corpus import needles_digest
from mira_megatron.eval.contamination.items import Item
from mira_megatron.eval.contamination.published_files import read_items
from mira_megatron.eval.eval_config import SECTION as EVAL
from mira_megatron.eval.eval_config import eval_config, read_suite
from mira_megatron.stage import Unit
from mira_megatron.training.trained_arms import SECTION as ABLATION

VERSION = 1
# An n-gram of more items than this is boilerplate, as in `mira decontaminate`.
MAX_ITEMS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceHitsSettings:
    """What one source's unit needs."""

    source: str
    items: Callable[[], list[Item]]  # of all benchmarks; read once for all units


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source with records; none without the sections eval and ablation."""
    sources = scanned_sources(recipe)
    if not sources:
        return []
    items = _items(recipe)
    digest = cache(lambda: {"benchmark items": _digest(items())})
    return [
        Unit(
            stage="contamination",
            name=source,
            folder=layout.contamination(source),
            version=VERSION,
            config={"max_items": MAX_ITEMS},
            upstream=(layout.records(source),),
            raw_files=digest,
            work="mira_megatron.eval.contamination.scan_source:scan_source",
            settings=SourceHitsSettings(source=source, items=items),
        )
        for source in sources
    ]


def scanned_sources(recipe: Recipe) -> tuple[str, ...]:
    """Returns the sources that are looked through, sorted."""
    if not {EVAL, ABLATION} <= set(recipe.values):
        return ()
    return tuple(sorted(recipe_sources(recipe)))


def _items(recipe: Recipe) -> Callable[[], list[Item]]:
    """Returns what reads the items of the recipe's benchmarks, once.

    Raises what eval_config and read_suite do; what is returned raises ValueError or
    FileNotFoundError for what is wrong with a suite's data files.
    """
    _, entries = read_suite(recipe, eval_config(recipe))
    return cache(
        lambda: [
            item for entry in entries for item in read_items(entry.kind, entry.name, entry.file)
        ]
    )


def _digest(items: list[Item]) -> str:
    try:
        return needles_digest(items, MAX_ITEMS)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"looking for gold queries needs {error.name}: pip install 'mira-megatron[eval]'"
        ) from error
