"""How many degraded copies each arm keeps, beside the real records of the same sources.

Copies are spoiled on purpose (corpus/degradation.py), so an arm that keeps them as often as real
records does not see them. The reverse proves little: these defects are easier than natural ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mira_megatron.corpus.degradation import WAYS
from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome
from mira_megatron.report.score_bins import is_candidate
from mira_megatron.stage import Workspace
from mira_megatron.tokenization.degraded_documents import read_copies


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradedRow:
    """What an arm did with the copies of one way, or with real records of the same sources.

    Documents and their tokens, each once, however often it is seen.
    """

    arm: str
    way: str | None  # one of degradation.WAYS; None: real records
    num_candidates: int  # what the arm chose from; held-out parents' copies are none
    tokens_candidates: int
    num_kept: int
    tokens_kept: int


def kept_degraded(workspace: Workspace, arms: Sequence[JudgedArm]) -> tuple[DegradedRow, ...]:
    """Returns per arm a row for real records and one per way; () where no source has copies.

    `arms` are those of `report.outcomes.read_arm`, sources without copies are left out. Ways of
    which there is no copy have no row. Needs `tokens/<source>/` upstream, and nothing else.
    """
    sources = dict.fromkeys(source.source for arm in arms for source in arm.sources)
    ways = {source: _ways(workspace, source) for source in sources}
    present = sorted({way for found in ways.values() if found for way in found}, key=WAYS.index)
    if not any(found is not None for found in ways.values()):
        return ()
    return tuple(_row(arm, way, ways) for arm in arms for way in (None, *present) if arm.sources)


def _ways(workspace: Workspace, source: str) -> dict[str, npt.NDArray[np.int64]] | None:
    """Returns the documents that are copies, by way; None for a source that has no copies."""
    copies = read_copies(workspace, source)
    if copies is None:
        return None
    degraded = np.array(copies["degraded"].to_pylist(), dtype=object)
    documents = copies["document"].to_numpy()
    return {way: documents[degraded == way] for way in WAYS if (degraded == way).any()}


def _row(
    arm: JudgedArm, way: str | None, ways: dict[str, dict[str, npt.NDArray[np.int64]] | None]
) -> DegradedRow:
    num_candidates = tokens_candidates = num_kept = tokens_kept = 0
    for judged in arm.sources:
        of_source = ways[judged.source]
        if of_source is None:
            continue
        is_counted_D = _is_of(way, of_source, judged)
        is_candidate_D = is_candidate(judged) & is_counted_D
        is_kept_D = (judged.outcomes_D == Outcome.KEPT) & is_counted_D
        num_candidates += int(is_candidate_D.sum())
        tokens_candidates += int(judged.tokens_D[is_candidate_D].sum())
        num_kept += int(is_kept_D.sum())
        tokens_kept += int(judged.tokens_D[is_kept_D].sum())
    return DegradedRow(
        arm=arm.arm,
        way=way,
        num_candidates=num_candidates,
        tokens_candidates=tokens_candidates,
        num_kept=num_kept,
        tokens_kept=tokens_kept,
    )


def _is_of(
    way: str | None, ways: dict[str, npt.NDArray[np.int64]], judged: JudgedSource
) -> npt.NDArray[np.bool_]:
    is_of_D = np.full(len(judged.tokens_D), way is None)
    if way is None:
        for documents in ways.values():
            is_of_D[documents] = False
    elif way in ways:
        is_of_D[ways[way]] = True
    return is_of_D
