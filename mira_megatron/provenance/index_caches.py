"""Megatron's index caches: which of them are stale or damaged.

A cache is `<md5>-<class>-<split>-description.txt` and arrays beside it. Megatron takes it by name:
the md5 is of the description, which names prefix, seed, lengths and tokenizer, and neither the
contents of the `.idx` nor a keep mask. So a `.bin/.idx` made anew under its old prefix is read
with the old indices, and trains on garbage (megatron-core 0.16.1, reproduced in the tests).

Memory: checking one cache takes 8 bytes per listed document, 28 per document of its dataset and one
per sample.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mira_megatron.doctor.cache_checks import check_stale_caches
from mira_megatron.doctor.facts import CacheFacts, TrainingFacts
from mira_megatron.doctor.file_facts import list_caches
from mira_megatron.doctor.finding import ERROR, WARNING, Finding
from mira_megatron.tokenization.index_file import SequenceIndex, bin_path, idx_path, read_index

SURPLUS = 0.005  # Megatron's default mid_level_dataset_surplus: it builds that much more
_NAME = re.compile(
    r"(?P<key>(?P<md5>[0-9a-f]{32})-.+-(?:train|valid|test))-"
    r"(?P<part>description\.txt|(?:document|sample|shuffle|dataset|dataset_sample)_index\.npy)"
)
_OF_PREFIX = ("document_index", "sample_index", "shuffle_index")
_OF_BLEND = ("dataset_index", "dataset_sample_index")
# What Megatron writes: element types and axes. A sample index above 2^31 is int64.
_ARRAYS = {
    "document_index": (("int32",), 1),
    "sample_index": (("int32", "int64"), 2),
    "shuffle_index": (("uint32", "int64"), 1),
    "dataset_index": (("int16",), 1),
    "dataset_sample_index": (("int64",), 1),
}
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexCache:
    """The files of one key."""

    folder: Path
    key: str  # <md5>-<class>-<split>
    parts: frozenset[str]  # description.txt, document_index.npy, …

    @property
    def description_path(self) -> Path:
        """Returns the file that says what the arrays are for."""
        return self.folder / f"{self.key}-description.txt"

    @property
    def is_complete(self) -> bool:
        """Returns whether all files are there; of a blend there are two arrays, else three."""
        return len(self.parts) >= (3 if "dataset_index.npy" in self.parts else 4)

    @property
    def pattern(self) -> str:
        """Returns what a shell expands to all its files."""
        return f"{self.folder}/{self.key}-*"

    def array_path(self, name: str) -> Path:
        """Returns the file of one array."""
        return self.folder / f"{self.key}-{name}.npy"


def find_caches(folder: Path) -> list[IndexCache]:
    """Returns the caches that lie in a folder, by key; none where there is no folder."""
    parts: dict[str, set[str]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            parts.setdefault(match["key"], set()).add(match["part"])
    return [
        IndexCache(folder=folder, key=key, parts=frozenset(found)) for key, found in parts.items()
    ]


def default_cache_folder(path_prefix: str, class_name: str = "GPTDataset") -> Path:
    """Returns where Megatron puts a prefix's cache when no folder is named."""
    return Path(path_prefix) / "cache" / f"{class_name}_indices"


def link_complete(cache_folder: Path, into: Path) -> int:
    """Returns how many files it linked into a folder, where Megatron takes them: whole caches'.

    What is incomplete Megatron builds anew, and it may not write through a link.
    """
    num_linked = 0
    for cache in find_caches(cache_folder):
        if cache.is_complete:
            for part in cache.parts:
                target = cache_folder.absolute() / f"{cache.key}-{part}"
                (into / target.name).symlink_to(target)
                num_linked += 1
    return num_linked


def is_permutation(shuffle_N: npt.NDArray[np.integer], num_samples: int) -> bool:
    """Returns whether a shuffle index lists each of `num_samples` samples exactly once."""
    if len(shuffle_N) != num_samples:
        return False
    is_listed = np.zeros(num_samples, dtype=bool)
    for at in range(0, num_samples, _CHUNK):
        chunk = np.asarray(shuffle_N[at : at + _CHUNK])
        if not 0 <= int(chunk.min()) <= int(chunk.max()) < num_samples:
            return False
        is_listed[chunk] = True
    return bool(is_listed.all())


def blend_counts(
    chosen_N: npt.NDArray[np.integer], place_N: npt.NDArray[np.integer], num_prefixes: int
) -> npt.NDArray[np.int64]:
    """Returns how many samples the order of a blend draws of each prefix, shape (num_prefixes,).

    Raises ValueError unless it draws those of each one after another, from its first.
    """
    drawn = np.zeros(num_prefixes, dtype=np.int64)
    for at in range(0, len(chosen_N), _CHUNK):
        chosen = np.asarray(chosen_N[at : at + _CHUNK])
        if not 0 <= int(chosen.min()) <= int(chosen.max()) < num_prefixes:
            raise ValueError(f"it chooses prefix {int(chosen.max()):,} of {num_prefixes:,}")
        counts = np.bincount(chosen, minlength=num_prefixes)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        ranks = np.empty(len(chosen), dtype=np.int64)
        ranks[np.argsort(chosen, kind="stable")] = np.arange(len(chosen)) - before
        is_wrong = np.asarray(place_N[at : at + _CHUNK]) != drawn[chosen] + ranks
        if is_wrong.any():
            number = int(np.argmax(is_wrong))
            raise ValueError(
                f"its sample {at + number:,} is sample {int(place_N[at + number]):,} of prefix "
                f"{int(chosen[number]):,}, expected {int(drawn[chosen[number]] + ranks[number]):,}"
            )
        drawn += counts
    return drawn


def check_caches(folder: Path) -> list[Finding]:
    """Returns what is wrong with the caches of a folder: ERROR where a training would take one."""
    return [finding for cache in find_caches(folder) for finding in check_cache(cache)]


def check_cache(cache: IndexCache) -> list[Finding]:
    """Returns what is wrong with one cache."""
    try:
        description = _description(cache)
        arrays = _arrays(cache, _OF_BLEND if "datasets" in description else _OF_PREFIX)
        if "datasets" in description:
            _check_blend(cache, description, arrays)
            return []
        return _check_prefix(cache, description, arrays)
    except _UnusedError as reason:
        what = f"half-written: {reason}. Megatron builds it anew, unless told to trust its caches"
        return [_finding(cache, WARNING, what)]
    except _StaleError as reason:
        return [_finding(cache, ERROR, str(reason))]


class _UnusedError(Exception):
    """Why Megatron will not take a cache: it builds what is incomplete anew."""


class _StaleError(Exception):
    """Why a cache that Megatron would take breaks a training, or has it read other tokens."""


def _finding(cache: IndexCache, level: str, what: str) -> Finding:
    return Finding(level=level, what=what, where=cache.pattern, way_out=f"rm {cache.pattern}")


def _description(cache: IndexCache) -> dict[str, Any]:
    if "description.txt" not in cache.parts:
        raise _UnusedError("its description is missing")
    content = cache.description_path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != cache.key[:32]:
        # Megatron never reads the text again, so the arrays count all the same.
        missing = [name for name in _OF_PREFIX if f"{name}.npy" not in cache.parts]
        if missing:
            raise _UnusedError("its description is cut short")
        raise _StaleError("its description is not the one it is named after: it was cut short")
    description: dict[str, Any] = json.loads(content)
    return description


def _arrays(cache: IndexCache, names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    missing = [name for name in names if f"{name}.npy" not in cache.parts]
    if missing:
        raise _UnusedError(f"{', '.join(missing)} missing")
    return {name: _array(cache.array_path(name), name) for name in names}


def _array(path: Path, name: str) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _StaleError(f"{path.name} is cut short or no array ({error})") from error
    dtypes, axes = _ARRAYS[name]
    if str(array.dtype) not in dtypes or array.ndim != axes:
        found = f"{array.dtype} on {array.ndim} axes"
        raise _StaleError(f"{path.name} holds {found}, expected {' or '.join(dtypes)} on {axes}")
    return array


def _check_prefix(
    cache: IndexCache, description: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> list[Finding]:
    path_prefix = Path(str(description["dataset_path"]))
    missing = [path for path in (idx_path(path_prefix), bin_path(path_prefix)) if not path.exists()]
    if missing:
        return [_finding(cache, WARNING, f"of a dataset that is gone: no {missing[0]}")]
    try:
        index = read_index(path_prefix)
    except ValueError as error:
        raise _StaleError(f"its dataset cannot be read: {error}") from error
    num_samples = len(arrays["sample_index"]) - 1
    if len(arrays["shuffle_index"]) != num_samples:
        shuffled = len(arrays["shuffle_index"])
        raise _StaleError(f"it shuffles {shuffled:,} samples and has {num_samples:,}")
    if not is_permutation(arrays["shuffle_index"], num_samples):
        raise _StaleError(f"it does not draw each of its {num_samples:,} samples once")
    _check_documents(description, arrays["document_index"], index)
    _check_samples(description, arrays, index)
    made = cache.array_path("shuffle_index").stat().st_mtime
    for path in (idx_path(path_prefix), bin_path(path_prefix)):
        if path.stat().st_mtime > made:
            what = (
                f"older than {path}, though its lengths fit: right if only tokens or times changed"
            )
            return [_finding(cache, WARNING, what)]
    return []


def _check_documents(
    description: Mapping[str, Any], order_O: npt.NDArray[np.int32], index: SequenceIndex
) -> None:
    """Raises _StaleError unless the document index lists the split of this very .idx."""
    num_sequences = len(index.lengths_S)
    if len(order_O) and not 0 <= int(order_O.min()) <= int(order_O.max()) < num_sequences:
        what = f"it names sequence {int(order_O.max()):,}"
        raise _StaleError(f"{what}, but {description['dataset_path']}.idx has {num_sequences:,}")
    if "selection" in description:
        return  # which sequences a keep mask leaves is not known here
    start, end = _split_range(description, num_sequences)
    times_S = np.bincount(order_O, minlength=num_sequences)
    inside = times_S[start:end]
    if times_S.sum() != inside.sum() or (len(inside) and inside.min() != inside.max()):
        what = f"it does not list each of sequences {start:,} to {end:,} equally often"
        raise _StaleError(f"{what}, the {description['index_split']} split of the .idx")


def _split_range(description: Mapping[str, Any], num_sequences: int) -> tuple[int, int]:
    """Returns the sequences of a split, rounded as BlendedMegatronDatasetBuilder rounds."""
    matrix = description.get("split_matrix")
    if matrix is None:
        return 0, num_sequences
    share = matrix[("train", "valid", "test").index(str(description["index_split"]))]
    start, end = (round(bound * float(num_sequences)) for bound in share)
    return start, end


def _check_samples(
    description: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], index: SequenceIndex
) -> None:
    """Raises _StaleError unless samples tile the listed documents, and use them up."""
    length = int(description["sequence_length"])
    ends_O = np.cumsum(index.lengths_S[arrays["document_index"]], dtype=np.int64)
    total = int(ends_O[-1]) if len(ends_O) else 0
    num_samples = len(arrays["sample_index"]) - 1
    # With the last label or without it, and a valid split may keep its last, partial sample.
    partial = 1 if description["index_split"] == "valid" else 0
    if not (total - 1) // length <= num_samples <= total // length + partial:
        fits = f"{total:,} tokens make {max(total - 1, 0) // length:,} samples"
        raise _StaleError(f"it has {num_samples:,} samples of {length:,} tokens, but {fits}")
    samples = arrays["sample_index"]
    for at in range(0, num_samples, _CHUNK):
        chunk = np.asarray(samples[at : min(at + _CHUNK, num_samples)], dtype=np.int64)
        if int(chunk[:, 0].max()) >= len(ends_O):
            raise _StaleError("its samples begin in documents that it does not list")
        starts = np.where(chunk[:, 0] > 0, ends_O[chunk[:, 0] - 1], 0) + chunk[:, 1]
        is_wrong = starts != np.arange(at, at + len(chunk)) * length
        if is_wrong.any():
            number = at + int(np.argmax(is_wrong))
            raise _StaleError(f"its sample {number:,} begins elsewhere than in the .idx: made anew")


def _check_blend(
    cache: IndexCache, description: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Raises _StaleError where a blend asks for samples that its prefixes' caches do not hold."""
    chosen, samples = arrays["dataset_index"], arrays["dataset_sample_index"]
    members = description["datasets"]
    if len(chosen) != len(samples):
        raise _StaleError(f"it chooses {len(chosen):,} prefixes for {len(samples):,} samples")
    try:
        drawn = blend_counts(chosen, samples, len(members))
    except ValueError as error:
        raise _StaleError(str(error)) from error
    for number, member in enumerate(members):
        md5 = hashlib.md5(json.dumps(member, indent=4).encode(), usedforsecurity=False).hexdigest()
        split = member["index_split"]
        path = cache.folder / f"{md5}-{member['class']}-{split}-shuffle_index.npy"
        held = len(_array(path, "shuffle_index")) if path.is_file() else int(drawn[number])
        is_one_pass = description["size"] is None
        if drawn[number] > held or (is_one_pass and drawn[number] < held):
            what = f"it draws {drawn[number]:,} samples of {member['dataset_path']}"
            raise _StaleError(f"{what}, whose own cache holds {held:,}")


def check_packed_files(data_folder: Path) -> list[Finding]:
    """Returns the packed samples and line indices of an SFT folder that are of older text.

    Megatron-Bridge takes what exists: `packed/*/training_<length>.npy`, and from 0.4 on parquet.
    """
    caches = [*list_caches(data_folder), *_packed_parquet(data_folder)]
    return check_stale_caches(TrainingFacts(caches=tuple(caches)))


def _packed_parquet(data_folder: Path) -> Iterator[CacheFacts]:
    for stem in ("training", "validation"):
        source = data_folder / f"{stem}.jsonl"
        if source.is_file():
            for path in sorted((data_folder / "packed").glob(f"*/{stem}_*.parquet")):
                yield CacheFacts(
                    path=str(path),
                    mtime=path.stat().st_mtime,
                    source=str(source),
                    source_mtime=source.stat().st_mtime,
                )
