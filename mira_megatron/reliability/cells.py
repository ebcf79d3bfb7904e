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

MIN_PAIRS = 3  # below, a rank correlation is +1 or -1 whatever the scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Agreement about one anchor on one source's held-back records."""

    source: str
    group: str
    anchor_id: str
    anchor_name: str
    answer_mode: str
    n: int  # records that both scored
    mae: float | None  # mean absolute difference of the scores, 0-10; None without a pair
    rho: float | None  # Spearman's, in [-1, 1]
    rho_of_length: float | None  # Spearman's of the record's characters with the teacher's scores
    reason: str | None  # why rho is None


CELL_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("anchor_id", pa.string(), nullable=False),
        pa.field("anchor_name", pa.string(), nullable=False),
        pa.field("answer_mode", pa.string(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("mae", pa.float64()),
        pa.field("rho", pa.float64()),
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
    answer_mode: str,
) -> list[Cell]:
    """Returns one cell per anchor, over the records that teacher and scorer both gave a score."""
    found = []
    for slot, anchor in enumerate(anchors):
        is_pair = ~(np.isnan(teacher_RA[:, slot]) | np.isnan(scorer_RA[:, slot]))
        teacher, scorer = teacher_RA[is_pair, slot], scorer_RA[is_pair, slot]
        rho, reason = spearman(scorer, teacher)
        found.append(
            Cell(
                source=source,
                group=group,
                anchor_id=anchor.anchor_id,
                anchor_name=anchor.name,
                answer_mode=answer_mode,
                n=len(teacher),
                mae=float(np.abs(teacher - scorer).mean()) if len(teacher) else None,
                rho=rho,
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
    for name, values in (("scorer", scores), ("teacher", truth)):
        if (values == values[0]).all():
            return None, f"the {name} gave every record the same score"
    ranks = np.stack([rankdata(scores), rankdata(truth)])
    return float(np.clip(np.corrcoef(ranks)[0, 1], -1.0, 1.0)), None


def follows(cell: Cell, min_rho: float) -> bool:
    """Whether the scorer ranks as the teacher does: to `min_rho`, and better than length alone."""
    length = abs(cell.rho_of_length or 0.0)
    return cell.rho is not None and cell.rho >= min_rho and cell.rho > length
