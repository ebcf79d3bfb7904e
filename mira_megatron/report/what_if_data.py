"""What the what-if control is given: every arm's own numbers, its score bins, a sample of ratings.

All of it is plain values, ready for JSON. The control's arithmetic is in what_if.js.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mira_megatron import layout
from mira_megatron.report.agreement import SourceAgreement, read_masked_slots
from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome
from mira_megatron.report.rating_sample import RatingSample, read_rating_samples
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
    rules = {arm.arm: _rule(workspace, arm, sources) for arm in arms}
    samples = (
        read_rating_samples(workspace, rubric, sources, documents, seed)
        if any(rules.values())
        else {}
    )
    by_source = {agreement.source: agreement for agreement in agreements}
    return {
        "minRho": min_rho,
        "arms": [
            {**_arm(arm), "rule": _explained(workspace, arm, rules[arm.arm], samples)}
            for arm in arms
        ],
        "samples": {
            source: {**sample.encoded(), "cells": _cells(by_source.get(source))}
            for source, sample in samples.items()
        },
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """How a score table was made from ratings."""

    trim_fraction: float
    min_slots: int


def _rule(workspace: Workspace, arm: JudgedArm, sources: Sequence[str]) -> _Rule | None:
    """Returns how an arm's scores were made; None where the sample cannot stand for them.

    That is where they are no aggregated ratings, or not alike in all sources, or where the arm
    chose from other documents than the sample is drawn from.
    """
    rules = set()
    for judged in arm.sources:
        if judged.source_group is None:
            continue
        folder = layout.record_scores(arm.score_table, judged.source)
        is_offered_D = is_candidate(judged) | np.isin(judged.outcomes_D, _NEVER_TRAINED_ON)
        if judged.source not in sources or not is_offered_D.all():
            return None
        config = workspace.upstream_manifest(folder).config
        if not {"trim_fraction", "min_slots"} <= config.keys():
            return None
        rules.add(
            _Rule(trim_fraction=float(config["trim_fraction"]), min_slots=int(config["min_slots"]))
        )
    return rules.pop() if len(rules) == 1 else None


def _explained(
    workspace: Workspace,
    arm: JudgedArm,
    rule: _Rule | None,
    samples: Mapping[str, RatingSample],
) -> dict[str, Any] | None:
    """Returns the rule with the slots that the arm's score table masks.

    None where rule and masks do not give exactly the table's scores of the sample.
    """
    if rule is None:
        return None
    masked = {}
    for judged in arm.sources:
        if judged.source_group is None:
            continue
        own = read_masked_slots(workspace.run.folder, arm.score_table, judged.source)
        if not _gives(samples[judged.source], own, rule, judged):
            return None
        masked[judged.source] = own
    # As written, for the control to count exactly with.
    return {"trim": str(rule.trim_fraction), "minSlots": rule.min_slots, "masked": masked}


def _gives(
    sample: RatingSample, is_masked_A: Sequence[bool], rule: _Rule, judged: JudgedSource
) -> bool:
    """Whether a rule and masks give the scores that the run's table has of the sample."""
    scores_R, is_scored_R = sample.scores(
        is_masked_A, trim_fraction=rule.trim_fraction, min_slots=rule.min_slots
    )
    rows = sample.rows_R
    return np.array_equal(is_scored_R, judged.is_scored_D[rows]) and np.array_equal(
        scores_R, judged.scores_D[rows]
    )


def _arm(arm: JudgedArm) -> dict[str, Any]:
    width = bin_width(arm)
    return {
        "arm": arm.arm,
        "scope": arm.scope_kind,
        "shares": arm.shares,
        "budgetTokens": arm.budget_tokens,
        "binWidth": width,
        "besideRanking": list(arm.beside_ranking),
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


def _cells(agreement: SourceAgreement | None) -> dict[str, list[float | None]] | None:
    if agreement is None:
        return None
    return {
        "mae": [cell.mae for cell in agreement.cells],
        "rho": [cell.rho for cell in agreement.cells],
    }
