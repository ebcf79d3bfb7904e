"""Byte ranges of one `.bin` are laid one after another in another file, by several threads.

Neighbouring ranges are one run. Where every run of the target lies is known beforehand, so each
piece of it is written at its own place: long runs by the kernel alone (copy_file_range), short ones
gathered into a buffer first. No order among the pieces is kept, so the target is not to be trusted
before all is written: callers give it its name afterwards (mira_megatron.atomic_files.replacing).

Memory: 4 MiB per thread and as much again of the map, and 48 bytes per range while runs are worked
out.
Standard library and numpy only, so that a training container can use this.

Shape letters: R ranges, U runs, B batches of runs.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event

import numpy as np
import numpy.typing as npt

WORKERS = 2
_BATCH_BYTES = 2 << 20  # gathered for one write; a run that is longer is cut into pieces of it
# From here on the kernel's own copying beat read and write: 3.1 against 1.3 GB/s of long runs,
# 1.1 against 2.0 of 8 kB (benchmarks/selection_copy.py's data, ext4).
_IN_KERNEL_BYTES = 1 << 20
# What copy_file_range says where two file systems, or one of them, cannot do it.
_CANNOT_IN_KERNEL = (
    *(errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Ranges of a file to be laid one after another, neighbours joined and long ones cut."""

    starts_U: npt.NDArray[np.int64]  # bytes into the source
    sizes_U: npt.NDArray[np.int64]
    places_U: npt.NDArray[np.int64]  # bytes from where the first one is laid
    batches_B: npt.NDArray[np.int64]  # numbers of the runs with which batches begin, and U

    @property
    def num_bytes(self) -> int:
        """Returns the bytes of all runs together."""
        return int(self.sizes_U.sum())


def runs_of(starts_R: npt.NDArray[np.int64], sizes_R: npt.NDArray[np.int64]) -> Runs:
    """Returns ranges as runs: the same bytes in the same order, in batches of about 2 MiB."""
    if not (is_filled := sizes_R > 0).all():
        starts_R, sizes_R = starts_R[is_filled], sizes_R[is_filled]
    begins = np.ones(len(starts_R), dtype=bool)
    begins[1:] = starts_R[1:] != starts_R[:-1] + sizes_R[:-1]
    firsts = np.flatnonzero(begins)
    starts = starts_R[firsts]
    sizes = np.add.reduceat(sizes_R, firsts) if len(firsts) else sizes_R
    starts, sizes = _cut(starts, sizes)
    places = np.cumsum(sizes) - sizes
    numbers = places // _BATCH_BYTES
    batches = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1)) if len(sizes) else [0]
    return Runs(
        starts_U=starts, sizes_U=sizes, places_U=places, batches_B=np.asarray(batches, np.int64)
    )


def copy_runs(
    source: Path, runs: Runs, target: Path, *, at: int = 0, workers: int = WORKERS
) -> int:
    """Writes the runs of `source` into `target` from byte `at` on, and returns how many bytes.

    The target is made where it is missing, and nothing of it outside these bytes is touched. Raises
    ValueError for a source that ends before the last byte asked for.
    """
    with ExitStack() as files:
        write_to = _opened(files, target, os.O_WRONLY | os.O_CREAT)
        if not len(runs.starts_U):  # then there need not be a source
            return 0
        read_from = _opened(files, source, os.O_RDONLY)
        mapped = _mapped(source, read_from, runs)

        def copy(batch: slice) -> None:
            place = at + int(runs.places_U[batch.start])
            start, size = int(runs.starts_U[batch.start]), int(runs.sizes_U[batch.start])
            is_long = batch.stop - batch.start == 1 and size >= _IN_KERNEL_BYTES
            if not (is_long and _copied_in_kernel(read_from, start, size, write_to, place)):
                content = _gathered(mapped, runs, batch)
                size = len(content)
                write_at(write_to, content, place)
            _start_flushing(write_to, place, size)

        _in_threads(copy, runs, workers)
    return runs.num_bytes


def has_runs(
    source: Path, runs: Runs, target: Path, *, at: int = 0, workers: int = WORKERS
) -> bool:
    """Returns whether `target` holds from byte `at` on what `copy_runs` would write there."""
    if target.stat().st_size < at + runs.num_bytes:
        return False
    if not len(runs.starts_U):
        return True
    differences: list[int] = []
    with ExitStack() as files:
        mapped = _mapped(source, _opened(files, source, os.O_RDONLY), runs)
        compare_to = _opened(files, target, os.O_RDONLY)

        def compare(batch: slice) -> None:
            if not differences:
                expected = _gathered(mapped, runs, batch)
                place = at + int(runs.places_U[batch.start])
                if os.pread(compare_to, len(expected), place) != expected:
                    differences.append(place)

        _in_threads(compare, runs, workers)
    return not differences


def write_at(descriptor: int, content: bytes | memoryview, place: int) -> None:
    """Writes all bytes from a place of a file on."""
    while content:
        num_written = os.pwrite(descriptor, content, place)
        content, place = content[num_written:], place + num_written


def check_writable(folder: Path) -> None:
    """Makes a folder and raises OSError, naming it, unless a file can be written there.

    Asked before long work. Trying tells more than permissions do: of read-only mounts, and of
    network file systems that decide for themselves.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder}: cannot be written to ({error.strerror}). Nothing was made; name an output "
            "in a folder that can be",
        ) from error


def _cut(
    starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns runs of at most _BATCH_BYTES."""
    num_pieces = -(-sizes // _BATCH_BYTES)
    if (num_pieces <= 1).all():
        return starts, sizes
    firsts = np.cumsum(num_pieces) - num_pieces
    offsets = np.arange(num_pieces.sum()) - np.repeat(firsts, num_pieces)
    offsets *= _BATCH_BYTES
    left = np.repeat(sizes, num_pieces) - offsets
    return np.repeat(starts, num_pieces) + offsets, np.minimum(left, _BATCH_BYTES)


def _opened(files: ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags, 0o666)
    files.callback(os.close, descriptor)
    return descriptor


def _in_threads(work: Callable[[slice], None], runs: Runs, workers: int) -> None:
    """Calls `work` with every batch; an error in one thread ends them all."""
    num_batches = len(runs.batches_B) - 1
    num_threads = max(1, min(workers, num_batches))
    has_failed = Event()

    def every(number: int) -> None:
        for batch in range(number, num_batches, num_threads):
            if has_failed.is_set():
                return
            try:
                work(slice(*runs.batches_B[batch : batch + 2].tolist()))
            except BaseException:
                has_failed.set()
                raise

    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(every, range(num_threads)):
            pass


def _mapped(source: Path, descriptor: int, runs: Runs) -> mmap.mmap:
    size_bytes, end = os.fstat(descriptor).st_size, int((runs.starts_U + runs.sizes_U).max())
    if end > size_bytes:
        # Beyond its end a map has nothing to read, and would end the process instead of saying so.
        raise ValueError(
            f"{source}: ends at byte {size_bytes:,}, but documents up to byte {end:,} are to be "
            "copied. Did it become shorter?"
        )
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def _gathered(mapped: mmap.mmap, runs: Runs, batch: slice) -> bytes:
    """Returns a batch's bytes."""
    starts = runs.starts_U[batch]
    ends = starts + runs.sizes_U[batch]
    whole = memoryview(mapped)
    # One join of slices: 1.4 times as fast as a pread per run, of runs of 4 kB.
    content = b"".join(
        [whole[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    )
    if hasattr(mmap, "MADV_DONTNEED"):  # what was read would count as this process's memory
        first = int(starts.min()) // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_DONTNEED, first, int(ends.max()) - first)
    return content


def _start_flushing(descriptor: int, place: int, size: int) -> None:
    """Has the disk begin with what was written, so that a flush at the end finds little to do.

    Linux starts writing dirty pages out when it is told that nobody needs them; what is not yet
    written stays in memory. A third off the whole copy (1.0 to 0.66 s of a gigabyte, ext4).
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, place, size, os.POSIX_FADV_DONTNEED)


def _copied_in_kernel(read_from: int, start: int, size: int, write_to: int, place: int) -> bool:
    """Returns whether the kernel copied it; where it cannot, nothing is lost by writing it all."""
    done = 0
    while done < size:
        try:
            num_copied = os.copy_file_range(
                read_from, write_to, size - done, start + done, place + done
            )
        except OSError as error:
            if error.errno in _CANNOT_IN_KERNEL:
                return False
            raise
        if not num_copied:  # some file systems say so instead of an error
            return False
        done += num_copied
    return True
