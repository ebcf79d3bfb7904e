"""Where answers lie: sorted files of keys, mapped into memory, searched by halving.

`keys-<first>-<last>.npy` has one row for every question that the segments of those numbers were
the first to answer: key (16 bytes), number of the segment, row in it. Keys are distinct over all
files, so that of two answers to one question the first stands. Neighbours of about one size are
merged, so that there are few files, and no key is rewritten more often than there are. A file is
made again from the segments where it is missing, or one of its segments is. Only the pages of a
file that a search touches are read.

Shapes: K keys asked for, N keys of a file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mira_megatron.atomic_files import replacing
from mira_megatron.scoring.stored_answer import KEY_BYTES

logger = logging.getLogger(__name__)

# numpy leaves out NUL bytes at the end of such a key when it is shown, not when it is compared.
KEY_DTYPE = np.dtype(f"S{KEY_BYTES}")
PLACE_DTYPE = np.dtype([("segment", "<u4"), ("row", "<u4")])
ROW_DTYPE = np.dtype([("key", KEY_DTYPE), ("place", PLACE_DTYPE)])
NOWHERE = 0  # numbers of segments begin at 1
_NAME = re.compile(r"keys-([0-9]{8})-([0-9]{8})\.npy")
_CHUNK_ROWS = 1 << 18  # 6 MiB: what of a file is in memory while it is merged


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The keys of the segments `first` to `last`, mapped into memory."""

    path: Path
    first: int
    last: int
    rows_N: np.ndarray  # of ROW_DTYPE, by key

    def holds(self, other: KeyFile) -> bool:
        """Returns whether all of the other's segments are among this one's."""
        return self.first <= other.first and other.last <= self.last

    def find(self, keys_K: np.ndarray) -> np.ndarray:
        """Returns the place of each key; its segment is NOWHERE for keys that are not here."""
        places_K = np.zeros(len(keys_K), PLACE_DTYPE)
        if not len(self.rows_N):
            return places_K
        at_K = np.searchsorted(self.rows_N["key"], keys_K)
        at_K[at_K == len(self.rows_N)] = 0
        found_K = self.rows_N[at_K]
        is_here_K = found_K["key"] == keys_K
        places_K[is_here_K] = found_K["place"][is_here_K]
        return places_K


class KeyFiles:
    """All key files of a folder of segments."""

    def __init__(self, files: Iterable[KeyFile] = ()) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return sum(len(file.rows_N) for file in self.files)

    def find(self, keys_K: np.ndarray) -> np.ndarray:
        """Returns the place of each key; its segment is NOWHERE for keys that are not there."""
        places_K = np.zeros(len(keys_K), PLACE_DTYPE)
        for file in self.files:
            is_left_K = places_K["segment"] == NOWHERE
            places_K[is_left_K] = file.find(keys_K[is_left_K])
        return places_K


def open_key_files(
    folder: Path, segments: Collection[int], keys_of: Callable[[int], np.ndarray]
) -> KeyFiles:
    """Returns the key files of a folder, of which those that are missing are made.

    `keys_of` gives the keys of a segment, row by row. The caller holds the folder's lock.
    """
    found = [file for path in folder.glob("keys-*.npy") if (file := _opened(path)) is not None]
    found.sort(key=lambda file: (file.first, -file.last))
    files: list[KeyFile] = []
    for file in found:
        is_merged = files and files[-1].holds(file)  # a merge was killed before it removed it
        if is_merged or any(number not in segments for number in range(file.first, file.last + 1)):
            file.path.unlink()
        else:
            files.append(file)
    for number in sorted(segments):
        if not any(file.first <= number <= file.last for file in files):
            files.append(_made(folder, number, KeyFiles(files), keys_of(number)))
    files.sort(key=lambda file: file.first)
    at = len(files) - 1
    while at > 0:
        before, after = files[at - 1 : at + 1]
        is_large = len(before.rows_N) > 2 * len(after.rows_N)
        if not is_large and before.last + 1 == after.first:
            files[at - 1 : at + 1] = [_merged(folder, before, after)]
            at = len(files)
        at -= 1
    return KeyFiles(files)


def last_number(folder: Path) -> int:
    """Returns the greatest number of a segment that a key file names, 0 without any."""
    names = (_NAME.fullmatch(path.name) for path in folder.glob("keys-*.npy"))
    return max((int(name[2]) for name in names if name), default=0)


def _opened(path: Path) -> KeyFile | None:
    """Returns a key file, or None after removing one that is damaged."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        return None
    try:
        rows_N = np.load(path, mmap_mode="r") if path.stat().st_size else np.zeros(0)
        if rows_N.dtype != ROW_DTYPE or rows_N.ndim != 1:
            raise ValueError(f"holds {rows_N.dtype}")
    except (ValueError, EOFError) as error:
        logger.warning("%s: damaged (%s), made again from the segments", path, error)
        path.unlink()
        return None
    return KeyFile(path, int(name[1]), int(name[2]), rows_N)


def _made(folder: Path, number: int, others: KeyFiles, keys_N: np.ndarray) -> KeyFile:
    """Returns the key file of one segment, written."""
    order_N = np.argsort(keys_N, kind="stable")
    sorted_N = keys_N[order_N]
    is_first_N = np.ones(len(keys_N), bool)
    is_first_N[1:] = sorted_N[1:] != sorted_N[:-1]
    is_first_N &= others.find(sorted_N)["segment"] == NOWHERE
    rows_N = np.zeros(int(is_first_N.sum()), ROW_DTYPE)
    rows_N["key"] = sorted_N[is_first_N]
    rows_N["place"]["segment"] = number
    rows_N["place"]["row"] = order_N[is_first_N]
    return _written(folder, number, number, len(rows_N), [rows_N])


def _merged(folder: Path, before: KeyFile, after: KeyFile) -> KeyFile:
    """Returns one key file in place of two."""
    large, small = sorted((before.rows_N, after.rows_N), key=len, reverse=True)
    num_rows = len(large) + len(small)
    merged = _written(folder, before.first, after.last, num_rows, _merged_rows(large, small))
    before.path.unlink()
    after.path.unlink()
    return merged


def _merged_rows(large: np.ndarray, small: np.ndarray) -> Iterable[np.ndarray]:
    """Yields the rows of two sorted arrays, sorted; what is in memory at once is a chunk of each.

    Keys are digests: between two of the one array lie about as many of the other as anywhere.
    """
    start_small = 0
    for start in range(0, len(large), _CHUNK_ROWS):
        chunk = large[start : start + _CHUNK_ROWS]
        is_last = start + _CHUNK_ROWS >= len(large)
        end = len(small) if is_last else int(np.searchsorted(small["key"], chunk["key"][-1:])[0])
        rows = np.concatenate([chunk, small[start_small:end]])
        start_small = end
        yield rows[np.argsort(rows["key"], kind="stable")]


def _written(
    folder: Path, first: int, last: int, num_rows: int, chunks: Iterable[np.ndarray]
) -> KeyFile:
    path = folder / f"keys-{first:08d}-{last:08d}.npy"
    header = {"descr": ROW_DTYPE.descr, "fortran_order": False, "shape": (num_rows,)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows in chunks:
            file.write(rows.tobytes())
    written = _opened(path)
    assert written is not None, path
    return written
