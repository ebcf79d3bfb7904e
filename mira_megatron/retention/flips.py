"""What a flip of reliability decisions does to a keep set: what enters it, and what leaves it.

A document counts once, however often it is seen. Shape letters: D documents of one source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mira_megatron.reliability.mask import DecidedCell
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.choosing import Choice

_COUNTS = (
    *("num_entering", "tokens_entering", "num_leaving", "tokens_leaving"),
    *("tokens_kept", "tokens_kept_flipped"),
)
_OF_CELL = ("source", "group", "anchor_id", "anchor_name")
_ESTIMATES = ("mae", "mae_low", "mae_high", "rho", "rho_low", "rho_high")
_OF_SOURCE = pa.struct(
    [
        pa.field("source", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in _COUNTS),
        pa.field("changed_fraction", pa.float64()),
    ]
)
FLIP_SCHEMA = pa.schema(
    [
        pa.field("is_joint", pa.bool_(), nullable=False),  # all undecided cells at once
        *(pa.field(name, pa.string()) for name in _OF_CELL),  # these are null of the joint row
        pa.field("is_masked", pa.bool_()),  # as the score table has it
        pa.field("n", pa.int64()),
        *(pa.field(name, pa.float64()) for name in _ESTIMATES),
        *(pa.field(name, pa.int64()) for name in _COUNTS),  # null where `reason` says why
        pa.field("changed_fraction", pa.float64()),
        pa.field("by_source", pa.list_(pa.field("element", _OF_SOURCE, nullable=False))),
        pa.field("reason", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """How a keep set changes where scores do."""

    num_entering: int
    tokens_entering: int
    num_leaving: int
    tokens_leaving: int
    tokens_kept: int  # as it stands
    tokens_kept_flipped: int

    @property
    def changed_fraction(self) -> float | None:
        """Returns the share of kept tokens that change; None where nothing is kept at all.

        That is the larger of what enters and leaves, of the larger keep set.
        """
        kept = max(self.tokens_kept, self.tokens_kept_flipped)
        return max(self.tokens_entering, self.tokens_leaving) / kept if kept else None

    @property
    def is_any(self) -> bool:
        """Returns whether anything enters or leaves."""
        return bool(self.num_entering or self.num_leaving)

    @property
    def columns(self) -> dict[str, Any]:
        """Returns it as columns of a table."""
        return {**asdict(self), "changed_fraction": self.changed_fraction}


def changes(
    documents: Iterable[SourceDocuments], choice: Choice, flipped: Choice
) -> dict[str, Change]:
    """Returns by source how what is kept of it changes from one choice to another."""
    return {
        entry.source: change(
            entry.tokens_D,
            choice.sources[entry.source].times_D > 0,
            flipped.sources[entry.source].times_D > 0,
        )
        for entry in documents
    }


def change(
    tokens_D: npt.NDArray[np.int64],
    is_kept_D: npt.NDArray[np.bool_],
    is_kept_flipped_D: npt.NDArray[np.bool_],
) -> Change:
    """Returns how one source's part of a keep set changes."""
    is_entering_D, is_leaving_D = is_kept_flipped_D & ~is_kept_D, is_kept_D & ~is_kept_flipped_D
    return Change(
        num_entering=int(np.count_nonzero(is_entering_D)),
        tokens_entering=int(np.dot(tokens_D, is_entering_D)),
        num_leaving=int(np.count_nonzero(is_leaving_D)),
        tokens_leaving=int(np.dot(tokens_D, is_leaving_D)),
        tokens_kept=int(np.dot(tokens_D, is_kept_D)),
        tokens_kept_flipped=int(np.dot(tokens_D, is_kept_flipped_D)),
    )


def total(parts: Iterable[Change]) -> Change:
    """Returns the change of several sources together."""
    of_sources = [asdict(part) for part in parts]
    return Change(**{name: sum(part[name] for part in of_sources) for name in _COUNTS})


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """One row: an undecided cell the other way round, or all of them."""

    cell: DecidedCell | None  # None: all undecided cells at once
    by_source: Mapping[str, Change] | None  # None: there is no choice then, and …
    reason: str | None = None  # … why

    @property
    def change(self) -> Change | None:
        """Returns the change of all sources; None where there is none to speak of."""
        return None if self.by_source is None else total(self.by_source.values())

    @property
    def columns(self) -> dict[str, Any]:
        """Returns the row of the table."""
        whole = self.change
        return {
            "is_joint": self.cell is None,
            **self._of_cell(),
            **({} if whole is None else whole.columns),
            "by_source": None
            if self.by_source is None
            else [
                {"source": source, **each.columns}
                for source, each in self.by_source.items()
                if each.is_any
            ],
            "reason": self.reason,
        }

    def _of_cell(self) -> dict[str, Any]:
        if self.cell is None:
            return {}
        names = (*_OF_CELL, "n", *_ESTIMATES)
        found = {name: getattr(self.cell.cell, name) for name in names}
        return {**found, "is_masked": self.cell.decision.is_masked}


def flips_table(flips: Sequence[Flip]) -> pa.Table:
    """Returns the rows as FLIP_SCHEMA has them."""
    return pa.Table.from_pylist([flip.columns for flip in flips], schema=FLIP_SCHEMA)
