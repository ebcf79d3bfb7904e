"""Answers that no process writes any more: parquet files that never change, and keys to find them.

Under a folder of answers:

    <uuid>-<number>.jsonl                  a journal, see answer_journal
    segments/<number>-<journal>.parquet    the answers of one journal, see segment_files
    segments/keys-<first>-<last>.npy       where keys lie, see key_files

A journal whose writer is gone becomes a segment when the folder is opened next; an earlier
version's files are such journals. Memory is that of a few row groups.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.atomic_files import is_temporary
from mira_megatron.scoring.answer_journal import SUFFIX
from mira_megatron.scoring.key_files import KEY_DTYPE, NOWHERE, KeyFiles, open_key_files
from mira_megatron.scoring.segment_files import (
    CHARGED,
    COUNTS,
    JSON_FIELDS,
    make_segment,
    make_segment_of_left,
    segment_files,
    segment_number,
    segments_folder,
    segments_lock,
)
from mira_megatron.scoring.stored_answer import Charged, StoredAnswer, stored_from

Value = TypeVar("Value")

_GROUPS_IN_MEMORY = 8
_FILES_OPEN = 8


@dataclass(frozen=True, slots=True)
class Found:
    """What lay in a folder of answers."""

    segments: Mapping[int, Path]  # by number
    keys: KeyFiles


class AnswerSegments:
    """The answers of a folder that lie in segments, after taking in journals that were left.

    Raises ValueError with file and line for a journal that is damaged elsewhere than at its end,
    with the file for a damaged segment; OSError with the way out when the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._segments: Mapping[int, Path] = {}
        self._keys = KeyFiles()
        self._by_model: dict[int, Mapping[str, Charged]] = {}  # of a segment, as far as asked
        self._charged: dict[str, Charged] = {}  # of all segments, as far as asked
        self._files: OrderedDict[int, _Segment] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        journals = sorted(folder.glob(f"*{SUFFIX}"))
        if journals or segments_folder(folder).is_dir():
            with segments_lock(folder):
                for journal in journals:
                    make_segment_of_left(journal)
                self.use(_found_in(folder))

    def __len__(self) -> int:
        return len(self._keys)

    def use(self, found: Found) -> None:
        """Goes by what was found in the folder now."""
        self._segments, self._keys = found.segments, found.keys
        self._charged = {}

    def charged(self, model: str) -> Charged:
        """Returns what the segments charge for a model; no answer is read for it."""
        if model not in self._charged:
            total = Charged()
            for number, path in self._segments.items():
                if number not in self._by_model:
                    self._by_model[number] = _charged_by_model(path)
                total += self._by_model[number].get(model, Charged())
            self._charged[model] = total
        return self._charged[model]

    def has(self, keys_K: np.ndarray) -> np.ndarray:
        """Returns for each key (KEY_DTYPE) whether its answer is in a segment."""
        if not self._segments:
            return np.zeros(len(keys_K), bool)
        is_here_K: np.ndarray = self._keys.find(keys_K)["segment"] != NOWHERE
        return is_here_K

    def get(self, keys_K: np.ndarray) -> Iterator[tuple[int, StoredAnswer]]:
        """Yields the answers to questions with their place among `keys_K`, group by group."""
        places_K = self._keys.find(keys_K)
        found_F = np.flatnonzero(places_K["segment"] != NOWHERE)
        found_F = found_F[np.argsort(places_K["segment"][found_F], kind="stable")]
        asked: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for index in found_F.tolist():
            number, row = places_K[index].tolist()
            starts = self._segment(number).starts
            group = bisect_right(starts, row) - 1
            asked[number, group].append((index, row - starts[group]))
        for (number, group), rows in asked.items():
            contents = self._contents(number, group, [row for _, row in rows])
            for (index, row), content in zip(rows, contents, strict=True):
                if content["key"] != keys_K[index : index + 1].tobytes():
                    raise ValueError(
                        f"{self._segments[number]}: row {row} of group {group} answers another "
                        "question than the keys-*.npy beside it say. Delete those: they are made "
                        "again."
                    )
                yield index, _stored(content)

    def _contents(self, number: int, group: int, rows: list[int]) -> list[dict[str, Any]]:
        """Returns rows of a group; the few groups that were used last are kept."""
        with _naming_damaged(self._segments[number]):
            table = _kept(
                self._groups,
                (number, group),
                _GROUPS_IN_MEMORY,
                lambda: self._segment(number).file.read_row_group(group, use_threads=False),
            )
            return cast("list[dict[str, Any]]", table.take(rows).to_pylist())

    def _segment(self, number: int) -> _Segment:
        with _naming_damaged(self._segments[number]):
            return _kept(
                self._files, number, _FILES_OPEN, lambda: _Segment.opened(self._segments[number])
            )


def take_in(journal: Path) -> Found:
    """Makes a segment of a journal of this process; returns what lies there then.

    Raises as AnswerSegments does. May run in a thread beside the use of AnswerSegments.
    """
    with segments_lock(journal.parent):
        with journal.open("rb") as file:
            make_segment(journal, file, is_own=True)
        return _found_in(journal.parent)


def _found_in(folder: Path) -> Found:
    """Returns what lies in a folder, of which the caller holds the lock; clears up after kills."""
    within = segments_folder(folder)
    if not within.is_dir():
        return Found({}, KeyFiles())
    for path in within.iterdir():
        if is_temporary(path):
            path.unlink()
    segments = {segment_number(path): path for path in segment_files(folder)}
    return Found(segments, open_key_files(within, segments, lambda n: _keys_of(segments[n])))


def _keys_of(path: Path) -> np.ndarray:
    """Returns the keys of a segment, row by row."""
    with _naming_damaged(path):
        file = _parquet(path)
        keys = b"".join(
            bytes(batch.column(0).buffers()[1])
            for batch in file.iter_batches(columns=["key"], use_threads=False)
        )
        num_rows = file.metadata.num_rows
    keys_N = np.frombuffer(keys, KEY_DTYPE)
    assert len(keys_N) == num_rows, path
    return keys_N


@dataclass(frozen=True, slots=True)
class _Segment:
    file: pq.ParquetFile
    starts: list[int]  # the first row of each group

    @classmethod
    def opened(cls, path: Path) -> _Segment:
        file = _parquet(path)
        metadata = file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return cls(file, [0, *accumulate(sizes)])


def _stored(content: dict[str, Any]) -> StoredAnswer:
    """Returns the answer of a row."""
    content["key"] = content["key"].hex()
    content["charged"] = {f"num_{count}": content.pop(f"charged_{count}") for count in COUNTS}
    for name in JSON_FIELDS:
        if content[name] is not None:
            content[name] = orjson.loads(content[name])
    return stored_from(content)


def _charged_by_model(path: Path) -> dict[str, Charged]:
    with _naming_damaged(path):
        by_model = orjson.loads(_parquet(path).metadata.metadata[CHARGED])
        return {model: Charged(**charged) for model, charged in by_model.items()}


def _parquet(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def _naming_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, LookupError, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: damaged ({error}). Restore the file, or delete it to have its questions paid "
            "for again."
        ) from error


def _kept(
    kept: OrderedDict[Any, Value], name: object, num_kept: int, make: Callable[[], Value]
) -> Value:
    """Returns what is kept under a name or else made; the least used is dropped."""
    if name not in kept:
        kept[name] = make()
        if len(kept) > num_kept:
            kept.popitem(last=False)
    kept.move_to_end(name)
    return kept[name]
