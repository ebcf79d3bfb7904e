"""A record's place in the ranking of its scope, and how far that is from the cut.

Reads   keep/<arm>/ of the sources in the scope, their scores and token counts; ids only of records
        with the very same score, whose order the tie rule decides

Ranked are the documents that the cut chose among: those kept and those it left out. Reserved ones
(floors) are among them, what lies beyond a cap is not.

Shape letters: D documents of one source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.explain.located_records import LocatedRecord, over_row_groups
from mira_megatron.retention.arms import NULLS_MEDIAN
from mira_megatron.retention.certificate import RANKED
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.documents import scope_name
from mira_megatron.retention.keep_masks import read_decisions
from mira_megatron.retention.offers import lower_median
from mira_megatron.retention.ties import tie_values
from mira_megatron.tokenization.token_dataset import TokenPrefix, read_token_dataset

_RANKED_DECISIONS = (Decision.KEPT, Decision.NOT_SELECTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """How far a ranked record stands from the cut of its scope."""

    rank: int  # of its scope, 1 is best; equal scores in the order of the tie rule
    num_ranked: int
    num_equal: int  # ranked records with the very same score, itself included
    # Kept: the kept ones ranked behind it. Dropped: the dropped ones ranked ahead of it.
    num_between: int
    tokens_between: int  # of these, and its own: what the budget would have to lose or gain


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ranked:
    """The documents of one source as its scope ranks them."""

    source: str
    prefixes: tuple[TokenPrefix, ...]
    scores_D: npt.NDArray[np.float32]
    tokens_D: npt.NDArray[np.int64]
    is_ranked_D: npt.NDArray[np.bool_]
    is_kept_D: npt.NDArray[np.bool_]


def distance_from_cut(
    run_folder: Path,
    certificate: Mapping[str, Any],
    scope: str,
    located: LocatedRecord,
    score: float,
) -> Distance:
    """Returns how far a record that its scope ranks stands from the cut."""
    of_scope = [
        _ranked(run_folder, certificate, source)
        for source, of_source in certificate["sources"].items()
        if of_source["how"] == RANKED
        and scope_name(certificate["scope"], source=source, source_group=of_source["source_group"])
        == scope
    ]
    own_score, seed = np.float32(score), int(certificate["seed"])
    equal = [np.flatnonzero(each.is_ranked_D & (each.scores_D == own_score)) for each in of_scope]
    num_equal = sum(map(len, equal))
    own_tie = tie_values(pa.chunked_array([[located.record_id]]), seed)[0]
    is_kept, num_ahead, num_between, tokens_between = False, 0, 0, 0
    for each in of_scope:
        if each.source == located.source:
            is_kept = bool(each.is_kept_D[located.row])
            tokens_between += int(each.tokens_D[located.row])
    for each, documents in zip(of_scope, equal, strict=True):
        is_ahead_D = each.is_ranked_D & (each.scores_D > own_score)
        is_behind_D = each.is_ranked_D & (each.scores_D < own_score)
        if num_equal > 1:
            ties = _ties(each.prefixes, documents, seed)
            is_ahead_D[documents[ties < own_tie]] = True
            is_behind_D[documents[ties > own_tie]] = True
        is_between_D = is_behind_D & each.is_kept_D if is_kept else is_ahead_D & ~each.is_kept_D
        num_ahead += int(np.count_nonzero(is_ahead_D))
        num_between += int(np.count_nonzero(is_between_D))
        tokens_between += int(np.dot(each.tokens_D, is_between_D))
    return Distance(
        rank=num_ahead + 1,
        num_ranked=sum(int(np.count_nonzero(each.is_ranked_D)) for each in of_scope),
        num_equal=num_equal,
        num_between=num_between,
        tokens_between=tokens_between,
    )


def _ranked(run_folder: Path, certificate: Mapping[str, Any], source: str) -> _Ranked:
    folder = run_folder / layout.keep(certificate["arm"])
    prefixes = read_token_dataset(run_folder / layout.tokens(source)).prefixes
    decisions_D = np.concatenate(
        [
            read_decisions(folder / layout.decisions(prefix.name), prefix.num_documents)
            for prefix in prefixes
        ]
    )
    folder = run_folder / layout.record_scores(certificate["score"], source)
    paths = sorted(folder.glob("part-*.parquet"))
    scores = _column(paths, "score")
    # Ids take many times as long to read as scores. In nearly every table they are in order, which
    # shows; where floors, caps or missing scores decided as well, they are compared all the same.
    if not _explain_decisions(scores, decisions_D):
        scores = _joined_by_id(paths, prefixes, scores)
    is_scored_D = pc.is_valid(scores).to_numpy(zero_copy_only=False)
    scores_D = pc.fill_null(scores, 0.0).to_numpy()
    is_offered_D = np.isin(decisions_D, _RANKED_DECISIONS)
    is_ranked_D = is_offered_D & is_scored_D
    if certificate["nulls"] == NULLS_MEDIAN and is_ranked_D.any():
        is_candidate_D = is_ranked_D | (is_scored_D & (decisions_D == Decision.BEYOND_CAP))
        scores_D = np.where(is_scored_D, scores_D, lower_median(scores_D[is_candidate_D]))
        is_ranked_D = is_offered_D
    return _Ranked(
        source=source,
        prefixes=prefixes,
        scores_D=scores_D,
        tokens_D=_column([prefix.documents for prefix in prefixes], "num_tokens").to_numpy(),
        is_ranked_D=is_ranked_D,
        is_kept_D=decisions_D == Decision.KEPT,
    )


def _explain_decisions(scores: pa.ChunkedArray, decisions_D: npt.NDArray[np.uint8]) -> bool:
    """Returns whether scores in this order could have led to these decisions by rank alone."""
    if len(scores) != len(decisions_D):
        return False
    is_null_D = pc.is_null(scores).to_numpy()
    if (is_null_D & np.isin(decisions_D, _RANKED_DECISIONS)).any():
        return False
    scores_D = pc.fill_null(scores, 0.0).to_numpy()
    worst_kept = scores_D[decisions_D == Decision.KEPT].min(initial=np.inf)
    best_dropped = scores_D[decisions_D == Decision.NOT_SELECTED].max(initial=-np.inf)
    has_score = ~is_null_D[decisions_D == Decision.NO_SCORE]
    return bool(worst_kept >= best_dropped) and not has_score.any()


def _joined_by_id(
    paths: Sequence[Path], prefixes: Sequence[TokenPrefix], scores: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Returns a source's scores in the order of its documents."""
    ids, ids_of_documents = (
        _column(of, "record_id") for of in (paths, [prefix.documents for prefix in prefixes])
    )
    return scores.take(pc.index_in(ids_of_documents, ids))


def _column(paths: Sequence[Path], name: str) -> pa.ChunkedArray:
    tables = [pq.read_table(path, columns=[name]) for path in paths]
    return pa.concat_tables(tables)[name]


def _ties(
    prefixes: Sequence[TokenPrefix], documents: npt.NDArray[np.intp], seed: int
) -> npt.NDArray[np.uint64]:
    """Returns the tie values of documents of a source, whose numbers rise."""
    starts = np.cumsum([0, *(prefix.num_documents for prefix in prefixes)])
    wanted = [
        documents[(documents >= start) & (documents < end)] - start
        for start, end in pairwise(starts)
    ]

    def look(number: int, first: int, rows: pa.Table) -> npt.NDArray[np.uint64]:
        low, high = np.searchsorted(wanted[number], [first, first + rows.num_rows])
        return tie_values(rows["record_id"], seed, wanted[number][low:high] - first)

    paths = [prefix.documents for prefix in prefixes]
    found = list(over_row_groups(paths, ["record_id"], look, rows=wanted))
    return np.concatenate(found) if found else np.empty(0, np.uint64)
