"""Runs whose reliability cells are written down, chosen from by the real stages after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import Counts, Manifest
from mira_megatron.records import DOCUMENT_SCHEMA, NUM_SLOTS, RATING_SCHEMA
from mira_megatron.reliability import aggregate
from mira_megatron.reliability.cells import CELL_SCHEMA
from mira_megatron.retention import selection, sensitivity
from mira_megatron.shards import part_name, write_parquet
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    TokenPrefix,
    write_token_dataset,
)

ARM, SCORING, RUBRIC = "a", "s", "mira"
_RATED_AS = {"model": "m", "prompt_key": "0123", "answer_mode": "full"}
# Beside a limit of 1 for the error: decided to count, not to, or undecided and by its estimate.
COUNTS, MASKED, OPEN_COUNTS, OPEN_MASKED = "counts", "masked", "open, counts", "open, masked"
_ERRORS = {
    COUNTS: (0.4, 0.5, 0.6),
    MASKED: (2.5, 3.0, 3.5),
    OPEN_COUNTS: (0.7, 0.9, 1.1),
    OPEN_MASKED: (0.9, 1.1, 1.3),
}
FLIPPED = {OPEN_COUNTS: MASKED, OPEN_MASKED: COUNTS}  # as one that is decided so
_ROWS_PER_PART = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Rated:
    """One document: its length, and the ratings of the first anchors; the others have none."""

    num_tokens: int
    ratings: tuple[float | None, ...]
    is_held_out: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedSource:
    """One source: its group, how its first cells stand, and its documents."""

    group: str
    cells: tuple[str, ...]  # the others are masked
    documents: tuple[Rated, ...]
    is_reversed: bool = False  # the token dataset holds them from the last to the first

    @property
    def order(self) -> list[int]:
        """The numbers of the documents as the token dataset has them."""
        numbers = list(range(len(self.documents)))
        return numbers[::-1] if self.is_reversed else numbers

    @property
    def all_cells(self) -> tuple[str, ...]:
        """A state per slot."""
        return (*self.cells, *[MASKED] * (NUM_SLOTS - len(self.cells)))

    def with_cell(self, slot: int, state: str) -> RatedSource:
        """The source with another state of one cell."""
        cells = (*self.cells[:slot], state, *self.cells[slot + 1 :])
        return replace(self, cells=cells)


def record_id(source: str, number: int) -> str:
    """Id of a source's document, counted from 0."""
    return f"{source}{number}"


def write_recipe(
    folder: Path, sources: Mapping[str, RatedSource], arm: Mapping[str, Any], **sections: Any
) -> Recipe:
    """A recipe with one arm, whose scores are means of at least two anchors."""
    content = {
        "run_folder": str(folder / "run"),
        "seed": 7,
        "rubric": RUBRIC,
        "sources": {
            name: {
                "format": "jsonl",
                "family": "text",
                "group": source.group,
                "fields": {"text": "text"},
                "paths": ["never read.jsonl"],
            }
            for name, source in sources.items()
        },
        "label": {},
        "score": {},
        "reliability": {"max_mae": 1.0, "combine": "mae", "min_records": 10},
        "aggregate": {"scoring": SCORING, "trim_fraction": 0.2, "min_slots": 2},
        "arms": {ARM: {"score": SCORING, "scope": "group", **arm}},
        **sections,
    }
    given = {key: value for key, value in content.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(given))  # JSON is YAML
    return load_recipe(path)


def write_sources(recipe: Recipe, sources: Mapping[str, RatedSource]) -> None:
    """Writes what `aggregate` and `select` read of every source, as units of their own."""
    for name, source in sources.items():
        for stage, folder, work in (
            ("reliability", layout.reliability(RUBRIC, name), "write_cells"),
            ("score", layout.ratings(RUBRIC, name), "write_ratings"),
            ("tokenize", layout.tokens(name), "write_tokens"),
        ):
            unit = Unit(
                stage=stage,
                name=name,
                folder=folder,
                version=1,
                config={},
                work=f"masked_runs:{work}",
                settings=source,
            )
            run_unit(unit, Run(folder=recipe.run_folder), Resources())


def write_cells(workspace: Workspace, source: RatedSource) -> WorkResult:
    """The work of a unit that stands where the reliability stage would."""
    rows = [
        {
            **_RATED_AS,
            "source": workspace.unit.name,
            "group": source.group,
            "anchor_id": f"A{slot}",
            "anchor_name": f"Anchor {slot}",
            "n": 40,
            **dict(zip(("mae_low", "mae", "mae_high"), _ERRORS[state], strict=True)),
            **{"rho": 0.8, "rho_low": 0.7, "rho_high": 0.9},
        }
        for slot, state in enumerate(source.all_cells, start=1)
    ]
    table = pa.Table.from_pylist(rows, schema=CELL_SCHEMA)
    write_parquet(workspace.folder / layout.CELLS, table)
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def write_ratings(workspace: Workspace, source: RatedSource) -> WorkResult:
    """The work of a unit that stands where scoring would, several parts long."""
    rows = [
        {
            **_RATED_AS,
            "record_id": record_id(workspace.unit.name, number),
            "content_key": "0" * 32,
            "view_policy": "whole",
            "num_attempts": 1,
            "scores": [*rated.ratings, *[None] * (NUM_SLOTS - len(rated.ratings))],
            "rationales": [None] * NUM_SLOTS,
            "status": "ok",
        }
        for number, rated in enumerate(source.documents)
    ]
    for start in range(0, len(rows), _ROWS_PER_PART):
        part = pa.Table.from_pylist(rows[start : start + _ROWS_PER_PART], schema=RATING_SCHEMA)
        write_parquet(workspace.folder / part_name(start // _ROWS_PER_PART), part)
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def write_tokens(workspace: Workspace, source: RatedSource) -> WorkResult:
    """The work of a unit that stands where tokenizing would, without the tokens."""
    name, folder = workspace.unit.name, workspace.folder
    rows = [
        {
            "record_id": record_id(name, number),
            "num_tokens": source.documents[number].num_tokens,
            "is_validation": source.documents[number].is_held_out,
            "text_hash": xxhash.xxh3_128_digest(record_id(name, number).encode()),
        }
        for number in source.order
    ]
    documents = folder / f"{name}.records.parquet"
    write_parquet(documents, pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA))
    num_tokens = sum(rated.num_tokens for rated in source.documents)
    prefix = TokenPrefix(
        name=name,
        source=name,
        path_prefix=folder / name,
        documents=documents,
        idx_fingerprint=f"index of {name}",
        num_documents=len(rows),
        num_tokens=num_tokens,
        num_bytes=4 * num_tokens,
    )
    dataset = TokenDataset(source=name, eod_id=0, vocab_size=300, prefixes=(prefix,))
    write_token_dataset(folder, dataset, {})
    return WorkResult(counts=Counts(num_in=len(rows), num_out=len(rows)))


def selected(recipe: Recipe) -> Manifest:
    """Runs aggregate and select; returns what the arm's selection says of itself."""
    run = Run(folder=recipe.run_folder)
    for unit in aggregate.units(recipe):
        run_unit(unit, run, Resources())
    (unit,) = selection.units(recipe)
    return run_unit(unit, run, Resources())


def flipped(recipe: Recipe, workers: int = 1) -> tuple[list[dict[str, Any]], Manifest]:
    """Runs the stage `sensitivity`; returns its rows and its manifest."""
    (unit,) = sensitivity.units(recipe)
    manifest = run_unit(unit, Run(folder=recipe.run_folder), Resources(workers=workers))
    path = recipe.run_folder / layout.sensitivity(ARM) / layout.FLIPS
    return pq.read_table(path).to_pylist(), manifest


def made(
    folder: Path, sources: Mapping[str, RatedSource], arm: Mapping[str, Any], **sections: Any
) -> Recipe:
    """A run up to the selection."""
    recipe = write_recipe(folder, sources, arm, **sections)
    write_sources(recipe, sources)
    selected(recipe)
    return recipe


def kept(recipe: Recipe, sources: Mapping[str, RatedSource]) -> dict[str, set[int]]:
    """The numbers of the documents that the arm keeps of every source."""
    folder = recipe.run_folder / layout.keep(ARM)
    found = {}
    for name, source in sources.items():
        positions = np.flatnonzero(np.load(folder / f"{name}.keep.npy"))
        found[name] = {source.order[position] for position in positions.tolist()}
    return found
