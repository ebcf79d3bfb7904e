"""What orders documents of equal score: a hash of seed and id, the same in any source order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

TIE_RULE = "xxh3_64(seed:record_id), lowest first"
_IDS_AT_ONCE = 100_000


def tie_values(
    record_ids: pa.ChunkedArray, seed: int, positions: npt.NDArray[np.intp] | None = None
) -> npt.NDArray[np.uint64]:
    """Returns the tie values of the records at these positions, ascending; None: of all."""
    if positions is None:
        positions = np.arange(len(record_ids))
    values = np.empty(len(positions), dtype=np.uint64)
    chunk_start, done = 0, 0
    for chunk in record_ids.chunks:
        end = int(np.searchsorted(positions, chunk_start + len(chunk)))
        # In slices: as Python objects all ids of a large corpus would fill the memory.
        for start in range(done, end, _IDS_AT_ONCE):
            stop = min(start + _IDS_AT_ONCE, end)
            ids = chunk.take(pa.array(positions[start:stop] - chunk_start))
            values[start:stop] = _hashed(ids, seed)
        chunk_start, done = chunk_start + len(chunk), end
    return values


def _hashed(record_ids: pa.Array, seed: int) -> list[int]:
    prefix = f"{seed}:".encode()
    digest = xxhash.xxh3_64_intdigest
    return [digest(prefix + name) for name in record_ids.cast(pa.large_binary()).to_pylist()]
