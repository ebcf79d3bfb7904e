"""items.jsonl: a line per benchmark item, with what of it lies in the corpus and where.

Whoever reports scores asks `dirty_tasks` which tasks a corpus had, and says the score on the others
beside the score on all.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mira_megatron.atomic_files import write_bytes
from mira_megatron.eval.contamination.items import TEST

ITEMS_FILE = "items.jsonl"
MAX_DOCUMENTS = 50  # of an item's line; hits.parquet has them all


class ItemStatus(StrEnum):
    """What is known of an item."""

    DIRTY = "dirty"  # a record has as much of a surface as the threshold says
    CLEAN = "clean"
    UNMEASURED = "unmeasured"  # every surface is too short, or all of it is boilerplate


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundDocument:
    """How much of one surface one record has."""

    record_id: str
    source: str
    source_group: str
    surface: str
    score: float  # in [MIN_SCORE, 1]
    start: int  # characters of the record's text: where most of it lies close together
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemRecord:
    """What of one item lies in the corpus."""

    benchmark: str
    split: str
    task_id: str
    status: ItemStatus
    measured: tuple[str, ...]  # surfaces that could be looked for
    max_score: float | None  # null: nothing scored as much as hits.parquet begins with
    num_records: int  # that are reason to leave them out, or would be for a test split
    documents: tuple[FoundDocument, ...]  # the first MAX_DOCUMENTS by score, then by record


def best_documents(documents: Iterable[FoundDocument]) -> tuple[FoundDocument, ...]:
    """Returns the documents that an item's line shows."""
    return tuple(
        heapq.nsmallest(MAX_DOCUMENTS, documents, key=lambda each: (-each.score, each.record_id))
    )


def write_items(path: Path, items: Sequence[ItemRecord]) -> None:
    """Writes a line per item."""
    lines = (json.dumps(asdict(item), ensure_ascii=False) for item in items)
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))


def dirty_tasks(path: Path, benchmark: str) -> frozenset[str]:
    """Returns the task ids of a benchmark's test split that the corpus has.

    `path` is items.jsonl or its folder, `benchmark` the suite's key. Items that could not be
    measured are not among them. Raises ValueError where the benchmark was not looked for, because
    then nothing is known to be clean.
    """
    file = path / ITEMS_FILE if path.is_dir() else path
    found: dict[str, str] = {}
    others = set()
    for number, item in enumerate(_lines(file), start=1):
        try:
            if (item["benchmark"], item["split"]) == (benchmark, TEST):
                found[item["task_id"]] = ItemStatus(item["status"])
            others.add(item["benchmark"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}:{number}: no item ({error}); make the file again with `mira decontaminate`"
            ) from error
    if not found:
        raise ValueError(
            f"{file}: {benchmark} was not looked for in the corpus, only "
            f"{', '.join(sorted(others))}. Run `mira decontaminate` with --benchmark {benchmark} "
            "or without --benchmark"
        )
    return frozenset(task for task, status in found.items() if status == ItemStatus.DIRTY)


def _lines(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open(encoding="utf-8", errors="surrogatepass") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from error
