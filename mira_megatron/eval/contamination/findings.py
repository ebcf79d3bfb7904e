"""What the hits of a scan say: of every item, of every record, of every benchmark and source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mira_megatron.eval.contamination.corpus import CorpusPart, Scan
from mira_megatron.eval.contamination.item_records import (
    MAX_DOCUMENTS,
    FoundDocument,
    ItemRecord,
    ItemStatus,
    best_documents,
)
from mira_megatron.eval.contamination.items import EVIDENCE_ONLY, TEST
from mira_megatron.eval.contamination.scan import HIT_SCHEMA

FINDING_SCHEMA = pa.schema(
    [
        *HIT_SCHEMA,
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_group", pa.string(), nullable=False),
        pa.field("is_over", pa.bool_(), nullable=False),  # the threshold; never of test_names
    ]
)
KEEP_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("keep", pa.bool_(), nullable=False),  # False in every row
        pa.field("reason", pa.string(), nullable=False),  # benchmark/surface of the best score
    ]
)

ItemKey = tuple[str, str, str]  # benchmark, split, task


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """What one source has of one benchmark."""

    num_dirty_items: int
    num_records: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a scan found."""

    items: tuple[ItemRecord, ...]
    hits: pa.Table  # FINDING_SCHEMA
    keep: pa.Table  # KEEP_SCHEMA: the records to leave out
    overlaps: Mapping[tuple[str, str], Mapping[str, Overlap]]  # benchmark and split, source
    dropped: Mapping[str, int]  # records to leave out, by source


@dataclass(slots=True)
class _Tally:
    """What has been counted so far."""

    documents: dict[ItemKey, list[FoundDocument]] = field(default_factory=lambda: defaultdict(list))
    best: dict[ItemKey, float] = field(default_factory=dict)  # of surfaces that may be a reason
    records: dict[ItemKey, set[str]] = field(default_factory=lambda: defaultdict(set))
    overlaps: dict[tuple[str, str], dict[str, tuple[set[str], set[str]]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    reasons: dict[str, tuple[float, str, str]] = field(
        default_factory=dict
    )  # score, reason, source

    def note(self, row: Mapping[str, Any]) -> None:
        """Counts a row of FINDING_SCHEMA."""
        key = (row["benchmark"], row["split"], row["task_id"])
        _note_document(self.documents[key], row)
        if row["surface"] not in EVIDENCE_ONLY:
            self.best[key] = max(row["score"], self.best.get(key, 0.0))
        if not row["is_over"]:
            return
        self.records[key].add(row["record_id"])
        tasks, records = self.overlaps[key[:2]].setdefault(row["source"], (set(), set()))
        tasks.add(row["task_id"])
        records.add(row["record_id"])
        reason = (row["score"], f"{row['benchmark']}/{row['surface']}", row["source"])
        if row["split"] == TEST and reason[0] > self.reasons.get(row["record_id"], (0.0,))[0]:
            self.reasons[row["record_id"]] = reason


def findings_of(scan: Scan, parts: Sequence[CorpusPart], threshold: float) -> Findings:
    """Returns what the hits of all parts say under a threshold."""
    tally = _Tally()
    tables = [FINDING_SCHEMA.empty_table()]
    for part, hits in zip(parts, scan.hits, strict=True):
        rows = hits.to_pylist()
        for row in rows:
            row |= {"source": part.source, "source_group": part.group}
            row["is_over"] = row["score"] >= threshold and row["surface"] not in EVIDENCE_ONLY
            tally.note(row)
        tables.append(pa.Table.from_pylist(rows, schema=FINDING_SCHEMA))
    dropped = {part.source: 0 for part in parts}
    for _, _, source in tally.reasons.values():
        dropped[source] += 1
    keep = [
        {"record_id": record_id, "keep": False, "reason": reason}
        for record_id, (_, reason, _) in tally.reasons.items()
    ]
    return Findings(
        items=_item_records(scan, tally),
        hits=pa.concat_tables(tables),
        keep=pa.Table.from_pylist(keep, schema=KEEP_SCHEMA),
        overlaps={
            key: {
                source: Overlap(num_dirty_items=len(tasks), num_records=len(records))
                for source, (tasks, records) in sorted(by_source.items())
            }
            for key, by_source in tally.overlaps.items()
        },
        dropped=dropped,
    )


def _note_document(documents: list[FoundDocument], row: Mapping[str, Any]) -> None:
    """Adds a document, and forgets those that no line will show when there are many."""
    documents.append(
        FoundDocument(
            record_id=row["record_id"],
            source=row["source"],
            source_group=row["source_group"],
            surface=row["surface"],
            score=row["score"],
            start=row["start"],
            end=row["end"],
        )
    )
    if len(documents) > 20 * MAX_DOCUMENTS:
        documents[:] = best_documents(documents)


def _item_records(scan: Scan, tally: _Tally) -> tuple[ItemRecord, ...]:
    measured: dict[ItemKey, dict[str, bool]] = defaultdict(dict)
    for surface in scan.needles.surfaces:
        own = measured[surface.benchmark, surface.split, surface.task_id]
        own[surface.kind] = own.get(surface.kind, False) or surface.is_measured
    found = []
    for key, surfaces in measured.items():
        kinds = tuple(kind for kind, is_measured in surfaces.items() if is_measured)
        status = ItemStatus.CLEAN
        if not set(kinds) - EVIDENCE_ONLY:
            status = ItemStatus.UNMEASURED
        if tally.records.get(key):
            status = ItemStatus.DIRTY
        found.append(
            ItemRecord(
                benchmark=key[0],
                split=key[1],
                task_id=key[2],
                status=status,
                measured=kinds,
                max_score=tally.best.get(key),
                num_records=len(tally.records.get(key, ())),
                documents=best_documents(tally.documents.get(key, ())),
            )
        )
    return tuple(found)
