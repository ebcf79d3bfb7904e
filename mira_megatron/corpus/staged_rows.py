"""Which staged rows of a source become records: duplicates, the sample, degraded copies.

Shape letters: R staged rows, in the order of files and rows; a copy stands behind its parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptRows:
    """What becomes of every staged row."""

    ordinals_R: npt.NDArray[np.int64]  # how many equal rows came before
    is_kept_R: npt.NDArray[np.bool_]
    num_copies: int = 0  # degraded ones that are kept
    dropped: Mapping[str, int] = field(default_factory=dict)


def kept_rows(staged: Sequence[Path], max_records: int | None, *, with_copies: bool) -> KeptRows:
    """Returns per staged row how many equal ones came before it, and whether it is kept.

    The sample is the `max_records` rows with the smallest content hash: it does not depend on file
    order, and a growing source changes it as little as possible. Degraded copies are no part of it:
    one is kept where its parent is, and where its content is neither that of a row of the source
    nor of a copy before it. So the other rows' ordinals are as they were without copies.
    """
    columns = [_columns(path, with_copies=with_copies) for path in staged]
    hashes_R2 = np.concatenate([np.empty((0, 2), np.uint64), *(hashes for hashes, _ in columns)])
    is_copy_R = np.concatenate([np.empty(0, bool), *(is_copy for _, is_copy in columns)])
    rows = np.flatnonzero(~is_copy_R)
    order, counted = _runs(hashes_R2[rows])
    ordinals_R = np.zeros(len(is_copy_R), np.int64)
    ordinals_R[rows[order]] = counted
    is_kept_R = np.zeros(len(is_copy_R), bool)
    is_kept_R[rows[order[:max_records]]] = True
    dropped = {"not_sampled": int((~is_kept_R[rows]).sum())}
    copies = np.flatnonzero(is_copy_R)
    parents = rows[np.searchsorted(rows, copies) - 1]
    of_kept = copies[is_kept_R[parents]]
    new = _new(hashes_R2, rows, of_kept)
    is_kept_R[new] = True
    dropped["copy_not_sampled"] = len(copies) - len(of_kept)
    dropped["copy_not_new"] = len(of_kept) - len(new)
    return KeptRows(
        ordinals_R=ordinals_R,
        is_kept_R=is_kept_R,
        num_copies=len(new),
        dropped={reason: num for reason, num in dropped.items() if num},
    )


def _columns(
    path: Path, *, with_copies: bool
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Returns the content hashes of a staged part as two numbers each, and which are copies'."""
    table = pq.read_table(path, columns=["content_hash", *(["is_copy"] if with_copies else [])])
    hex_digits = "".join(table["content_hash"].to_pylist())
    hashes = np.frombuffer(bytes.fromhex(hex_digits), dtype=">u8").reshape(-1, 2)
    is_copy = table["is_copy"].to_numpy() if with_copies else np.zeros(table.num_rows, bool)
    return hashes, is_copy


def _runs(hashes: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the order by hash, equal ones as they stood, and there the number in each run."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    positions = np.arange(len(order))
    return order, positions - np.maximum.accumulate(np.where(is_first, positions, 0))


def _new(
    hashes_R2: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.int64],
    copies: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Returns those copies whose hash no row has, and no copy before."""
    both = np.concatenate([rows, copies])
    order, counted = _runs(hashes_R2[both])
    first = both[order[counted == 0]]
    new: npt.NDArray[np.int64] = np.sort(first[np.isin(first, copies)])
    return new
