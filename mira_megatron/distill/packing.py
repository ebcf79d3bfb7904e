"""Which samples share a sequence: first-fit decreasing, in O(n log n)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def first_fit(sizes: Sequence[int], capacity: int) -> npt.NDArray[np.int64]:
    """Returns the bin (from 0) of each size, in the order given: the first bin it still fits into.

    With sizes in decreasing order that needs at most 11/9 of the fewest bins possible, plus one.
    Raises ValueError for a size that no bin could hold.
    """
    if len(sizes) and not 0 < min(sizes) <= max(sizes) <= capacity:
        raise ValueError(f"sizes {min(sizes)} to {max(sizes)} must be in 1..{capacity}")
    num_leaves = 1 << max(0, len(sizes) - 1).bit_length()
    # A tree of the most room in any bin below each node; leaves are the bins, all still empty.
    room = [capacity] * (2 * num_leaves)
    bins = np.empty(len(sizes), np.int64)
    for index, size in enumerate(sizes):
        node = 1
        while node < num_leaves:
            node *= 2
            if room[node] < size:
                node += 1
        bins[index] = node - num_leaves
        room[node] -= size
        while node > 1:
            node //= 2
            most = max(room[2 * node], room[2 * node + 1])
            if room[node] == most:
                break
            room[node] = most
    return bins
