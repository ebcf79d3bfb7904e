"""The seed of a request, made from the record that it is about."""

from __future__ import annotations

import re

import xxhash

# The number that ingest gives a record whose content is there already.
_COPY = re.compile(r"-\d+\Z")
_BITS = 31  # what servers take: vLLM wants a C long, others a signed 32-bit integer


def record_seed(seed: int, record_id: str, attempt: int) -> int:
    """Returns the seed of an attempt (1, 2 …) at a record, in [0, 2^31); copies have the same."""
    content = f"{seed}:{_COPY.sub('', record_id)}"
    return (xxhash.xxh3_64_intdigest(content.encode()) + attempt - 1) % (1 << _BITS)
