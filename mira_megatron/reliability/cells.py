"""How far a scorer agrees with its teacher, per (source, anchor).

Shape letters: R records, A anchor slots. NaN stands for a score that was not given, here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import rankdata

from mira_megatron.records import Anchor
from mira_megatron.reliability.intervals import (
    Resampling,
    bootstrap_intervals,
    cell_seed,
    mean_error,
)

ONE_SCORE = "the scorer gave every record the same score"  # and the teacher did not
MIN_PAIRS = 3  # below, a rank correlation is +1 or -1 whatever the scores


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class RatedAs:
    """How ratings were made; scores of different scorers, prompts or modes are on no one scale."""

    model: str
    prompt_key: str
    answer_mode: str

    def __str__(self) -> str:
        """Returns it as messages have it."""
        return f"model={self.model}, prompt_key={self.prompt_key}, answer_mode={self.answer_mode}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Agreement about one anchor on one source's held-back records."""

    source: str
    group: str
    anchor_id: str
    anchor_name: str
    model: str  # the scorer's ratings were made with it, and with …
    prompt_key: str
    answer_mode: str
    n: int  # records that both scored
    mae: float | None  # mean absolute difference of the scores, 0-10; None without a pair
    mae_low: float | None  # ends of its interval; None with fewer than MIN_PAIRS records
    mae_high: float | None
    rho: float | None  # Spearman's, in [-1, 1]
    rho_low: float | None  # ends of its interval; None where rho is
    rho_high: float | None
    rho_of_length: float | None  # Spearman's of the record's characters with the teacher's scores
    reason: str | None  # why rho is None

    @property
    def rated_as(self) -> RatedAs:
        """Returns how the scorer's ratings were made."""
        return RatedAs(model=self.model, prompt_key=self.prompt_key, answer_mode=self.answer_mode)


CELL_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("anchor_id", pa.string(), nullable=False),
        pa.field("anchor_name", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("prompt_key", pa.string(), nullable=False),
        pa.field("answer_mode", pa.string(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("mae", pa.float64()),
        pa.field("mae_low", pa.float64()),
        pa.field("mae_high", pa.float64()),
        pa.field("rho", pa.float64()),
        pa.field("rho_low", pa.float64()),
        pa.field("rho_high", pa.float64()),
        pa.field("rho_of_length", pa.float64()),
        pa.field("reason", pa.string()),
    ]
)


def cells(
    teacher_RA: npt.NDArray[np.float64],
    scorer_RA: npt.NDArray[np.float64],
    num_chars_R: npt.NDArray[np.int64],
    *,
    anchors: Sequence[Anchor],
    source: str,
    group: str,
    rated_as: RatedAs,
    resampling: Resampling,
) -> list[Cell]:
    """Returns one cell per anchor, over the records that teacher and scorer both gave a score."""
    found = []
    for slot, anchor in enumerate(anchors):
        is_pair = ~(np.isnan(teacher_RA[:, slot]) | np.isnan(scorer_RA[:, slot]))
        teacher, scorer = teacher_RA[is_pair, slot], scorer_RA[is_pair, slot]
        rho, reason = spearman(scorer, teacher)
        intervals = None
        if len(teacher) >= MIN_PAIRS:
            seed = cell_seed(resampling.seed, source, anchor.anchor_id)
            intervals = bootstrap_intervals(scorer, teacher, resampling=resampling, seed=seed)
        found.append(
            Cell(
                source=source,
                group=group,
                anchor_id=anchor.anchor_id,
                anchor_name=anchor.name,
                model=rated_as.model,
                prompt_key=rated_as.prompt_key,
                answer_mode=rated_as.answer_mode,
                n=len(teacher),
                mae=mean_error(scorer, teacher) if len(teacher) else None,
                mae_low=None if intervals is None else intervals.mae_low,
                mae_high=None if intervals is None else intervals.mae_high,
                rho=rho,
                rho_low=None if intervals is None else intervals.rho_low,
                rho_high=None if intervals is None else intervals.rho_high,
                rho_of_length=spearman(num_chars_R[is_pair].astype(np.float64), teacher)[0],
                reason=reason,
            )
        )
    return found


def spearman(
    scores: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]
) -> tuple[float | None, str | None]:
    """Returns Spearman's rank correlation, ties at their mean rank, or None and why."""
    if len(scores) < MIN_PAIRS:
        return None, f"too few records: {len(scores)} of at least {MIN_PAIRS}"
    if (truth == truth[0]).all():
        return None, "the teacher gave every record the same score"
    if (scores == scores[0]).all():
        return None, ONE_SCORE
    ranks = np.stack([rankdata(scores), rankdata(truth)])
    return float(np.clip(np.corrcoef(ranks)[0, 1], -1.0, 1.0)), None


def follows(cell: Cell, min_rho: float) -> bool:
    """Whether the scorer ranks as the teacher does: to `min_rho`, and better than length alone."""
    length = abs(cell.rho_of_length or 0.0)
    return cell.rho is not None and cell.rho >= min_rho and cell.rho > length
