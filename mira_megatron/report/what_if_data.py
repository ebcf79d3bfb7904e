"""What the what-if control is given: every arm's own numbers, its score bins, a sample of ratings.

All of it is plain values, ready for JSON. The control's arithmetic is in what_if.js.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from mira_megatron import layout
from mira_megatron.report.agreement import SourceAgreement
from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome
from mira_megatron.report.rating_sample import read_rating_samples
from mira_megatron.report.score_bins import bin_width, is_candidate, source_bins
from mira_megatron.stage import Workspace

# Whoever is one of these is in no arm of the run: the sample leaves them out, too.
_NEVER_TRAINED_ON = (Outcome.HELD_OUT, Outcome.REPEATS_HELD_OUT)


def what_if_data(
    workspace: Workspace,
    *,
    rubric: str,
    seed: int,
    sources: Sequence[str],  # with ratings
    documents: Mapping[str, pa.Table],
    arms: Sequence[JudgedArm],
    agreements: Sequence[SourceAgreement],
    min_rho: float,
) -> dict[str, Any]:
    """Returns the data block of the control; its lists of arms may be empty."""
    rules = {arm.score_table: _rule(workspace, arm.score_table, sources) for arm in arms}
    has_sample = any(_is_sampled(arm, sources, rules[arm.score_table]) for arm in arms)
    samples = read_rating_samples(workspace, rubric, sources, documents, seed) if has_sample else {}
    by_source = {agreement.source: agreement for agreement in agreements}
    return {
        "minRho": min_rho,
        "arms": [_arm(arm, rules[arm.score_table], sources) for arm in arms],
        "samples": {
            source: {
                "numDocuments": sample.num_documents,
                "tokens": sample.tokens,
                "ratings": sample.ratings,
                "cells": _cells(by_source.get(source)),
            }
            for source, sample in samples.items()
        },
    }


def _rule(workspace: Workspace, table: str, sources: Sequence[str]) -> dict[str, int] | None:
    """Returns how a table was aggregated from ratings; None where it was not, or not alike."""
    found = []
    for source in sources:
        folder = layout.record_scores(table, source)
        if folder not in workspace.unit.upstream:
            return None
        config = workspace.upstream_manifest(folder).config
        if not {"trim_fraction", "min_slots"} <= config.keys():
            return None
        # The control counts in thousandths; a finer fraction can be looked at, not reproduced.
        permille = Fraction(str(config["trim_fraction"])) * 1000
        found.append({"trimPermille": round(permille), "minSlots": int(config["min_slots"])})
    return found[0] if found and all(rule == found[0] for rule in found) else None


def _is_sampled(arm: JudgedArm, sources: Sequence[str], rule: Mapping[str, int] | None) -> bool:
    """Whether the sample of ratings stands for what this arm chose from."""
    return rule is not None and all(
        judged.source in sources
        and bool((is_candidate(judged) | np.isin(judged.outcomes_D, _NEVER_TRAINED_ON)).all())
        for judged in arm.sources
        if judged.source_group is not None
    )


def _arm(arm: JudgedArm, rule: Mapping[str, int] | None, sources: Sequence[str]) -> dict[str, Any]:
    width = bin_width(arm)
    return {
        "arm": arm.arm,
        "scope": arm.scope_kind,
        "shares": arm.shares,
        "budgetTokens": arm.budget_tokens,
        "binWidth": width,
        "besideRanking": list(arm.beside_ranking),
        "rule": dict(rule) if rule is not None and _is_sampled(arm, sources, rule) else None,
        "sources": [_source(judged, width) for judged in arm.sources],
    }


def _source(judged: JudgedSource, width: float) -> dict[str, Any]:
    is_offered_D = is_candidate(judged)
    is_ranked = judged.source_group is not None
    return {
        "name": judged.source,
        "group": judged.source_group,  # null where it is not ranked
        "candidateTokens": int(judged.tokens_D[is_offered_D].sum()),
        "candidateDocuments": int(is_offered_D.sum()),
        "tokensKept": judged.tokens_seen,
        "documentsKept": int((judged.outcomes_D == Outcome.KEPT).sum()),
        "bins": asdict(source_bins(judged, width)) if is_ranked else None,
    }


def _cells(agreement: SourceAgreement | None) -> dict[str, list[float | bool | None]] | None:
    if agreement is None:
        return None
    return {
        "mae": [cell.mae for cell in agreement.cells],
        "rho": [cell.rho for cell in agreement.cells],
        "isMasked": [bounds.decision == "masked" for bounds in agreement.bounds],
    }
