"""Megatron's own index building, replayed: which samples of which prefix training reads, in order.

Nothing is modelled here: megatron-core's builder makes the datasets, greedy blending, epochs and
splits included, and this module reads what it made. One process; torch.distributed may be
uninitialised. Training is taken to draw samples in order (`--dataloader-type single`).

Memory, beside what `coverage` needs for one prefix at a time: Megatron keeps 4 bytes per listed
sequence and epoch and 12 per sample of every prefix, and takes 33 per sequence and epoch while it
shuffles one. Measured in all (benchmarks/index_building.py): 62 per document of a single prefix.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from torch import distributed

from mira_megatron.provenance.coverage import Coverage, dataset_coverage
from mira_megatron.provenance.index_caches import (
    SURPLUS,
    blend_counts,
    find_caches,
    link_complete,
)
from mira_megatron.tokenization.megatron_datasets import (
    BlendTokenizer,
    class_and_config,
    prefix_datasets,
)

SPLITS = ("train", "valid", "test")  # Megatron's order
_SHARE = r"\d+\.?\d*|\.\d+"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixBlend:
    """Prefixes as Megatron is given them, with weights (shares of samples) or without."""

    prefixes: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.prefixes:
            raise ValueError("a blend needs at least one prefix")
        if self.weights is not None and len(self.weights) != len(self.prefixes):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.prefixes)} prefixes: give one each"
            )
        for weight in self.weights or ():
            if not (weight > 0 and math.isfinite(weight)):
                raise ValueError(f"weight {weight} must be a positive number")

    @property
    def is_weighted(self) -> bool:
        """Returns whether weights decide anything: Megatron ignores those of a single prefix."""
        return self.weights is not None and len(self.prefixes) > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRequest:
    """What decides which samples a training reads: the data arguments of any Megatron trainer.

    `blends` are per split (--per-split-data-args-path) and `split` is None, or the first alone is
    given and `split` ("969,30,1") divides its sequences by position.
    """

    blends: tuple[PrefixBlend | None, PrefixBlend | None, PrefixBlend | None]
    sequence_length: int
    seed: int
    tokenizer: Any  # has vocab_size, eod, pad and unique_identifiers, as Megatron asks for them
    split: str | None = None
    # Samples per split, train_iters * global_batch_size for train; None: one pass.
    num_samples: tuple[int | None, int | None, int | None] = (None, None, None)
    mid_level_dataset_surplus: float = SURPLUS
    keep_masks: Mapping[str, str] | None = None  # for KeepMaskGPTDataset: per training prefix

    def __post_init__(self) -> None:
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length={self.sequence_length} must be positive")
        if self.split is not None:
            _check_shares(self.split)
        if self.split is not None and (self.blends[0] is None or any(self.blends[1:])):
            raise ValueError(
                f"split={self.split!r} divides one blend: give it first, and no others"
            )
        for name, blend, num_samples in zip(SPLITS, self.blends, self.num_samples, strict=True):
            if num_samples is not None and num_samples < 1:
                raise ValueError(
                    f"{name}: num_samples={num_samples} must be positive, or left out for one pass"
                )
            if num_samples is None and blend is not None and blend.is_weighted:
                raise ValueError(
                    f"{name}: weights share out a number of samples, and none is given. Name it "
                    "(train_iters * global_batch_size), or leave the weights out for one pass."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Consecutive samples of a training, in order."""

    prefix_N: npt.NDArray[np.int64]  # which prefix of the split
    sample_N: npt.NDArray[np.int64]  # which row of that prefix's sample_index


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReplay:
    """One split as Megatron built it."""

    name: str  # of SPLITS
    dataset: GPTDataset | BlendedDataset
    num_drawn: int  # samples that training reads: what was asked for, or all
    num_missing: int  # samples asked for that do not exist: training ends there

    @property
    def datasets(self) -> list[GPTDataset]:
        """Returns the datasets of the single prefixes, in the order of the blend."""
        return prefix_datasets(self.dataset)

    @property
    def prefixes(self) -> list[str]:
        """Returns the prefixes in the order of the blend."""
        return [str(dataset.dataset_path) for dataset in self.datasets]

    def drawn_per_prefix(self) -> npt.NDArray[np.int64]:
        """Returns how many samples training reads of each prefix; they are its first ones."""
        if isinstance(self.dataset, BlendedDataset):
            chosen = np.asarray(self.dataset.dataset_index[: self.num_drawn])
            return np.bincount(chosen, minlength=len(self.datasets)).astype(np.int64)
        return np.array([self.num_drawn], dtype=np.int64)

    def draws(self, start: int, stop: int) -> Draws:
        """Returns samples `start` to `stop` of the training, clipped to those that it reads."""
        stop = min(stop, self.num_drawn)
        if not isinstance(self.dataset, BlendedDataset):
            samples = np.asarray(self.dataset.shuffle_index[start:stop], dtype=np.int64)
            return Draws(prefix_N=np.zeros(len(samples), dtype=np.int64), sample_N=samples)
        prefixes = np.asarray(self.dataset.dataset_index[start:stop], dtype=np.int64)
        places = np.asarray(self.dataset.dataset_sample_index[start:stop])
        samples = np.empty(len(places), dtype=np.int64)
        for number in np.unique(prefixes).tolist():
            chosen = prefixes == number
            samples[chosen] = self.datasets[number].shuffle_index[places[chosen]]
        return Draws(prefix_N=prefixes, sample_N=samples)

    def num_not_in(self, cache_folder: Path) -> int:
        """Returns how many indices of this split (and its blend's order) a folder lacks."""
        every: list[Any] = [*self.datasets]
        if isinstance(self.dataset, BlendedDataset):
            every.append(self.dataset)
        keys = {cache.key for cache in find_caches(cache_folder) if cache.is_complete}
        return sum(
            f"{one.unique_description_hash}-{type(one).__name__}-{self.name}" not in keys
            for one in every
        )

    def coverages(self) -> Iterator[Coverage]:
        """Yields what training reads of each prefix, one at a time."""
        for dataset, num_drawn in zip(self.datasets, self.drawn_per_prefix(), strict=True):
            yield dataset_coverage(dataset, num_drawn=int(num_drawn))


def blend_request(
    blend: Mapping[str, Any], *, seed: int, num_samples: int | None = None
) -> DataRequest:
    """Returns what a training asks for that takes over a blend from `read_blend`.

    `num_samples` is train_iters * global_batch_size; None: one pass, or of a weighted blend the
    `num_train_samples` that it names.
    """
    weights = blend.get("train_weights")
    if num_samples is None and weights is not None:
        num_samples = int(blend["num_train_samples"])
    masked = blend["handover"] == "keep_mask_dataset"
    return DataRequest(
        blends=(
            PrefixBlend(
                prefixes=tuple(blend["train"]), weights=None if weights is None else tuple(weights)
            ),
            PrefixBlend(prefixes=tuple(blend["valid"])),
            None,
        ),
        sequence_length=blend["sequence_length"],
        seed=seed,
        tokenizer=BlendTokenizer(vocab_size=blend["vocab_size"], eod=blend["eod_id"]),
        num_samples=(num_samples, None, None),
        keep_masks=blend["keep_masks"] if masked else None,
    )


@contextmanager
def replaying(
    request: DataRequest, cache_folder: Path | None = None
) -> Iterator[dict[str, SplitReplay]]:
    """Yields the splits as Megatron builds them, by name; a split without data is left out.

    Indices that lie in `cache_folder` are taken, as training would; nothing is written there: what
    it lacks is built in a temporary folder. Megatron's own exceptions pass through.
    """
    with ExitStack() as stack:
        building = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="index-cache-")))
        if cache_folder is not None:
            link_complete(cache_folder, building)
        stack.enter_context(one_process())
        yield build_splits(request, building)


def build_splits(request: DataRequest, cache_folder: Path) -> dict[str, SplitReplay]:
    """Returns what Megatron's builder makes of a request; needs a process group for blends."""
    dataset_class, config = _megatron_config(request, cache_folder)
    builder = BlendedMegatronDatasetBuilder(
        dataset_class, list(request.num_samples), lambda: True, config
    )
    return {
        name: _split_replay(name, dataset, wanted)
        for name, dataset, wanted in zip(SPLITS, builder.build(), request.num_samples, strict=True)
        if dataset is not None
    }


@contextmanager
def one_process() -> Iterator[None]:
    """Keeps the process group that is there, or sets one up that holds this process alone.

    Raises ValueError inside a group of several processes: a replay would stop at a barrier.
    """
    if distributed.is_initialized():
        if distributed.get_world_size() > 1:
            raise ValueError(
                f"a replay runs in one process, and this one belongs to a group of "
                f"{distributed.get_world_size()}. Run it outside of torchrun."
            )
        yield
        return
    store = distributed.HashStore()  # type: ignore[attr-defined]  # public; stubs omit it
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _split_replay(
    name: str, dataset: GPTDataset | BlendedDataset, wanted: int | None
) -> SplitReplay:
    num_samples = len(dataset)
    if isinstance(dataset, BlendedDataset):
        _check_order(dataset, is_one_pass=wanted is None)
    drawn = num_samples if wanted is None else min(wanted, num_samples)
    missing = 0 if wanted is None else wanted - drawn
    return SplitReplay(name=name, dataset=dataset, num_drawn=drawn, num_missing=missing)


def _check_order(dataset: BlendedDataset, *, is_one_pass: bool) -> None:
    """Raises ValueError for the order of a blend (out of a cache) that is not its prefixes'."""
    held = np.array([len(each) for each in dataset.datasets])
    name = f"Megatron's index cache {dataset.unique_description_hash} is damaged"
    try:
        drawn = blend_counts(dataset.dataset_index, dataset.dataset_sample_index, len(held))
    except ValueError as error:
        raise ValueError(f"{name}: {error}. Delete it.") from error
    is_wrong = drawn != held if is_one_pass else drawn > held
    if is_wrong.any():
        at = int(np.argmax(is_wrong))
        raise ValueError(
            f"{name}: it draws {drawn[at]:,} samples of {dataset.datasets[at].dataset_path}, "
            f"which has {held[at]:,}. Delete it."
        )


def _check_shares(split: str) -> None:
    """Raises ValueError for a split that Megatron would read as something else, or as nothing."""
    shares = split.split(",")
    is_number = all(re.fullmatch(_SHARE, share.strip()) for share in shares)
    if not is_number or len(shares) > len(SPLITS) or not sum(map(float, shares)) > 0:
        raise ValueError(f'split={split!r}: expected shares of train,valid,test, as "969,30,1"')


def _megatron_config(
    request: DataRequest, cache_folder: Path
) -> tuple[type[GPTDataset], GPTDatasetConfig]:
    blends = [
        None if blend is None else (list(blend.prefixes), _list(blend.weights))
        for blend in request.blends
    ]
    fields = {
        "random_seed": request.seed,
        "sequence_length": request.sequence_length,
        "path_to_cache": str(cache_folder),
        "tokenizer": request.tokenizer,
        "mid_level_dataset_surplus": request.mid_level_dataset_surplus,
        **({"blend_per_split": blends} if request.split is None else {"blend": blends[0]}),
        "split": request.split,
    }
    return class_and_config(fields, request.keep_masks)


def _list(weights: tuple[float, ...] | None) -> list[float] | None:
    return None if weights is None else list(weights)
