"""What the hits of a scan say: of every item, of every record, of every benchmark and source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def findings_of(scan: Scan, parts: Sequence[CorpusPart], threshold: float) -> Findings:
    """Returns what the hits of all parts say under a threshold."""
    documents: dict[ItemKey, list[FoundDocument]] = defaultdict(list)
    records: dict[ItemKey, set[str]] = defaultdict(set)
    overlaps: dict[tuple[str, str], dict[str, tuple[set[str], set[str]]]] = defaultdict(dict)
    reasons: dict[str, tuple[float, str, str]] = {}  # score, reason, source by record
    tables = []
    for part, hits in zip(parts, scan.hits, strict=True):
        rows = hits.to_pylist()
        for row in rows:
            row |= {"source": part.source, "source_group": part.group}
            is_evidence = row["surface"] in EVIDENCE_ONLY
            row["is_over"] = row["score"] >= threshold and not is_evidence
            key = (row["benchmark"], row["split"], row["task_id"])
            _note_document(documents[key], row)
            if not row["is_over"]:
                continue
            records[key].add(row["record_id"])
            own = overlaps[key[0], key[1]].setdefault(part.source, (set(), set()))
            own[0].add(row["task_id"])
            own[1].add(row["record_id"])
            reason = (row["score"], f"{row['benchmark']}/{row['surface']}", part.source)
            if row["split"] == TEST and reason[0] > reasons.get(row["record_id"], (0.0,))[0]:
                reasons[row["record_id"]] = reason
        tables.append(pa.Table.from_pylist(rows, schema=FINDING_SCHEMA))
    dropped = {part.source: 0 for part in parts}
    for _, _, source in reasons.values():
        dropped[source] += 1
    return Findings(
        items=_item_records(scan, documents, records),
        hits=pa.concat_tables([FINDING_SCHEMA.empty_table(), *tables]),
        keep=pa.Table.from_pylist(
            [
                {"record_id": record_id, "keep": False, "reason": reason}
                for record_id, (_, reason, _) in reasons.items()
            ],
            schema=KEEP_SCHEMA,
        ),
        overlaps={
            key: {
                source: Overlap(num_dirty_items=len(tasks), num_records=len(own))
                for source, (tasks, own) in sorted(by_source.items())
            }
            for key, by_source in overlaps.items()
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


def _item_records(
    scan: Scan,
    documents: Mapping[ItemKey, Sequence[FoundDocument]],
    records: Mapping[ItemKey, set[str]],
) -> tuple[ItemRecord, ...]:
    measured: dict[ItemKey, dict[str, bool]] = defaultdict(dict)
    for surface in scan.needles.surfaces:
        own = measured[surface.benchmark, surface.split, surface.task_id]
        own[surface.kind] = own.get(surface.kind, False) or surface.is_measured
    found = []
    for key, surfaces in measured.items():
        best = best_documents(documents.get(key, ()))
        kinds = tuple(kind for kind, is_measured in surfaces.items() if is_measured)
        status = ItemStatus.CLEAN
        if not set(kinds) - EVIDENCE_ONLY:
            status = ItemStatus.UNMEASURED
        if records.get(key):
            status = ItemStatus.DIRTY
        found.append(
            ItemRecord(
                benchmark=key[0],
                split=key[1],
                task_id=key[2],
                status=status,
                measured=kinds,
                max_score=best[0].score if best else None,
                num_records=len(records.get(key, ())),
                documents=best,
            )
        )
    return tuple(found)
