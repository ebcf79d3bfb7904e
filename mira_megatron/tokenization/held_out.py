"""The documents no arm ever trains on, chosen by what they say and by nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def choose_held_out(
    text_hashes: pa.FixedSizeBinaryArray,
    num_tokens: npt.NDArray[np.int64],
    *,
    fraction: float,
    max_tokens: int,
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
    hashes_D2 = _hashes(text_hashes)
    # Only what lies low is put in order: of thirty million documents, some hundred thousand.
    low = np.flatnonzero(hashes_D2[:, 0] < np.uint64(int(fraction * 2**64)))
    total = 0
    for document in _distinct_in_order(hashes_D2, low).tolist():
        if total + num_tokens[document] <= max_tokens:
            is_held_out[document] = True
            total += int(num_tokens[document])
    if not total:
        distinct = _distinct_in_order(hashes_D2, np.arange(len(num_tokens)))
        fitting = distinct[num_tokens[distinct] <= max_tokens]
        shortest = distinct[np.argmin(num_tokens[distinct])]
        is_held_out[fitting[0] if len(fitting) else shortest] = True
    return is_held_out


def _hashes(text_hashes: pa.FixedSizeBinaryArray) -> npt.NDArray[np.uint64]:
    """Returns the hashes, as two numbers each, read where they lie."""
    first = 16 * text_hashes.offset
    content = np.frombuffer(text_hashes.buffers()[1], np.uint8)
    return content[first : first + 16 * len(text_hashes)].view(">u8").reshape(-1, 2)


def _distinct_in_order(
    hashes_D2: npt.NDArray[np.uint64], documents: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Returns those of `documents`, which rise, in the order of their hashes, the first of each."""
    hashes = hashes_D2[documents]
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal hashes stay in order
    ordered = hashes[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first: npt.NDArray[np.int64] = documents[order[is_first]]
    return first
