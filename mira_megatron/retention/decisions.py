"""What became of each document under an arm, as one byte: `<prefix>.decisions.npy`.

The certificate lists the names of the codes. Codes from FIRST_DENIED on are the masks made
elsewhere, in the order of their names: `denied_by_<name>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Decision(IntEnum):
    """Of what holds for a document, the first; being denied stands between 4 and 5."""

    KEPT = 0
    HELD_OUT = 1
    DUPLICATE_OF_HELD_OUT = 2
    SOURCE_NOT_TRAINED_ON = 3  # excluded, or left out because it has no scores
    IN_ANOTHER_ARM = 4  # one that this arm goes without, itself or as a copy
    NO_SCORE = 5
    BEYOND_CAP = 6  # of its source
    NOT_SELECTED = 7  # behind the cut of its scope


FIRST_DENIED = len(Decision)
_MAX_CODES = 256  # uint8


def decision_names(reasons: Sequence[str]) -> list[str]:
    """Returns the name of every code; `reasons` are the names of masks made elsewhere, sorted.

    Raises ValueError for more masks than a byte can name.
    """
    names = [decision.name.lower() for decision in Decision]
    names += [f"denied_by_{reason}" for reason in reasons]
    if len(names) > _MAX_CODES:
        raise ValueError(
            f"{len(reasons)} masks in with_masks, at most {_MAX_CODES - FIRST_DENIED} are possible"
        )
    return names
