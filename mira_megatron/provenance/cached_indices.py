"""Megatron's own index cache, read without Megatron: which tokens make up which sample.

Reads   <md5>-<class>-<split>-description.txt, and beside it for each prefix document_index.npy,
        sample_index.npy, shuffle_index.npy (GPTDataset), and for several prefixes
        dataset_index.npy, dataset_sample_index.npy (BlendedDataset); megatron-core 0.16.1

The arrays are memory-mapped. A description is found by what it says, not by its md5, which also
covers the trainer's tokenizer. A prefix counts as the same where its name is: containers mount
folders elsewhere, and names carry the digest of what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_SUFFIX = "-description.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixIndices:
    """Megatron's three arrays of one prefix."""

    path: Path  # of the description
    document_index: npt.NDArray[np.int32]  # sequences of the .idx, in the order they are read
    sample_index: npt.NDArray[np.integer]  # (samples + 1, 2): place in document_index, and token
    shuffle_index: npt.NDArray[np.integer]  # dataset sample -> row of sample_index

    @property
    def num_samples(self) -> int:
        """Returns the samples of the prefix, over all its epochs."""
        return len(self.sample_index) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendIndices:
    """What Megatron built for the training prefixes of a blend, in the blend's order."""

    origin: str  # where from, in words
    prefixes: tuple[PrefixIndices, ...]
    dataset_index: npt.NDArray[np.int16] | None  # None of a single prefix, which has no blend
    dataset_sample_index: npt.NDArray[np.int64] | None

    @property
    def num_samples(self) -> int:
        """Returns the length of the training dataset."""
        return (
            self.prefixes[0].num_samples if self.dataset_index is None else len(self.dataset_index)
        )

    def located(
        self, samples_N: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns per sample of the blend its prefix (a number) and its sample there."""
        if self.dataset_index is None or self.dataset_sample_index is None:
            return np.zeros_like(samples_N), samples_N
        return (
            self.dataset_index[samples_N].astype(np.int64),
            self.dataset_sample_index[samples_N].astype(np.int64),
        )

    def blend_samples(
        self, prefix: int, prefix_samples: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Returns the samples of the blend that are any of `prefix_samples` of a prefix, rising."""
        if self.dataset_index is None or self.dataset_sample_index is None:
            return np.sort(prefix_samples)
        candidates = np.flatnonzero(self.dataset_index == prefix)
        return candidates[np.isin(self.dataset_sample_index[candidates], prefix_samples)]


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedPrefix:
    """One training prefix, as a description in the cache would describe it."""

    path_prefix: Path
    seed: int
    sequence_length: int
    selection_digest: str | None  # of KeepMaskGPTDataset's mask

    def fits(self, content: Mapping[str, Any]) -> bool:
        """Returns whether a description is that of this prefix's training split."""
        return (
            Path(content.get("dataset_path") or "").name == self.path_prefix.name
            and content.get("index_split") == "train"
            and content.get("random_seed") == self.seed
            and content.get("sequence_length") == self.sequence_length
            and content.get("selection") == self.selection_digest
        )

    def __str__(self) -> str:
        selection = f", selection {self.selection_digest[:8]}" if self.selection_digest else ""
        return (
            f"{self.path_prefix.name}: random_seed {self.seed}, sequence_length "
            f"{self.sequence_length}{selection}"
        )


def read_cached_indices(
    cache_folder: Path,
    wanted: Sequence[WantedPrefix],
    *,
    num_samples: int | None,
    weights: Sequence[float] | None = None,
) -> BlendIndices:
    """Returns the indices that a trainer cached for these training prefixes and their weights.

    `num_samples` is what the trainer asked for (train_iters x global_batch_size, or train_samples);
    None takes whatever the cache holds, if that is one thing. Raises FileNotFoundError without a
    cache, and ValueError where nothing or more than one thing fits, or where an array is missing
    or cut short.
    """
    cache = _Cache.read(cache_folder)
    origin = f"index cache {cache_folder}"
    if len(wanted) == 1:
        fitting = [
            each
            for each in cache.descriptions
            if wanted[0].fits(each.content) and num_samples in (None, each.content["num_samples"])
        ]
        chosen = cache.only(fitting, wanted, None, num_samples)
        return BlendIndices(
            origin=origin,
            prefixes=(_prefix_indices(chosen.path),),
            dataset_index=None,
            dataset_sample_index=None,
        )
    fitting = [
        each
        for each in cache.descriptions
        if _is_blend_of(each.content, wanted)
        and _has_weights(each.content, weights)
        and (num_samples is None or cache.has_size(each, num_samples, weights))
    ]
    chosen = cache.only(fitting, wanted, weights, num_samples)
    return BlendIndices(
        origin=origin,
        prefixes=tuple(_prefix_indices(path) for path in cache.members(chosen)),
        dataset_index=_array(chosen.path, "dataset_index", 1),
        dataset_sample_index=_array(chosen.path, "dataset_sample_index", 1),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Description:
    path: Path
    content: Mapping[str, Any]

    @property
    def size(self) -> object:
        """Returns what decides the arrays beyond prefix, seed and sequence length.

        Neither the tokenizer nor the folder does: two trainers may share a cache.
        """
        content = self.content
        members = [(each["num_samples"], each["split"]) for each in content.get("datasets", ())]
        return (
            content.get("num_samples"),
            content.get("size"),
            str(content.get("weights")),
            str(members) if members else content.get("split"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cache:
    folder: Path
    descriptions: tuple[_Description, ...]

    @classmethod
    def read(cls, folder: Path) -> _Cache:
        paths = sorted(folder.glob(f"*{_SUFFIX}"))
        if not paths:
            raise FileNotFoundError(
                f"{folder}: no index cache of Megatron's there (*{_SUFFIX}). Give the trainer's "
                "path_to_cache (--data-cache-path), or none to have the indices rebuilt."
            )
        return cls(folder=folder, descriptions=tuple(map(_description, paths)))

    def only(
        self,
        fitting: Sequence[_Description],
        wanted: Sequence[WantedPrefix],
        weights: Sequence[float] | None,
        num_samples: int | None,
    ) -> _Description:
        sizes = {str(each.size) for each in fitting}
        if len(sizes) == 1:
            return fitting[0]
        asked = "" if num_samples is None else f", built for {num_samples:,} samples"
        what = "; ".join(map(str, wanted[:3])) + ("; …" if len(wanted) > 3 else "")
        what += "" if weights is None else f", {_weights_in_words(weights)}"
        if not fitting:
            held = "\n".join(sorted({f"  {_in_words(each)}" for each in self.descriptions}))
            raise ValueError(
                f"{self.folder}: this index cache has nothing for {what}{asked}. It has\n{held}\n"
                "Give the trainer's own seed and number of samples, the blend with its weights and "
                "sequence length, or no cache folder to have the indices rebuilt."
            )
        several = "\n".join(f"  {each.path.name}: {_in_words(each)}" for each in fitting)
        raise ValueError(
            f"{self.folder}: more than one training fits {what}{asked}:\n{several}\n"
            "Say for how many samples the trainer asked (train_iters x global_batch_size)."
        )

    def members(self, blend: _Description) -> list[Path]:
        by_content = {json.dumps(each.content): each.path for each in self.descriptions}
        try:
            return [by_content[json.dumps(member)] for member in blend.content["datasets"]]
        except KeyError as error:
            raise ValueError(
                f"{blend.path}: names a prefix whose own description is not in {self.folder}. The "
                "cache is incomplete; give no cache folder to have the indices rebuilt."
            ) from error

    def has_size(
        self, blend: _Description, num_samples: int, weights: Sequence[float] | None
    ) -> bool:
        """Returns whether a trainer that asks for `num_samples` gets this blend.

        Weighted prefixes are each rounded up; without weights there are no more samples than the
        prefixes have (BlendedMegatronDatasetBuilder, 0.16.1).
        """
        size = blend.content["size"]
        if size is None:
            return False
        if weights is not None:
            return bool(num_samples <= size < num_samples + len(blend.content["datasets"]))
        if size >= num_samples:
            return bool(size == num_samples)
        return bool(size == sum(_prefix_indices(path).num_samples for path in self.members(blend)))


def _description(path: Path) -> _Description:
    try:
        return _Description(path=path, content=json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(
            f"{path}: not a description of Megatron's ({error}); it was cut short. Delete it with "
            "its arrays, or give no cache folder to have the indices rebuilt."
        ) from error


def _is_blend_of(content: Mapping[str, Any], wanted: Sequence[WantedPrefix]) -> bool:
    members = content.get("datasets", ())
    return len(members) == len(wanted) and all(
        prefix.fits(member) for prefix, member in zip(wanted, members, strict=True)
    )


def _has_weights(content: Mapping[str, Any], weights: Sequence[float] | None) -> bool:
    """Returns whether a blend was drawn by these weights.

    Megatron describes them scaled to a sum of 1. Without weights it describes the prefixes' sizes
    as weights, and asks the prefixes themselves for no number of samples.
    """
    is_weighted = all(member["num_samples"] is not None for member in content["datasets"])
    if weights is None or not is_weighted:
        return weights is None and not is_weighted
    described, asked = np.array(content["weights"]), np.array(weights)
    return bool(np.allclose(described / described.sum(), asked / asked.sum(), rtol=1e-9, atol=0))


def _prefix_indices(description: Path) -> PrefixIndices:
    indices = PrefixIndices(
        path=description,
        document_index=_array(description, "document_index", 1),
        sample_index=_array(description, "sample_index", 2),
        shuffle_index=_array(description, "shuffle_index", 1),
    )
    if len(indices.shuffle_index) != indices.num_samples:
        raise ValueError(
            f"{description}: the arrays beside it do not belong together: "
            f"{len(indices.shuffle_index):,} samples are shuffled, but {indices.num_samples:,} "
            "indexed. Delete them, or give no cache folder to have the indices rebuilt."
        )
    return indices


def _array(description: Path, name: str, num_axes: int) -> npt.NDArray[Any]:
    path = description.with_name(description.name.removesuffix(_SUFFIX) + f"-{name}.npy")
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise ValueError(
            f"{path}: missing or cut short ({error}). Megatron does not write its cache "
            "atomically, so a killed run leaves such files: delete them, or give no cache folder "
            "to have the indices rebuilt."
        ) from error
    if array.ndim != num_axes or array.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: expected whole numbers on {num_axes} axes, got {array.dtype} {array.shape}"
        )
    return array


def _in_words(description: _Description) -> str:
    content = description.content
    if "datasets" in content:
        return (
            f"{content.get('split')} blend of {len(content['datasets'])} prefixes, "
            f"size {content.get('size')}, {_weights_in_words(content['weights'])}, "
            f"{_in_words_of_prefix(content['datasets'][0])}, …"
        )
    return _in_words_of_prefix(content)


def _weights_in_words(weights: Sequence[float]) -> str:
    shares = ", ".join(f"{weight / sum(weights):.4f}" for weight in weights[:3])
    return f"weights {shares}" + (", …" if len(weights) > 3 else "")


def _in_words_of_prefix(content: Mapping[str, Any]) -> str:
    selection = f", selection {content['selection'][:8]}" if "selection" in content else ""
    return (
        f"{Path(content.get('dataset_path') or '').name}: {content.get('index_split')}, "
        f"random_seed {content.get('random_seed')}, sequence_length "
        f"{content.get('sequence_length')}, num_samples {content.get('num_samples')}{selection}"
    )
