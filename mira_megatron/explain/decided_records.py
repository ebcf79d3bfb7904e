"""What an arm decided about a record, and why.

Reads   keep/<arm>/selection.json, <prefix>.keep.npy, <prefix>.decisions.npy, tokens/<source>/,
        record_scores/<score of the certificate>/<source>/

How far the record is from the cut is ranking_places.py's to tell, which documents bar it as copies
same_texts.py's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.explain.located_records import LocatedRecord
from mira_megatron.explain.ranking_places import Distance, distance_from_cut
from mira_megatron.explain.rated_records import scored_record
from mira_megatron.explain.same_texts import Copy, copies_that_bar
from mira_megatron.manifest import read_manifest
from mira_megatron.retention.certificate import RANKED
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.documents import scope_name
from mira_megatron.retention.keep_masks import read_decisions, read_keep_mask

# What stands behind a decision, where the certificate's own name for it does not say all.
PINNED, TIE, BELOW_CUTOFF, RESERVED = "pinned", "tie", "below_cutoff", "reserved"
ABOVE_CUTOFF, NOTHING_FITS = "above_cutoff", "nothing_fits"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """An arm's decision about one record."""

    arm: str
    score_table: str
    is_kept: bool
    times: int  # that it is seen in one pass; 0 where it is dropped
    decision: str  # as the certificate names it: kept, held_out, not_selected, …
    why: str | None  # more closely: one of the names above, or the reason for a missing score
    scope: str | None  # None where its source is not ranked
    how: str  # its source is ranked, pinned, excluded or left_out
    cutoff: float | None  # of the scope: score of the last record kept by rank
    score_minus_cutoff: float | None
    distance: Distance | None  # None where it is not ranked
    copies: tuple[Copy, ...]  # the documents that keep it out, by holding the same text


def decided(run_folder: Path, arm: str, located: LocatedRecord) -> Decided | None:
    """Returns an arm's decision about a record, None where the arm is not selected yet.

    Raises ValueError where masks, decisions and token datasets do not belong together.
    """
    folder = run_folder / layout.keep(arm)
    if read_manifest(folder) is None or located.prefix is None or located.document is None:
        return None
    certificate: dict[str, Any] = json.loads((folder / layout.CERTIFICATE).read_bytes())
    of_source = certificate["sources"].get(located.source)
    if of_source is None:
        return None
    mask = read_keep_mask(folder / f"{located.prefix.name}.keep.npy")
    is_kept = bool(mask.is_kept[located.document])
    path = folder / layout.decisions(located.prefix.name)
    # The table that was ranked by, whatever the recipe of today names.
    scored = scored_record(run_folder, certificate["score"], located)
    score = None if scored is None else scored.score
    reason = None if scored is None else scored.reason
    code = int(read_decisions(path, located.prefix.num_documents)[located.document])
    decision = certificate["decisions"][code]
    scope, cutoff = None, None
    if of_source["how"] == RANKED:
        scope = scope_name(
            certificate["scope"], source=located.source, source_group=of_source["source_group"]
        )
        cutoff = certificate["scopes"][scope]["cutoff"]
    times = int(is_kept if mask.repeats_D is None else mask.repeats_D[located.document])
    distance = None
    if scope is not None and score is not None and code in (Decision.KEPT, Decision.NOT_SELECTED):
        distance = distance_from_cut(run_folder, certificate, scope, located, score)
    return Decided(
        arm=arm,
        score_table=certificate["score"],
        is_kept=is_kept,
        times=times,
        decision=decision,
        why=_why(code, of_source["how"], score, reason, cutoff),
        scope=scope,
        how=of_source["how"],
        cutoff=cutoff,
        score_minus_cutoff=None if score is None or cutoff is None else score - cutoff,
        distance=distance,
        copies=copies_that_bar(run_folder, certificate, located, code),
    )


def _why(
    code: int, how: str, score: float | None, reason: str | None, cutoff: float | None
) -> str | None:
    is_kept = code == Decision.KEPT
    if is_kept and how != RANKED:
        return PINNED
    if code == Decision.SOURCE_NOT_TRAINED_ON:
        return how
    if code == Decision.NO_SCORE:
        return reason
    if not is_kept and code != Decision.NOT_SELECTED:
        return None
    if score is None:
        return reason  # in the ranking, or kept, all the same: the arm's `nulls` say how
    if cutoff is None:
        return None if is_kept else NOTHING_FITS
    if is_kept:
        return RESERVED if score < cutoff else ABOVE_CUTOFF
    # Above a cutoff nothing is left out, unless it is that of what floors reserve.
    return NOTHING_FITS if score > cutoff else TIE if score == cutoff else BELOW_CUTOFF
