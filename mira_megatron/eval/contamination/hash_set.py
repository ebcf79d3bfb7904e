"""Membership of many hashes in a set of them, by whole arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mira_megatron.eval.contamination.arrays import I64, U64, Bools

_MAX_BITMAP_BITS = 26  # 64 MiB


@dataclass(frozen=True, slots=True)
class HashSet:
    """Sorted hashes, with a bitmap of their upper bits that most others are not in."""

    sorted_G: U64
    bitmap: Bools

    @classmethod
    def of(cls, sorted_G: U64) -> HashSet:
        """Returns the set of hashes that are sorted and distinct."""
        num_bits = min(_MAX_BITMAP_BITS, max(10, len(sorted_G).bit_length() + 5))
        bitmap = np.zeros(1 << num_bits, dtype=np.bool_)
        bitmap[sorted_G >> np.uint64(64 - num_bits)] = True
        return cls(sorted_G, bitmap)

    def found(self, hashes: U64) -> tuple[I64, I64]:
        """Returns which of the hashes are in the set, and the place of each in it."""
        if not len(self.sorted_G):
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing
        num_bits = len(self.bitmap).bit_length() - 1
        upper = (hashes >> np.uint64(64 - num_bits)).view(np.int64)
        rows = np.flatnonzero(self.bitmap[upper])
        places = np.searchsorted(self.sorted_G, hashes[rows])
        places[places == len(self.sorted_G)] = 0
        is_in = self.sorted_G[places] == hashes[rows]
        return rows[is_in], places[is_in]
