"""Shards laid one after another into one `.bin`, while later ones are still being encoded.

    <file>          the ids of all shards, each laid where those before it end
    <shard>.json    the caller's report, the shard's place, and the digests of its bytes there and
                    of the files beside it: written when it is laid

A shard's place is known as soon as those before it are encoded; laying is then a write of its own,
beside the others. Nothing is flushed to the disk before all is laid: whoever goes on after a kill
or a power failure keeps the shards whose bytes have their digests, up to the first that has not.

Memory: the ids of three shards per worker at most.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, cast

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from mira_megatron.atomic_files import explaining_full_disk, replacing, write_json
from mira_megatron.shards import file_digest, json_digest
from mira_megatron.tokenization.copying import copy_runs, runs_of, write_at
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    one_sequence_per_document,
    write_index,
)
from mira_megatron.tokenization.token_shards import (
    IDS,
    WRITING_SHARDS,
    EncodedShard,
    Report,
    beside,
    bytes_of,
)

_READ_BYTES = 4 << 20


class ShardJoiner(Generic[Report]):
    """A context manager that lays the shards of one file, in order.

    `reports` are those of the shards that are laid: at first, by an earlier run. The caller goes on
    with the shard after them.
    """

    def __init__(
        self, file: Path, shards: Sequence[Path], report: type[Report], *, workers: int
    ) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._num_shards = len(shards)
        self._descriptor = _opened(file)
        self._pool = ThreadPoolExecutor(workers)
        self._most_waiting = workers
        self._laying: deque[Future[None]] = deque()
        kept = self._kept(shards, report)
        self.reports: list[Report] = [report(**shard["report"]) for shard in kept]
        self._end = sum(shard["num_bytes"] for shard in kept)

    def __enter__(self) -> ShardJoiner[Report]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        os.close(self._descriptor)

    def add(self, shard: EncodedShard[Report]) -> None:
        """Has the next shard laid, and waits while too many are."""
        self._laying.append(self._pool.submit(self._lay, shard, self._end))
        self.reports.append(shard.report)
        self._end += shard.num_bytes
        while len(self._laying) > self._most_waiting:
            self._laying.popleft().result()

    def finish(
        self,
        path_prefix: Path,
        num_tokens_D: npt.NDArray[np.int64],
        dtype: np.dtype[np.number],
    ) -> None:
        """Gives the file its name, the `.bin` of a prefix, and writes the `.idx`, last."""
        while self._laying:
            self._laying.popleft().result()
        num_bytes = int(num_tokens_D.sum()) * dtype.itemsize
        if self._end != num_bytes:
            raise ValueError(
                f"{self._file}: {self._end:,} bytes of shards, but their documents need "
                f"{num_bytes:,}. Delete {self._file.parent} and run again."
            )
        os.ftruncate(self._descriptor, self._end)  # another run's may be longer
        self._flush()
        self._give_name(bin_path(path_prefix))
        write_index(idx_path(path_prefix), one_sequence_per_document(num_tokens_D, dtype))

    def _flush(self) -> None:
        try:
            with explaining_full_disk(self._file, WRITING_SHARDS):
                os.fsync(self._descriptor)
        except OSError:
            # What could not be flushed once is never told again: it must not be read from memory
            # by a later run, and taken for what lies on the disk.
            self._file.unlink(missing_ok=True)
            raise

    def _give_name(self, path: Path) -> None:
        if path.exists() and path.samefile(self._file):  # by a run that was killed after this
            return  # a rename of one name of a file to another would leave both
        with replacing(path) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(self._file, temporary)
            except OSError:  # no hard links here: a run that is killed from now on begins anew
                os.replace(self._file, temporary)

    def _lay(self, shard: EncodedShard[Report], start: int) -> None:
        with explaining_full_disk(self._file, WRITING_SHARDS):
            if shard.ids is None:
                self._lay_file(beside(shard.path, IDS), shard.num_bytes, start)
            else:
                place = start
                for ids in shard.ids:
                    write_at(self._descriptor, bytes_of(ids), place)
                    place += ids.nbytes
        content = {
            "start": start,
            "num_bytes": shard.num_bytes,
            "digests": shard.digests,
            "report": dataclasses.asdict(cast(Any, shard.report)),
        }
        checked = {"shard": content, "digest": json_digest(content)}
        write_json(beside(shard.path, "json"), checked, is_flushed=False)

    def _lay_file(self, spilled: Path, num_bytes: int, start: int) -> None:
        if self._num_shards > 1:
            whole = runs_of(np.zeros(1, np.int64), np.array([num_bytes], np.int64))
            copy_runs(spilled, whole, self._file, at=start, workers=1)
            spilled.unlink()
            return
        os.replace(spilled, self._file)  # one large archive need not be written twice

    def _kept(self, shards: Sequence[Path], report: type[Report]) -> list[dict[str, Any]]:
        """Returns what an earlier run says of the first shards, up to one that is not whole."""
        kept: list[dict[str, Any]] = []
        end = 0
        for shard in shards:
            content = _read_checked(beside(shard, "json"))
            if content.get("start") != end or not _is_report(content["report"], report):
                break
            kept.append(content)
            end += content["num_bytes"]
        is_whole = self._pool.map(self._is_whole, shards, kept)
        both = zip(kept, is_whole, strict=True)
        return [content for content, _ in takewhile(lambda shard: shard[1], both)]

    def _is_whole(self, shard: Path, content: dict[str, Any]) -> bool:
        """Returns whether all bytes of a shard are those that were written."""
        for suffix, expected in content["digests"].items():
            if suffix == IDS:
                found = self._digest(content["start"], content["num_bytes"])
            else:
                path = beside(shard, suffix)
                found = file_digest(path) if path.is_file() else "none"
            if found != expected:
                return False
        return True

    def _digest(self, start: int, num_bytes: int) -> str:
        digest = xxhash.xxh3_128()
        end = start + num_bytes
        while start < end and (
            block := os.pread(self._descriptor, min(_READ_BYTES, end - start), start)
        ):
            digest.update(block)
            start += len(block)
        return digest.hexdigest()


def _opened(file: Path) -> int:
    """Returns a descriptor of the file, which has no other name: what has one is never changed."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    if os.fstat(descriptor).st_nlink == 1:
        return descriptor
    # The output of a run that was killed before its end, wherever it lies by now.
    os.close(descriptor)
    with replacing(file, is_flushed=False) as temporary:
        shutil.copyfile(file, temporary)
    return os.open(file, os.O_RDWR)


def _is_report(content: dict[str, Any], report: type[Any]) -> bool:
    """Returns whether this version of the code would write such a report."""
    return content.keys() == {each.name for each in dataclasses.fields(report)}


def _read_checked(path: Path) -> dict[str, Any]:
    """Returns what a file says of its shard; nothing if it is missing, or damaged."""
    try:
        content = orjson.loads(path.read_bytes())
        shard: dict[str, Any] = content["shard"]
        return shard if json_digest(shard) == content["digest"] else {}
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return {}
