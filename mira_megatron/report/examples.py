"""Records to look at: kept and dropped ones of an arm, near the cutoff, far from it, and drawn.

Choosing needs only scores and outcomes; of the chosen records, and of no others, text and ratings
are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from mira_megatron import layout
from mira_megatron.manifest import Part
from mira_megatron.report.outcomes import JudgedArm, JudgedSource, Outcome
from mira_megatron.shards import read_part
from mira_megatron.stage import Workspace

NUM_EXAMPLES = 10  # of the kept records of an arm, and of its dropped ones
EXCERPT_CHARS = 1000
NEAREST, FARTHEST, DRAWN = "nearest to the cutoff", "farthest from the cutoff", "drawn at random"
_RULES = (NEAREST, FARTHEST, DRAWN)
_RECORD_COLUMNS = ["record_id", "family", "text", "meta", "num_chars", "origin"]
_RATING_COLUMNS = ["record_id", "scores", "rationales", "overall", "status", "reason", "brief"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A document to be shown, and which rule chose it."""

    judged: JudgedSource
    document: int
    why_shown: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorRating:
    """One slot of an example: a score 0-10, or None with the reason as rationale."""

    slot: str  # A1 …
    name: str
    score: float | None
    rationale: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One record as the page shows it; everything from `origin` on was written by strangers."""

    source: str
    record_id: str
    is_kept: bool
    score: float | None
    reason: str
    why_shown: str
    family: str
    num_chars: int
    num_tokens: int
    origin: str
    meta: str | None
    excerpt: str  # of the text, at most EXCERPT_CHARS
    brief: str | None
    overall: float | None  # 0-100
    status: str
    status_reason: str | None
    ratings: tuple[AnchorRating, ...]


def choose_examples(arm: JudgedArm, *, is_kept: bool, seed: int) -> list[Choice]:
    """Returns up to NUM_EXAMPLES kept (or dropped) documents, in turn from every source.

    The three rules take turns as well, shifted by one from source to source and from round to
    round. Of equals the seed draws one.
    """
    remaining = [_Remaining(arm.arm, judged, is_kept, seed) for judged in arm.sources]
    choices: list[Choice] = []
    for number in range(NUM_EXAMPLES * max(len(remaining), 1)):
        if len(choices) == NUM_EXAMPLES or not remaining:
            break
        round_number, position = divmod(number, len(remaining))
        choice = remaining[position].take(_RULES[(round_number + position) % len(_RULES)])
        if choice is not None:
            choices.append(choice)
    return choices


class _Remaining:
    """The documents of one source that may still be shown."""

    def __init__(self, arm: str, judged: JudgedSource, is_kept: bool, seed: int) -> None:
        self._judged = judged
        self._draw_key = f"{seed}:{arm}:{judged.source}:{is_kept}"
        is_kept_D = judged.outcomes_D == Outcome.KEPT
        self._is_open_D = is_kept_D if is_kept else ~is_kept_D
        # Only what was ranked has a distance to its cutoff: not what was held out, nor what has no
        # score, unless the arm ranks those, too.
        cut = Outcome.KEPT if is_kept else Outcome.NOT_SELECTED
        is_ranked_D = judged.is_scored_D | (judged.score_of_unscored is not None)
        has_cutoff = judged.scope.cutoff is not None
        self._has_distance_D = (judged.outcomes_D == cut) & is_ranked_D & has_cutoff
        self._distance_D = np.abs(judged.ranked_by_D - np.float32(judged.scope.cutoff or 0.0))

    def take(self, rule: str) -> Choice | None:
        """Returns the next document under a rule, or drawn where the rule finds none; or None."""
        ranked = np.flatnonzero(self._is_open_D & self._has_distance_D)
        if rule == DRAWN or not len(ranked):
            rule, candidates = DRAWN, np.flatnonzero(self._is_open_D)
        else:
            distances = self._distance_D[ranked]
            wanted = distances.min() if rule == NEAREST else distances.max()
            candidates = ranked[distances == wanted]
        if not len(candidates):
            return None
        document = self._draw(candidates)
        self._is_open_D[document] = False
        return Choice(judged=self._judged, document=document, why_shown=rule)

    def _draw(self, candidates: npt.NDArray[np.int64]) -> int:
        key = f"{self._draw_key}:{int(self._is_open_D.sum())}"
        return int(candidates[xxhash.xxh3_64_intdigest(key.encode()) % len(candidates)])


def read_examples(
    workspace: Workspace,
    rubric: str,
    anchor_names: Mapping[str, Sequence[str]],
    choices: Sequence[Choice],
) -> list[Example]:
    """Returns the chosen documents with text and ratings, highest score first.

    `anchor_names` holds the fifteen names of every source.
    """
    by_source: dict[str, list[Choice]] = {}
    for choice in choices:
        by_source.setdefault(choice.judged.source, []).append(choice)
    examples = [
        example
        for source, chosen in by_source.items()
        for example in _read_source(workspace, rubric, anchor_names[source], source, chosen)
    ]
    return sorted(
        examples,
        key=lambda example: (
            example.score is None,
            -(example.score or 0.0),
            example.source,
            example.record_id,
        ),
    )


def _read_source(
    workspace: Workspace,
    rubric: str,
    names: Sequence[str],
    source: str,
    choices: Sequence[Choice],
) -> list[Example]:
    documents = [choice.document for choice in choices]
    parts = workspace.upstream_parts(layout.records(source), ".parquet")
    records = read_rows(parts, num_rows(parts), documents, _RECORD_COLUMNS)
    ratings_folder = layout.ratings(rubric, source)
    ratings_parts = workspace.upstream_parts(ratings_folder, ".parquet")
    ratings = read_rows(ratings_parts, num_rows(parts), documents, _RATING_COLUMNS)
    return [
        _example(choice, records[choice.document], ratings[choice.document], names)
        for choice in choices
    ]


def read_rows(
    parts: Sequence[tuple[Path, Part]],
    num_rows: Sequence[int],
    documents: Sequence[int],
    columns: Sequence[str],
) -> dict[int, dict[str, Any]]:
    """Returns rows by their position over all parts, reading only the parts that hold them."""
    starts = np.concatenate([[0], np.cumsum(num_rows)])
    rows: dict[int, dict[str, Any]] = {}
    for index, (path, part) in enumerate(parts):
        here = [number for number in documents if starts[index] <= number < starts[index + 1]]
        if here:
            table = read_part(path, part.digest, columns)
            taken = table.take([number - int(starts[index]) for number in here])
            rows.update(zip(here, taken.to_pylist(), strict=True))
    return rows


def num_rows(parts: Sequence[tuple[Path, Part]]) -> list[int]:
    """Returns the rows of each part of records; all that is co-partitioned has the same."""
    return [part.num_rows for _, part in parts if part.num_rows is not None]


def _example(
    choice: Choice, record: Mapping[str, Any], rating: Mapping[str, Any], names: Sequence[str]
) -> Example:
    judged, document = choice.judged, choice.document
    assert judged.record_ids[document].as_py() == record["record_id"] == rating["record_id"]
    return Example(
        source=judged.source,
        record_id=record["record_id"],
        is_kept=judged.outcomes_D[document] == Outcome.KEPT,
        score=judged.score(document),
        reason=judged.reason(document),
        why_shown=choice.why_shown,
        family=record["family"],
        num_chars=record["num_chars"],
        num_tokens=int(judged.tokens_D[document]),
        origin=record["origin"],
        meta=record["meta"],
        excerpt=record["text"][:EXCERPT_CHARS],
        brief=rating["brief"],
        overall=rating["overall"],
        status=rating["status"],
        status_reason=rating["reason"],
        ratings=tuple(
            AnchorRating(slot=f"A{slot}", name=name, score=score, rationale=rationale or "")
            for slot, (name, score, rationale) in enumerate(
                zip(names, rating["scores"], rating["rationales"], strict=True), start=1
            )
        ),
    )
