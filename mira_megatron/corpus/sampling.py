"""Seeded samples of records that depend on neither order nor workers.

Every record has a place in a random order of its own, so a source that grows keeps most of its
sample: a new record enters it only by pushing out the one with the highest place.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import xxhash


def sample_ids(record_ids: Iterable[str], n: int, *, seed: int, purpose: str) -> set[str]:
    """Returns the `n` record ids that come first in the order of a seed and a purpose; or all.

    The sample of a whole is the sample of its parts' samples. Raises ValueError for a negative `n`.
    """
    if n < 0:
        raise ValueError(f"cannot sample n={n} records; expected 0 or more")
    return set(heapq.nsmallest(n, record_ids, key=lambda name: _place(name, seed, purpose)))


def _place(record_id: str, seed: int, purpose: str) -> tuple[int, str]:
    return xxhash.xxh3_64_intdigest(f"{seed}:{purpose}:{record_id}".encode()), record_id
