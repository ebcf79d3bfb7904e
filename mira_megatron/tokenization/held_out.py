"""The documents no arm ever trains on, chosen by what they say and by nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def choose_held_out(
    text_hashes: pa.Array, num_tokens: npt.NDArray[np.int64], *, fraction: float, max_tokens: int
) -> npt.NDArray[np.bool_]:
    """Returns which documents of one source are held out, True = validation.

    Texts are taken in the order of their hash (16 bytes, big-endian) while the hash lies in the
    lowest `fraction` of the hash space; a text that would lift the sum above `max_tokens` is passed
    over. Of equal texts the first stands for all (selection keeps its duplicates out of training,
    in every source). At least one document is held out: failing all, the first by hash that fits,
    or else the shortest.
    """
    is_held_out = np.zeros(len(num_tokens), dtype=bool)
    if not len(num_tokens):
        return is_held_out
    hashes_D2 = np.frombuffer(b"".join(text_hashes.to_pylist()), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((np.arange(len(num_tokens)), hashes_D2[:, 1], hashes_D2[:, 0]))
    ordered = hashes_D2[order]
    is_first = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    distinct = order[is_first]
    candidates = distinct[hashes_D2[distinct, 0] < np.uint64(int(fraction * 2**64))]
    total = 0
    for document in candidates.tolist():
        if total + num_tokens[document] <= max_tokens:
            is_held_out[document] = True
            total += int(num_tokens[document])
    if not total:
        fitting = distinct[num_tokens[distinct] <= max_tokens]
        shortest = distinct[np.argmin(num_tokens[distinct])]
        is_held_out[fitting[0] if len(fitting) else shortest] = True
    return is_held_out
