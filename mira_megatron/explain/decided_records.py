"""What an arm decided about a record, and why.

Reads   keep/<arm>/selection.json, <prefix>.keep.npy, <prefix>.decisions.npy, tokens/<source>/,
        record_scores/<score of the certificate>/<source>/

How far the record is from the cut is ranking_places.py's to tell, which documents bar it as copies
same_texts.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.explain.located_records import LocatedRecord
from mira_megatron.explain.ranking_places import Distance, distance_from_cut, sources_of_scope
from mira_megatron.explain.rated_records import scored_record
from mira_megatron.explain.same_texts import Copy, copies_that_bar
from mira_megatron.manifest import read_manifest
from mira_megatron.retention.arms import NULLS_SHARE
from mira_megatron.retention.certificate import RANKED
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.documents import scope_name
from mira_megatron.retention.keep_masks import read_decisions, read_keep_mask

# What stands behind a decision, where the certificate's own name for it does not say all.
PINNED, TIE, BELOW_CUTOFF, RESERVED = "pinned", "tie", "below_cutoff", "reserved"
ABOVE_CUTOFF, NOTHING_FITS, BEHIND_FLOORS = "above_cutoff", "nothing_fits", "behind_floors"
DRAWN = "drawn"


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
    ranked_by: float | None  # its score, or the median that stands for it; None: not ranked
    cutoff: float | None  # of the scope: score of the last record kept by rank
    is_cutoff_of_floors: bool  # none is kept by rank: of the last one that a floor reserves
    score_minus_cutoff: float | None  # of what it is ranked by, or else of its score
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
    if scope is not None and code in (Decision.KEPT, Decision.NOT_SELECTED):
        distance = distance_from_cut(run_folder, certificate, scope, located)
    ranked_by = None if distance is None else distance.score
    compared = score if ranked_by is None else ranked_by
    is_cutoff_of_floors = scope is not None and _is_cutoff_of_floors(certificate, scope)
    return Decided(
        arm=arm,
        score_table=certificate["score"],
        is_kept=is_kept,
        times=times,
        decision=decision,
        why=reason
        if code == Decision.NO_SCORE
        else _why(code, of_source["how"], ranked_by, cutoff, is_cutoff_of_floors),
        scope=scope,
        how=of_source["how"],
        ranked_by=ranked_by,
        cutoff=cutoff,
        is_cutoff_of_floors=is_cutoff_of_floors,
        score_minus_cutoff=None if compared is None or cutoff is None else compared - cutoff,
        distance=distance,
        copies=copies_that_bar(run_folder, certificate, located, code),
    )


def _is_cutoff_of_floors(certificate: Mapping[str, Any], scope: str) -> bool:
    """Returns whether all that a scope keeps is reserved by floors, or drawn beside that."""
    sources = [certificate["sources"][name] for name in sources_of_scope(certificate, scope)]
    num_reserved: int = sum(of_source["num_reserved"] for of_source in sources)
    num_drawn: int = 0
    if certificate["nulls"] == NULLS_SHARE:
        num_drawn = sum(of_source["num_without_score_kept"] for of_source in sources)
    num_kept: int = certificate["scopes"][scope]["num_kept"]
    return num_reserved > 0 and num_kept == num_reserved + num_drawn


def _why(
    code: int, how: str, ranked_by: float | None, cutoff: float | None, is_cutoff_of_floors: bool
) -> str | None:
    """Returns what stands behind a decision, of a record that has a score or needs none."""
    is_kept = code == Decision.KEPT
    if code == Decision.SOURCE_NOT_TRAINED_ON:
        return how
    if not is_kept and code != Decision.NOT_SELECTED:
        return None
    if how != RANKED:
        return PINNED
    if ranked_by is None:
        return DRAWN
    if is_cutoff_of_floors:
        return RESERVED if is_kept else BEHIND_FLOORS
    if cutoff is None:
        return NOTHING_FITS
    if is_kept:
        return RESERVED if ranked_by < cutoff else ABOVE_CUTOFF
    return TIE if ranked_by == cutoff else BELOW_CUTOFF
