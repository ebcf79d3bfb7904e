"""A record's place in the ranking of its scope, and how far that is from the cut.

Reads   keep/<arm>/ of the sources in the scope, their ids, scores and token counts

Ranked are the documents that the cut chose among: those kept and those it left out. Reserved ones
(floors) are among them, what lies beyond a cap is not.

Shape letters: D documents of one source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.explain.located_records import LocatedRecord
from mira_megatron.retention.arms import NULLS_MEDIAN
from mira_megatron.retention.certificate import RANKED
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.documents import scope_name
from mira_megatron.retention.keep_masks import read_decisions
from mira_megatron.retention.offers import lower_median
from mira_megatron.retention.ties import tie_values
from mira_megatron.tokenization.token_dataset import read_token_dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """How far a ranked record stands from the cut of its scope."""

    score: float  # that it is ranked by: its own, or else the lower median of its source
    rank: int  # of its scope, 1 is best; equal scores in the order of the tie rule
    num_ranked: int
    num_equal: int  # ranked records with the very same score, itself included
    # Kept: the kept ones ranked behind it. Dropped: the dropped ones ranked ahead of it.
    num_between: int
    tokens_between: int  # of these, and its own: what the budget would have to lose or gain


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ranked:
    """The documents of one source as its scope ranks them."""

    record_ids: pa.ChunkedArray
    scores_D: npt.NDArray[np.float32]
    tokens_D: npt.NDArray[np.int64]
    is_ranked_D: npt.NDArray[np.bool_]
    is_kept_D: npt.NDArray[np.bool_]


def distance_from_cut(
    run_folder: Path,
    certificate: Mapping[str, Any],
    scope: str,
    located: LocatedRecord,
) -> Distance | None:
    """Returns how far a record stands from the cut of its scope, None where it is not ranked.

    One source of the scope is in memory at a time.
    """
    others = [name for name in sources_of_scope(certificate, scope) if name != located.source]
    seed = int(certificate["seed"])
    own_tie = tie_values(pa.chunked_array([[located.record_id]]), seed)[0]
    own_score, is_kept, own_tokens = np.float32(0), False, 0
    counts = {"ahead": 0, "ranked": 0, "equal": 0}
    dropped_ahead, kept_behind = [0, 0], [0, 0]  # records, tokens
    for source in (located.source, *others):  # its own first: that says what it is ranked by
        ranked = _ranked(run_folder, certificate, source)
        if source == located.source:
            if not ranked.is_ranked_D[located.row]:
                return None
            own_score = ranked.scores_D[located.row]
            is_kept = bool(ranked.is_kept_D[located.row])
            own_tokens = int(ranked.tokens_D[located.row])
        equal = np.flatnonzero(ranked.is_ranked_D & (ranked.scores_D == own_score))
        ties = tie_values(ranked.record_ids, seed, equal)
        is_ahead_D = ranked.is_ranked_D & (ranked.scores_D > own_score)
        is_ahead_D[equal[ties < own_tie]] = True
        is_behind_D = ranked.is_ranked_D & (ranked.scores_D < own_score)
        is_behind_D[equal[ties > own_tie]] = True
        counts["ahead"] += int(np.count_nonzero(is_ahead_D))
        counts["ranked"] += int(np.count_nonzero(ranked.is_ranked_D))
        counts["equal"] += len(equal)
        for sums, is_between_D in (
            (dropped_ahead, is_ahead_D & ~ranked.is_kept_D),
            (kept_behind, is_behind_D & ranked.is_kept_D),
        ):
            sums[0] += int(np.count_nonzero(is_between_D))
            sums[1] += int(np.dot(ranked.tokens_D, is_between_D))
    num_between, tokens_between = kept_behind if is_kept else dropped_ahead
    return Distance(
        score=float(own_score),
        rank=counts["ahead"] + 1,
        num_ranked=counts["ranked"],
        num_equal=counts["equal"],
        num_between=num_between,
        tokens_between=tokens_between + own_tokens,
    )


def sources_of_scope(certificate: Mapping[str, Any], scope: str) -> list[str]:
    """Returns the sources that are ranked together in a scope."""
    return [
        source
        for source, of_source in certificate["sources"].items()
        if of_source["how"] == RANKED
        and scope_name(certificate["scope"], source=source, source_group=of_source["source_group"])
        == scope
    ]


def _ranked(run_folder: Path, certificate: Mapping[str, Any], source: str) -> _Ranked:
    folder = run_folder / layout.keep(certificate["arm"])
    prefixes = read_token_dataset(run_folder / layout.tokens(source)).prefixes
    decisions_D = np.concatenate(
        [
            read_decisions(folder / layout.decisions(prefix.name), prefix.num_documents)
            for prefix in prefixes
        ]
    )
    documents = [prefix.documents for prefix in prefixes]
    record_ids = _column(documents, "record_id")
    scores = _scores(run_folder, certificate["score"], source, record_ids)
    is_scored_D = pc.is_valid(scores).to_numpy()
    scores_D = pc.fill_null(scores, 0.0).to_numpy()
    is_offered_D = np.isin(decisions_D, (Decision.KEPT, Decision.NOT_SELECTED))
    is_ranked_D = is_offered_D & is_scored_D
    is_candidate_D = is_ranked_D | (is_scored_D & (decisions_D == Decision.BEYOND_CAP))
    if certificate["nulls"] == NULLS_MEDIAN and is_candidate_D.any():
        scores_D = np.where(is_scored_D, scores_D, lower_median(scores_D[is_candidate_D]))
        is_ranked_D = is_offered_D
    return _Ranked(
        record_ids=record_ids,
        scores_D=scores_D,
        tokens_D=_column(documents, "num_tokens").to_numpy(),
        is_ranked_D=is_ranked_D,
        is_kept_D=decisions_D == Decision.KEPT,
    )


def _scores(
    run_folder: Path, table: str, source: str, record_ids: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Returns a source's scores in the order of its documents, whose ids these are."""
    paths = sorted((run_folder / layout.record_scores(table, source)).glob("part-*.parquet"))
    ids, scores = _column(paths, "record_id"), _column(paths, "score")
    return scores if ids.equals(record_ids) else scores.take(pc.index_in(record_ids, ids))


def _column(paths: Sequence[Path], name: str) -> pa.ChunkedArray:
    tables = [pq.read_table(path, columns=[name]) for path in paths]
    return pa.concat_tables(tables)[name]
