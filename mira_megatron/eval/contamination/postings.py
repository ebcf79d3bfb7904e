"""Which surfaces a key (an n-gram, a phrase) belongs to, and how much of each a document has.

The score of a surface in a document is the weight of its keys found there over the weight of all
its keys: a coverage of the benchmark's text, whatever the length of the document. One key that
happens to match is a small part of it; a copy is 1.

Legend: K keys, E pairs of key and surface, S surfaces, M matches, D documents of a batch, U
distinct pairs of document and key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mira_megatron.eval.contamination.arrays import F64, I64

_MAX_GAP_BYTES = 200  # matches farther apart are of two spans
_DIGITS = 6  # of a score


@dataclass(frozen=True, slots=True)
class Matches:
    """Where keys were found: sorted by place, each with the bytes of the batch that it covers."""

    key_M: I64
    start_M: I64
    end_M: I64


@dataclass(frozen=True, slots=True)
class Postings:
    """The surfaces of every key."""

    entry_start_K1: I64
    surface_E: I64
    weight_E: F64
    total_S: F64  # 0: nothing of this surface is looked for here


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceHit:
    """How much of a surface one document has."""

    document: int  # in the batch
    surface: int
    score: float  # in (0, 1]
    start: int  # bytes of the batch: where most of it lies close together
    end: int


def gathered(parts: Sequence[Matches]) -> Matches:
    """Returns matches of several windows as one, sorted by place, each once."""
    nothing = np.zeros(0, dtype=np.int64)
    key_M = np.concatenate([nothing, *(part.key_M for part in parts)])
    start_M = np.concatenate([nothing, *(part.start_M for part in parts)])
    end_M = np.concatenate([nothing, *(part.end_M for part in parts)])
    order = np.lexsort((key_M, start_M))
    key_M, start_M, end_M = key_M[order], start_M[order], end_M[order]
    is_other = np.ones(len(order), dtype=np.bool_)
    is_other[1:] = (key_M[1:] != key_M[:-1]) | (start_M[1:] != start_M[:-1])
    return Matches(key_M[is_other], start_M[is_other], end_M[is_other])


def hits_of(
    matches: Matches, postings: Postings, offset_D1: I64, min_score: float
) -> list[SurfaceHit]:
    """Returns the surfaces that documents have at least `min_score` of, by document and surface.

    `offset_D1` says where each document of the batch begins; a match that reaches over the end of
    its document is none.
    """
    document_M = np.searchsorted(offset_D1, matches.start_M, side="right") - 1
    is_within = matches.end_M <= offset_D1[document_M + 1]
    document_M, key_M = document_M[is_within], matches.key_M[is_within]
    start_M, end_M = matches.start_M[is_within], matches.end_M[is_within]
    num_keys, num_surfaces = len(postings.entry_start_K1) - 1, len(postings.total_S)
    pair_U = np.unique(document_M * num_keys + key_M)
    document_U, key_U = np.divmod(pair_U, max(1, num_keys))
    entry_E, row_E = _entries(postings.entry_start_K1, key_U)
    group_E = document_U[row_E] * num_surfaces + postings.surface_E[entry_E]
    groups, group_of_E = np.unique(group_E, return_inverse=True)
    sums = np.bincount(group_of_E, weights=postings.weight_E[entry_E], minlength=len(groups))
    scores = np.minimum(1.0, sums / postings.total_S[groups % num_surfaces]).round(_DIGITS)
    hits = []
    order = np.argsort(group_of_E, kind="stable")
    bounds = np.searchsorted(group_of_E[order], np.arange(len(groups) + 1))
    for group in np.flatnonzero(scores >= min_score):
        document, surface = divmod(int(groups[group]), num_surfaces)
        entries = order[bounds[group] : bounds[group + 1]]
        keys, weights = key_U[row_E[entries]], postings.weight_E[entry_E[entries]]
        rows = slice(*np.searchsorted(document_M, [document, document + 1]))
        place_M = np.minimum(np.searchsorted(keys, key_M[rows]), len(keys) - 1)
        is_of_surface = keys[place_M] == key_M[rows]
        start, end = _best_span(
            start_M[rows][is_of_surface],
            end_M[rows][is_of_surface],
            weights[place_M[is_of_surface]],
        )
        hits.append(
            SurfaceHit(
                document=document,
                surface=surface,
                score=float(scores[group]),
                start=start,
                end=end,
            )
        )
    return hits


def _entries(entry_start_K1: I64, key_U: I64) -> tuple[I64, I64]:
    """Returns the entries of all keys, one behind the other, and the row of key_U of each."""
    first_U = entry_start_K1[key_U]
    count_U = entry_start_K1[key_U + 1] - first_U
    row_E = np.repeat(np.arange(len(key_U)), count_U)
    behind_U = np.cumsum(count_U) - count_U
    return first_U[row_E] + np.arange(len(row_E)) - behind_U[row_E], row_E


def _best_span(start_M: I64, end_M: I64, weight_M: F64) -> tuple[int, int]:
    """Returns the bytes of the run of close matches that weighs most, the first of equal ones."""
    reach_M = np.maximum.accumulate(end_M)
    is_first = np.ones(len(start_M), dtype=np.bool_)
    is_first[1:] = start_M[1:] - reach_M[:-1] > _MAX_GAP_BYTES
    run_M = np.cumsum(is_first) - 1
    best = int(np.argmax(np.bincount(run_M, weights=weight_M).round(_DIGITS)))
    of_best = np.flatnonzero(run_M == best)
    return int(start_M[of_best[0]]), int(reach_M[of_best[-1]])
