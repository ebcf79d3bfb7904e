"""The work behind `mira contamination`: one source's records looked through."""

from __future__ import annotations

from mira_megatron import layout
from mira_megatron.eval.contamination.corpus import CorpusPart, scan_corpus
from mira_megatron.eval.contamination.items import DEFAULT_THRESHOLD, EVIDENCE_ONLY
from mira_megatron.eval.contamination.source_hits import MAX_ITEMS, SourceHitsSettings
from mira_megatron.manifest import Counts
from mira_megatron.stage import WorkResult, Workspace


def scan_source(workspace: Workspace, settings: SourceHitsSettings) -> WorkResult:
    """Writes the hits of every part; those of a killed run are kept."""
    parts = [
        CorpusPart(
            source=settings.source,
            group="",  # of no use here
            path=path,
            digest=part.digest,
            num_records=part.num_rows or 0,
        )
        for path, part in workspace.upstream_parts(layout.records(settings.source), ".parquet")
    ]
    items = settings.items()
    scan = scan_corpus(
        parts,
        items,
        workspace.folder,
        max_items=MAX_ITEMS,
        workers=workspace.resources.workers,
    )
    found = [row for hits in scan.hits for row in hits.to_pylist()]
    told = [row for row in found if row["surface"] not in EVIDENCE_ONLY]
    over = {row["record_id"] for row in told if row["score"] >= DEFAULT_THRESHOLD}
    return WorkResult(
        counts=Counts(
            num_in=sum(part.num_records for part in parts),
            num_out=len({row["record_id"] for row in told}),
            totals={"items": len(items), "records over the threshold": len(over)},
        ),
        rows={
            f"parts/{part.source}/{part.path.name}": hits.num_rows
            for part, hits in zip(parts, scan.hits, strict=True)
        },
    )
