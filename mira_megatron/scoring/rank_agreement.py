"""How far two ratings of the same records rank them alike, anchor by anchor.

Two answer modes are compared so (mode_agreement.py), and one judge with itself (retest.py).

Shape letters: R records, A anchor slots. NaN stands for a score that was not given, here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mira_megatron.records import Anchor
from mira_megatron.reliability.cells import MIN_PAIRS, spearman

_TOO_FEW = "too_few_records"
_ONE_SCORE_IN_FIRST = "one_score_in_first"  # nothing to rank
_ONE_SCORE_IN_SECOND = "one_score_in_second"

AGREEMENT_SCHEMA = pa.schema(
    [
        pa.field("anchor_id", pa.string(), nullable=False),
        pa.field("anchor_name", pa.string(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("rho", pa.float64()),
        pa.field("mean_abs_difference", pa.float64()),
        pa.field("reason", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorAgreement:
    """Two ratings of some records on one anchor."""

    anchor_id: str
    anchor_name: str
    n: int  # records that have a score in both
    rho: float | None  # Spearman's, in [-1, 1]
    mean_abs_difference: float | None  # of the scores, 0-10; None without a pair
    reason: str | None  # why rho is None


def compare(
    first_RA: npt.NDArray[np.float64],
    second_RA: npt.NDArray[np.float64],
    *,
    anchors: Sequence[Anchor],
) -> list[AnchorAgreement]:
    """Returns one row per anchor, each over the records that have both scores."""
    found = []
    for slot, anchor in enumerate(anchors):
        is_pair = ~(np.isnan(first_RA[:, slot]) | np.isnan(second_RA[:, slot]))
        first, second = first_RA[is_pair, slot], second_RA[is_pair, slot]
        rho, _ = spearman(second, first)
        difference = float(np.abs(first - second).mean()) if len(first) else None
        found.append(
            AnchorAgreement(
                anchor_id=anchor.anchor_id,
                anchor_name=anchor.name,
                n=len(first),
                rho=rho,
                mean_abs_difference=difference,
                reason=None if rho is not None else _reason(first),
            )
        )
    return found


def agreement(found: Sequence[AnchorAgreement]) -> float | None:
    """Returns the median Spearman over the anchors, None where none can be compared.

    An anchor that the first rating gives one score throughout has nothing to rank and is left out.
    Any other without a correlation counts as 0: a rating that gives most anchors one score
    throughout must not look better for it.
    """
    rhos = [each.rho or 0.0 for each in found if each.reason != _ONE_SCORE_IN_FIRST]
    return median(rhos) if any(each.n for each in found) and rhos else None


def mean_difference(found: Sequence[AnchorAgreement]) -> float | None:
    """Returns the median over the anchors of the mean difference, None without a pair."""
    known = [each.mean_abs_difference for each in found if each.mean_abs_difference is not None]
    return median(known) if known else None


def _reason(first: npt.NDArray[np.float64]) -> str:
    """Returns why there is no rank correlation with these scores."""
    if len(first) < MIN_PAIRS:
        return _TOO_FEW
    return _ONE_SCORE_IN_FIRST if (first == first[0]).all() else _ONE_SCORE_IN_SECOND
