"""Parquet parts, digests, and work spread over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mira_megatron.atomic_files import write_bytes
from mira_megatron.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")

_READ_BYTES = 1 << 20
_MAX_PARTS = 100_000


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes one zstd parquet part atomically."""
    # Through memory: Arrow's own file writer aborts the process when the disk is full.
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd")
    write_bytes(path, memoryview(content.getvalue()))


def read_part(path: Path, digest: str, columns: Sequence[str]) -> pa.Table:
    """Returns columns of a parquet part after checking that its bytes are those of its manifest.

    Raises ValueError naming the part when they are not.
    """
    return pq.read_table(pa.BufferReader(part_bytes(path, digest)), columns=list(columns))


def part_bytes(path: Path, digest: str) -> pa.Buffer:
    """Returns a part's bytes, checked as `read_part` does, in memory that Arrow owns.

    A thread of Arrow's that lets go of memory owned by Python while the process ends aborts it.
    """
    content = pa.allocate_buffer(path.stat().st_size)
    view = memoryview(content)
    with path.open("rb", buffering=0) as file:
        while num_bytes := file.readinto(view):
            view = view[num_bytes:]
    if len(view):
        raise OSError(f"{path}: became shorter while it was read")
    found = xxhash.xxh3_128_hexdigest(content)
    if found != digest:
        raise changed_part(path, found, digest)
    return content


def open_part(path: Path, digest: str) -> pq.ParquetFile:
    """Returns a parquet part to be read piece by piece, checked as `read_part` does."""
    return pq.ParquetFile(pa.BufferReader(part_bytes(path, digest)), pre_buffer=False)


def changed_part(path: Path, found: str, expected: str) -> ValueError:
    """Returns the error for a part whose bytes are not those of its manifest."""
    return ValueError(
        f"{path}: this part's bytes changed since its manifest was written (digest {found}, "
        f"expected {expected}). Restore the file, or delete {path.parent} to have it recomputed."
    )


def with_columns(table: pa.Table, columns: Mapping[str, pa.Array], schema: pa.Schema) -> pa.Table:
    """Returns a table of `schema`, its columns taken from `columns` or else from `table`."""
    arrays = [columns[name] if name in columns else table[name] for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)


def file_digest(path: Path) -> str:
    """Returns xxh3_128 of the file's bytes, 32 hex digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def json_digest(content: object) -> str:
    """Returns xxh3_128 of the canonical JSON of `content`, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(canonical_json(content))


def canonical_json(content: object) -> bytes:
    """Returns the one JSON of `content`: no blanks, keys of objects in order."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def part_name(index: int, suffix: str = "parquet") -> str:
    """Returns the name of part `index`; names sort in order, so there is an end to them."""
    if index >= _MAX_PARTS:
        raise ValueError(f"more than {_MAX_PARTS:,} parts: raise ingest.records_per_part")
    return f"part-{index:05d}.{suffix}"


def map_shards(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int,
    title: str,
    in_threads: bool = False,
) -> Iterator[Result]:
    """Yields `function(task)` for every task, in order, computed by `workers` processes or threads.

    At most two tasks per worker are in flight, so memory does not grow with the number of tasks.
    With one worker or one task everything runs in this process.
    """
    with track(title, len(tasks)) as advance:
        if workers <= 1 or len(tasks) <= 1:
            for task in tasks:
                yield function(task)
                advance()
            return
        with _pool(min(workers, len(tasks)), in_threads) as pool:
            remaining = iter(tasks)
            waiting: list[Future[Result]] = [
                pool.submit(function, task) for task in islice(remaining, 2 * workers)
            ]
            try:
                while waiting:
                    yield waiting.pop(0).result()
                    advance()
                    waiting.extend(pool.submit(function, task) for task in islice(remaining, 1))
            finally:
                pool.shutdown(cancel_futures=True)


def _pool(workers: int, in_threads: bool) -> Executor:
    if in_threads:
        return ThreadPoolExecutor(workers)
    # forkserver: the parent may hold threads (Arrow, torch), which fork does not survive.
    return ProcessPoolExecutor(workers, get_context("forkserver"), _end_with_parent)


def _end_with_parent() -> None:
    """Makes a worker process end when the process that started it is killed."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
