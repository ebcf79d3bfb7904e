"""What became of every document under one arm. Shape letters: D documents in .idx order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.report.judged_scopes import Scope, read_scopes, scope_of
from mira_megatron.report.selection_words import selection_sentences
from mira_megatron.retention.arms import NULLS_MEDIAN
from mira_megatron.retention.documents import (
    kept_by_arm,
    score_table,
    texts_of_arms,
    token_dataset,
)
from mira_megatron.retention.offers import lower_median
from mira_megatron.stage import Workspace
from mira_megatron.written_numbers import decimal


class Outcome(IntEnum):
    """The first of these that holds for a document is what became of it."""

    KEPT = 0
    HELD_OUT = 1
    REPEATS_HELD_OUT = 2
    IN_ANOTHER_ARM = 3  # one that this arm goes without, itself or as a copy
    NO_SCORE = 4
    NOT_SELECTED = 5  # behind the cut of its scope
    DENIED = 6  # by a mask made elsewhere
    BEYOND_CAP = 7  # of its source
    NOT_TRAINED_ON = 8  # its source is excluded, or left out because it has no scores


# What a selection that writes its decisions calls them; `denied_by_<mask>` is Outcome.DENIED.
_OUTCOME_OF_DECISION = {
    "kept": Outcome.KEPT,
    "held_out": Outcome.HELD_OUT,
    "duplicate_of_held_out": Outcome.REPEATS_HELD_OUT,
    "in_another_arm": Outcome.IN_ANOTHER_ARM,
    "source_not_trained_on": Outcome.NOT_TRAINED_ON,
    "no_score": Outcome.NO_SCORE,
    "beyond_cap": Outcome.BEYOND_CAP,
    "not_selected": Outcome.NOT_SELECTED,
}
_DENIED = "denied_by_"


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedSource:
    """The documents of one source: score, length and outcome."""

    source: str
    source_group: str | None  # None where it is not ranked
    scope: Scope
    record_ids: pa.ChunkedArray
    tokens_D: npt.NDArray[np.int64]
    scores_D: npt.NDArray[np.float32]  # 0 where there is none
    is_scored_D: npt.NDArray[np.bool_]
    no_score_reasons: pa.ChunkedArray
    outcomes_D: npt.NDArray[np.uint8]
    tokens_seen: int  # in one pass, each document as often as it is seen
    decisions_D: npt.NDArray[np.uint8] | None = None  # where the selection wrote them
    decision_names: tuple[str, ...] = ()
    score_of_unscored: float | None = None  # at which those without one were ranked, if they were

    @property
    def ranked_by_D(self) -> npt.NDArray[np.float32]:
        """Returns the score that each document was ranked by, 0 where it was not ranked."""
        if self.score_of_unscored is None:
            return self.scores_D
        return np.where(self.is_scored_D, self.scores_D, np.float32(self.score_of_unscored))

    def score(self, document: int) -> float | None:
        """Returns a document's score, 0-10."""
        return float(self.scores_D[document]) if self.is_scored_D[document] else None

    def reason(self, document: int) -> str:
        """Returns in words why a document was kept or dropped."""
        told = self._told(document)
        is_ranked = Outcome(self.outcomes_D[document]) in (Outcome.KEPT, Outcome.NOT_SELECTED)
        if not is_ranked or self.is_scored_D[document] or self.score_of_unscored is None:
            return told
        median = decimal(self.score_of_unscored, 3)
        return f"{told}; without a score, it is ranked at its source’s median {median}"

    def _told(self, document: int) -> str:
        cutoff = f"the cutoff {decimal(self.scope.cutoff, 3)} of {self.scope.name}"
        score = self._score_by_rank(document)
        match Outcome(self.outcomes_D[document]):
            case Outcome.KEPT if self.source_group is None:
                return f"kept: its source is {self.scope.name}"
            case Outcome.KEPT if score is None:
                return "kept without a score: drawn at random, as the arm treats those"
            case Outcome.KEPT if self.scope.is_cut_by_floors:
                return "kept for its source’s floor"
            case Outcome.KEPT if self._is_below_cutoff(score):
                return f"kept for its source’s floor, though below {cutoff}"
            case Outcome.KEPT:
                return f"kept: not below {cutoff}"
            case Outcome.HELD_OUT:
                return "held out for validation"
            case Outcome.REPEATS_HELD_OUT:
                return "repeats a held-out text"
            case Outcome.IN_ANOTHER_ARM:
                return "kept by an arm that this one goes without"
            case Outcome.NO_SCORE:
                return f"no score: {self.no_score_reasons[document].as_py()}"
            case Outcome.NOT_SELECTED:
                if self.scope.cutoff is None:
                    return f"the budget of {self.scope.name} holds no document"
                if self.scope.is_cut_by_floors:
                    return (
                        "reserved by no floor, and what floors leave of the budget of "
                        f"{self.scope.name} holds no document"
                    )
                is_tie = score == self.scope.cutoff
                return f"at {cutoff}, behind it by the tie rule" if is_tie else f"below {cutoff}"
            case Outcome.DENIED:
                assert self.decisions_D is not None
                name = self.decision_names[self.decisions_D[document]].removeprefix(_DENIED)
                return f"denied by the mask {name}"
            case Outcome.BEYOND_CAP:
                return "beyond the cap of its source"
            case Outcome.NOT_TRAINED_ON:
                return f"not trained on: its source is {self.scope.name}"

    def _is_below_cutoff(self, score: float | None) -> bool:
        return score is not None and self.scope.cutoff is not None and score < self.scope.cutoff

    def _score_by_rank(self, document: int) -> float | None:
        """Returns the score that a document was ranked by; None where it was not."""
        return self.score(document) if self.is_scored_D[document] else self.score_of_unscored


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedArm:
    """One arm: its certificate's scopes, and the documents of every source."""

    arm: str
    score_table: str
    scope_kind: str
    budget_tokens: int
    tie_rule: str
    without: tuple[str, ...]  # arms whose documents are no candidates here
    scopes: tuple[Scope, ...]
    sources: tuple[JudgedSource, ...]
    shares: str = "proportional"  # of the budget, by a scope's candidate tokens; or equal
    told: tuple[str, ...] = ()  # how it chose, in sentences
    beside_ranking: tuple[str, ...] = ()  # in words: what else than rank and budget decides

    def score_of(self, record_id: str | None) -> float | None:
        """Returns the score of a record of any source; None where it is unknown or has none."""
        for judged in self.sources if record_id is not None else ():
            document = pc.index(judged.record_ids, record_id).as_py()
            if document >= 0:
                return judged.score(document)
        return None


def outcomes(
    *,
    is_kept_D: npt.NDArray[np.bool_],
    is_held_out_D: npt.NDArray[np.bool_],
    repeats_held_out_D: npt.NDArray[np.bool_],
    is_in_another_arm_D: npt.NDArray[np.bool_],
    is_scored_D: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint8]:
    """Returns one Outcome per document."""
    conditions = [
        is_kept_D,
        is_held_out_D,
        repeats_held_out_D,
        is_in_another_arm_D,
        ~is_scored_D,
    ]
    named = [
        Outcome.KEPT,
        Outcome.HELD_OUT,
        Outcome.REPEATS_HELD_OUT,
        Outcome.IN_ANOTHER_ARM,
        Outcome.NO_SCORE,
    ]
    return np.select(conditions, named, default=Outcome.NOT_SELECTED).astype(np.uint8)


def read_arm(workspace: Workspace, arm: str, documents: Mapping[str, pa.Table]) -> JudgedArm:
    """Returns what one arm's keep masks made of the documents of every source."""
    folder = workspace.run.folder / layout.keep(arm)
    certificate = orjson.loads((folder / layout.CERTIFICATE).read_bytes())
    scopes = read_scopes(certificate)
    taken = texts_of_arms(workspace, certificate["without"], documents)
    return JudgedArm(
        arm=arm,
        score_table=certificate["score"],
        scope_kind=certificate["scope"],
        budget_tokens=certificate["budget_tokens"],
        tie_rule=certificate["tie_rule"],
        without=tuple(certificate["without"]),
        scopes=tuple(scopes.values()),
        sources=tuple(
            _judged_source(workspace, certificate, scopes, source, table, taken)
            for source, table in documents.items()
        ),
        shares=certificate.get("shares", "proportional"),
        told=selection_sentences(certificate),
        beside_ranking=_beside_ranking(certificate),
    )


def _beside_ranking(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    sources = certificate["sources"].values()
    found = {
        "floors": any(decided.get("floor_tokens") for decided in sources),
        "caps": any(decided.get("cap_tokens") for decided in sources),
        "repeats": certificate["repeat_times"] is not None,
        "documents kept without a score": certificate.get("nulls", "drop") != "drop",
        "sharing of what a scope leaves unspent": certificate.get("unspent", "leave") != "leave",
    }
    return tuple(words for words, holds in found.items() if holds)


def _judged_source(
    workspace: Workspace,
    certificate: Mapping[str, Any],
    scopes: Mapping[str, Scope],
    source: str,
    documents: pa.Table,
    texts_taken: pa.ChunkedArray,
) -> JudgedSource:
    decided = certificate["sources"][source]
    scores = _record_scores(workspace, certificate, source, documents)
    is_scored = pc.is_valid(scores["score"]).to_numpy()
    decisions_D = _decisions(workspace, certificate, source)
    names = tuple(certificate.get("decisions", ()))
    scores_D = pc.fill_null(scores["score"], 0.0).to_numpy()
    outcomes_D = (
        outcomes_of_decisions(decisions_D, names)
        if decisions_D is not None
        else outcomes(
            is_kept_D=kept_by_arm(workspace, certificate["arm"], source),
            is_held_out_D=documents["is_validation"].to_numpy(),
            repeats_held_out_D=documents["repeats_held_out"].to_numpy(),
            is_in_another_arm_D=pc.is_in(documents["text_hash"], texts_taken).to_numpy(),
            is_scored_D=is_scored,
        )
    )
    return JudgedSource(
        source=source,
        source_group=decided["source_group"],
        scope=scope_of(certificate, scopes, source),
        record_ids=documents["record_id"],
        tokens_D=documents["num_tokens"].to_numpy(),
        scores_D=scores_D,
        is_scored_D=is_scored,
        no_score_reasons=scores["reason"],
        tokens_seen=decided["tokens_kept"],
        decisions_D=decisions_D,
        decision_names=names,
        outcomes_D=outcomes_D,
        score_of_unscored=_score_of_unscored(
            certificate, scores_D[is_scored & np.isin(outcomes_D, _ON_OFFER)]
        ),
    )


# What a source offers to its scope where it has a score, capped or not.
_ON_OFFER = (Outcome.KEPT, Outcome.NOT_SELECTED, Outcome.BEYOND_CAP)


def _score_of_unscored(
    certificate: Mapping[str, Any], scores: npt.NDArray[np.float32]
) -> float | None:
    """Returns where an arm ranks documents of a source without a score, given its candidates'."""
    is_ranked = certificate.get("nulls") == NULLS_MEDIAN and len(scores)
    return float(lower_median(scores)) if is_ranked else None


def outcomes_of_decisions(
    decisions_D: npt.NDArray[np.uint8], names: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Returns one Outcome per document from the codes that a selection wrote."""
    outcome_of_code = np.array(
        [
            Outcome.DENIED if name.startswith(_DENIED) else _OUTCOME_OF_DECISION[name]
            for name in names
        ],
        dtype=np.uint8,
    )
    return outcome_of_code[decisions_D]


def _decisions(
    workspace: Workspace, certificate: Mapping[str, Any], source: str
) -> npt.NDArray[np.uint8] | None:
    """Returns the codes of what became of each document; None where the selection wrote none."""
    if "decisions" not in certificate:
        return None
    folder = workspace.run.folder / layout.keep(certificate["arm"])
    names = [prefix.name for prefix in token_dataset(workspace, source).prefixes]
    return np.concatenate([np.load(folder / f"{name}.decisions.npy") for name in names])


def _record_scores(
    workspace: Workspace, certificate: Mapping[str, Any], source: str, documents: pa.Table
) -> pa.Table:
    """Returns score and reason per document; of a source that is not ranked how it is instead."""
    how = certificate["sources"][source]["how"]
    if how != "ranked":
        num = documents.num_rows
        reasons = pa.array([f"its source is {how.replace('_', ' ')}"] * num, pa.string())
        return pa.table({"score": pa.nulls(num, pa.float32()), "reason": reasons})
    return score_table(workspace, certificate["score"], source, documents, ["score", "reason"])
