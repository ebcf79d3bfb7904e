"""The seed of a request: made from the record it asks about, so that no other record moves it."""

from __future__ import annotations

import re

import xxhash

_DUPLICATE = re.compile(r"([0-9a-f]{32})-[0-9]+")  # as ingest numbers the copies of a record
_NUM_SEEDS = 1 << 31  # what every server takes


def record_seed(seed: int, record_id: str, attempt: int) -> int:
    """Returns the seed, 0 to 2**31 - 1, of an attempt (from 1) at a record.

    `seed` is the recipe's. Copies of one record within a source have one seed: equal questions are
    asked once. Another attempt has another seed.
    """
    copy = _DUPLICATE.fullmatch(record_id)
    name = copy[1] if copy else record_id
    place = xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode())
    return (place + attempt) % _NUM_SEEDS
