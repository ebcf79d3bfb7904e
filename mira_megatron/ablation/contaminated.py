"""How much of the benchmarks each arm was trained on: hits in records, joined with keep masks.

A record that has anything of an item has a score of at least MIN_SCORE (0.2) on one of its surfaces
(docs/contamination.md); over the threshold, 0.4, it is one that `mira decontaminate` would leave
out. Documents are counted once, however often they are seen. Sources without records (adopted
tokens) were not looked through: what an arm keeps of them is counted apart, and null.

Shape letters: D documents of one source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.eval.contamination.items import DEFAULT_THRESHOLD, EVIDENCE_ONLY
from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome
from mira_megatron.report.score_bins import is_candidate
from mira_megatron.shards import read_part
from mira_megatron.stage import Workspace

_COLUMNS = ["record_id", "benchmark", "surface", "score"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """Documents that have something of a benchmark; tokens are of these documents."""

    num_documents: int
    tokens: int
    num_over: int  # of them over the threshold
    tokens_over: int

    def __add__(self, other: Hits) -> Hits:
        return Hits(
            num_documents=self.num_documents + other.num_documents,
            tokens=self.tokens + other.tokens,
            num_over=self.num_over + other.num_over,
            tokens_over=self.tokens_over + other.tokens_over,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmHits:
    """What one arm chose from and keeps; null where no source has records."""

    arm: str
    candidates: Hits | None
    kept: Hits | None
    benchmarks: Mapping[str, Hits]  # of what is kept; a document may be in several
    tokens_scanned: int  # kept, of sources that were looked through
    tokens_not_scanned: int  # kept, of sources without records
    not_scanned: tuple[str, ...]  # those sources
    reason: str | None  # why there is nothing


def read_hits(workspace: Workspace, sources: Sequence[str]) -> dict[str, pa.Table]:
    """Returns by source what its records have: a row per record, benchmark and surface."""
    return {
        source: pa.concat_tables(
            [
                read_part(path, part.digest, _COLUMNS)
                for path, part in workspace.upstream_parts(layout.contamination(source), ".parquet")
            ]
        )
        for source in sources
    }


def arm_hits(arm: JudgedArm, hits: Mapping[str, pa.Table]) -> ArmHits:
    """Returns how much of the benchmarks an arm's documents have; `hits` by source scanned."""
    scanned = [each for each in arm.sources if each.source in hits]
    others = [each for each in arm.sources if each.source not in hits]
    told = {each.source: _reasons_alone(hits[each.source]) for each in scanned}
    names = sorted({name for table in told.values() for name in table["benchmark"].to_pylist()})
    kept_D = {each.source: each.outcomes_D == Outcome.KEPT for each in arm.sources}
    return ArmHits(
        arm=arm.arm,
        candidates=_sum([_hits(each, told[each.source], is_candidate(each)) for each in scanned]),
        kept=_sum([_hits(each, told[each.source], kept_D[each.source]) for each in scanned]),
        benchmarks={
            name: found
            for name in names
            if (
                found := _sum(
                    [
                        _hits(each, _of(told[each.source], name), kept_D[each.source])
                        for each in scanned
                    ]
                )
            )
        },
        tokens_scanned=sum(int(each.tokens_D[kept_D[each.source]].sum()) for each in scanned),
        tokens_not_scanned=sum(int(each.tokens_D[kept_D[each.source]].sum()) for each in others),
        not_scanned=tuple(each.source for each in others),
        reason=None if scanned else "no source has records: adopted tokens are not looked through",
    )


def _reasons_alone(hits: pa.Table) -> pa.Table:
    """Returns the rows without those that are told, but say nothing by themselves."""
    evidence = pa.array(sorted(EVIDENCE_ONLY), pa.string())
    return hits.filter(pc.invert(pc.is_in(hits["surface"], evidence)))


def _of(hits: pa.Table, benchmark: str) -> pa.Table:
    return hits.filter(pc.equal(hits["benchmark"], benchmark))


def _hits(judged: JudgedSource, hits: pa.Table, is_member_D: Flags) -> Hits:
    over = hits.filter(pc.greater_equal(hits["score"], DEFAULT_THRESHOLD))
    has_any_D = is_member_D & _is_in(judged, hits)
    is_over_D = is_member_D & _is_in(judged, over)
    return Hits(
        num_documents=int(has_any_D.sum()),
        tokens=int(judged.tokens_D[has_any_D].sum()),
        num_over=int(is_over_D.sum()),
        tokens_over=int(judged.tokens_D[is_over_D].sum()),
    )


def _is_in(judged: JudgedSource, hits: pa.Table) -> Flags:
    found: Flags = pc.is_in(judged.record_ids, hits["record_id"].combine_chunks()).to_numpy()
    return found


def _sum(found: Sequence[Hits]) -> Hits | None:
    nothing = Hits(num_documents=0, tokens=0, num_over=0, tokens_over=0)
    return sum(found, start=nothing) if found else None
