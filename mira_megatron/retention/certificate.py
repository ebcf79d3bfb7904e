"""`selection.json`: what was decided, under which rule, and up to where."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mira_megatron.retention.arms import ArmConfig
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.choosing import Choice
from mira_megatron.retention.decisions import FIRST_DENIED, Decision
from mira_megatron.retention.keep_masks import KeepMaskInfo
from mira_megatron.retention.scopes import Chosen, Cut
from mira_megatron.retention.ties import TIE_RULE
from mira_megatron.retention.unlike_masks import Unlike, in_words
from mira_megatron.shards import json_digest

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 3
RANKED, PINNED, EXCLUDED, LEFT_OUT = "ranked", "pinned", "excluded", "left_out"


def certificate(
    arm: str,
    config: ArmConfig,
    *,
    seed: int,
    budget_tokens: int,
    names: Sequence[str],
    groups: Mapping[str, str],
    pinned: Sequence[str],
    documents: Sequence[SourceDocuments],
    choice: Choice,
    infos: Mapping[str, Mapping[str, KeepMaskInfo]],
    unlike: Unlike | None = None,
) -> dict[str, Any]:
    """Returns the certificate of an arm.

    `names` are those of the decisions, `infos` what was written for each prefix of each source,
    `unlike` the groups with unlike reliability masks, None where no mask decided of the scores.
    """
    sources = {
        entry.source: {
            "how": _how(entry.source, config, groups, pinned),
            "source_group": groups.get(entry.source),
            "floor_tokens": config.floor_tokens.get(entry.source),
            "cap_tokens": config.cap_tokens.get(entry.source),
            **_counts(entry, choice.sources[entry.source], names),
            **_sums(infos[entry.source]),
            "scores_fingerprint": entry.scores_fingerprint,
            "prefixes": {name: asdict(info) for name, info in infos[entry.source].items()},
        }
        for entry in documents
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "arm": arm,
        "score": config.score,
        "scope": config.scope,
        "shares": config.shares,
        "unspent": config.unspent,
        "nulls": config.nulls,
        "repeat_fraction": config.repeat_fraction,
        "repeat_times": config.repeat_times,
        "without": config.without,
        "seed": seed,
        "tie_rule": TIE_RULE,
        "decisions": list(names),
        "budget_tokens": budget_tokens,
        "tokens_kept": sum(decided["tokens_kept"] for decided in sources.values()),
        "scopes": {scope: asdict(cut) for scope, cut in choice.cuts.items()},
        "sources": sources,
        **({} if unlike is None else {"unlike_masks": unlike}),
    }
    return {**content, "digest": json_digest(content)}


def _how(source: str, config: ArmConfig, groups: Mapping[str, str], pinned: Sequence[str]) -> str:
    """Returns how a source was decided on."""
    if source in groups:
        return RANKED
    if source in pinned:
        return PINNED
    return EXCLUDED if source in config.excluded else LEFT_OUT


def decision_counts(chosen: Chosen, names: Sequence[str]) -> dict[str, int]:
    """Returns the documents of a source by the name of what became of them."""
    nums = np.bincount(chosen.decisions_D, minlength=len(names)).tolist()
    return dict(zip(names, nums, strict=True))


def _counts(entry: SourceDocuments, chosen: Chosen, names: Sequence[str]) -> dict[str, Any]:
    is_without_D = entry.is_trainable_D & ~entry.is_scored_D
    is_without_kept_D = is_without_D & (chosen.times_D > 0)
    return {
        "num_held_out": entry.num_barred(Decision.HELD_OUT),
        "num_duplicates_of_held_out": entry.num_barred(Decision.DUPLICATE_OF_HELD_OUT),
        "num_in_other_arms": entry.num_barred(Decision.IN_ANOTHER_ARM),
        "denied": {
            names[code].removeprefix("denied_by_"): {
                "num_documents": entry.num_barred(code),
                "tokens": entry.tokens_barred(code),
            }
            for code in range(FIRST_DENIED, len(names))
        },
        "num_without_score": int(np.count_nonzero(is_without_D)),
        "num_without_score_kept": int(np.count_nonzero(is_without_kept_D)),
        "tokens_without_score": int(np.dot(entry.tokens_D, is_without_D)),
        "tokens_without_score_kept": int(np.dot(entry.tokens_D, is_without_kept_D)),
        "num_beyond_cap": int(np.count_nonzero(chosen.decisions_D == Decision.BEYOND_CAP)),
        "num_reserved": chosen.num_reserved,
        "tokens_reserved": chosen.tokens_reserved,
        # A repeated document's count once.
        "tokens_distinct": int(np.dot(entry.tokens_D, chosen.times_D > 0)),
    }


def _sums(infos: Mapping[str, KeepMaskInfo]) -> dict[str, int]:
    names = ("num_documents", "num_kept", "tokens_total", "tokens_kept")
    return {name: sum(getattr(info, name) for info in infos.values()) for name in names}


def warn_of(arm: str, choice: Choice, content: Mapping[str, Any]) -> None:
    """Says what a certificate holds but nobody may look for."""
    for scope, cut in choice.cuts.items():
        _warn_of_scope(arm, scope, cut)
    for group, of_group in content.get("unlike_masks", {}).items():
        logger.warning(
            "select %s: sources of %s are ranked together under unlike reliability masks (masked: "
            "%s). Their scores are means over different anchors and not on one scale; scope: "
            "source does not compare them",
            arm,
            group,
            in_words(of_group),
        )
    for source, decided in content["sources"].items():
        num_dropped = decided["num_without_score"] - decided["num_without_score_kept"]
        if decided["how"] == RANKED and num_dropped:
            logger.warning(
                "select %s: %s of %s records of %s without a score are not kept (nulls: %s); their "
                "tokens count in the share of the budget all the same",
                arm,
                f"{num_dropped:,}",
                f"{decided['num_without_score']:,}",
                source,
                content["nulls"],
            )
        if decided["how"] == LEFT_OUT:
            logger.warning("select %s: %s has no scores and is left out", arm, source)
        if decided["floor_tokens"] and decided["tokens_kept"] < decided["floor_tokens"]:
            logger.warning(
                "select %s: %s keeps %s tokens under its floor of %s: it has no more, or its next "
                "record does not fit",
                arm,
                source,
                f"{decided['tokens_kept']:,}",
                f"{decided['floor_tokens']:,}",
            )


def _warn_of_scope(arm: str, scope: str, cut: Cut) -> None:
    if cut.first_out is not None and not cut.num_kept:
        logger.warning(
            "select %s: %s keeps nothing: its first record alone exceeds its %s tokens of the "
            "budget. Raise the budget, or drop such records at ingest (max_chars)",
            arm,
            scope,
            f"{cut.budget_tokens:,}",
        )
    if cut.budget_tokens > cut.tokens_kept and cut.first_out is None:
        logger.warning(
            "select %s: %s spends %s of its %s tokens of the budget: it has no more to rank",
            arm,
            scope,
            f"{cut.tokens_kept:,}",
            f"{cut.budget_tokens:,}",
        )
