"""The records that can be browsed on the page: of every source kept, dropped and unscored ones.

Only of the chosen records text and ratings are read. All of it was written by strangers: it reaches
the page as data, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mira_megatron import layout
from mira_megatron.report.examples import num_rows, read_rows
from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome
from mira_megatron.report.rating_sample import draw
from mira_megatron.stage import Workspace

MAX_RECORDS = 300  # of all sources together
MIN_OF_SOURCE = 6
TEXT_CHARS = 2000
_UNSCORED_SHARE = 5  # at most one in five has no score
_RECORD_COLUMNS = ["record_id", "family", "text", "meta", "num_chars", "origin"]
_RATING_COLUMNS = ["record_id", "scores", "rationales", "status", "reason", "brief"]
# Filters of the page; the reason beside a record says more.
_DECISIONS = {
    Outcome.KEPT: "kept",
    Outcome.HELD_OUT: "held out",
    Outcome.REPEATS_HELD_OUT: "repeats a held-out text",
    Outcome.IN_ANOTHER_ARM: "in another arm",
    Outcome.NO_SCORE: "no score",
    Outcome.NOT_SELECTED: "not selected",
    Outcome.DENIED: "denied by a mask",
    Outcome.BEYOND_CAP: "beyond the cap",
    Outcome.NOT_TRAINED_ON: "source not trained on",
}


def records_data(
    workspace: Workspace,
    *,
    rubric: str,
    seed: int,
    anchor_names: Mapping[str, Sequence[str]],  # fifteen of every source that has records
    arms: Sequence[JudgedArm],
) -> dict[str, Any]:
    """Returns the data block of the browser: arms, anchors, and the records by source."""
    records = []
    quota = max(MIN_OF_SOURCE, MAX_RECORDS // max(len(anchor_names), 1))
    for source in sorted(anchor_names) if arms else ():
        judged = [next(each for each in arm.sources if each.source == source) for arm in arms]
        chosen = _choose(judged[0], quota, f"{seed}:browse:{source}")
        records += _read(workspace, rubric, source, chosen.tolist(), judged)
    return {
        "textChars": TEXT_CHARS,
        "arms": [arm.arm for arm in arms],
        "anchors": {source: list(names) for source, names in anchor_names.items()},
        "records": records,
    }


def _choose(judged: JudgedSource, quota: int, key: str) -> npt.NDArray[np.int64]:
    """Returns documents under the first arm: some without a score, the rest half kept."""
    is_kept_D = judged.outcomes_D == Outcome.KEPT
    unscored = draw(
        np.flatnonzero(~judged.is_scored_D & ~is_kept_D), quota // _UNSCORED_SHARE, f"{key}:none"
    )
    kept = np.flatnonzero(is_kept_D)
    dropped = np.flatnonzero(judged.is_scored_D & ~is_kept_D)
    left = quota - len(unscored)
    num_kept = min(len(kept), max(left // 2, left - len(dropped)))
    return np.sort(
        np.concatenate(
            [
                unscored,
                draw(kept, num_kept, f"{key}:kept"),
                draw(dropped, left - num_kept, f"{key}:dropped"),
            ]
        )
    )


def _read(
    workspace: Workspace,
    rubric: str,
    source: str,
    documents: Sequence[int],
    judged: Sequence[JudgedSource],
) -> list[dict[str, Any]]:
    parts = workspace.upstream_parts(layout.records(source), ".parquet")
    rows = num_rows(parts)
    records = read_rows(parts, rows, documents, _RECORD_COLUMNS)
    rated = workspace.upstream_parts(layout.ratings(rubric, source), ".parquet")
    ratings = read_rows(rated, rows, documents, _RATING_COLUMNS)
    return [
        _record(source, document, records[document], ratings[document], judged)
        for document in documents
    ]


def _record(
    source: str,
    document: int,
    record: Mapping[str, Any],
    rating: Mapping[str, Any],
    judged: Sequence[JudgedSource],
) -> dict[str, Any]:
    assert record["record_id"] == rating["record_id"] == judged[0].record_ids[document].as_py()
    return {
        "id": record["record_id"],
        "source": source,
        "family": record["family"],
        "text": record["text"][:TEXT_CHARS],
        "isCut": len(record["text"]) > TEXT_CHARS,
        "chars": record["num_chars"],
        "tokens": int(judged[0].tokens_D[document]),
        "origin": record["origin"],
        "meta": None if record["meta"] is None else record["meta"][:TEXT_CHARS],
        "brief": rating["brief"],
        "status": rating["status"],
        "statusReason": rating["reason"],
        "scores": rating["scores"],
        "rationales": rating["rationales"],
        "judged": [
            {
                "decision": _DECISIONS[Outcome(each.outcomes_D[document])],
                "reason": each.reason(document),
                "score": each.score(document),
            }
            for each in judged
        ],
    }
