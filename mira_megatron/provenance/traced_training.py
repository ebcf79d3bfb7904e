"""The training whose samples are traced: its blend, token datasets, indices and batches.

Reads   blends/<arm>/blend.json, tokens/<source>/dataset.json, keep/<arm>/
        the trainer's index cache, where it is given
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mira_megatron import layout
from mira_megatron.provenance.batch_order import BatchOrder, batch_order
from mira_megatron.provenance.cached_indices import (
    BlendIndices,
    WantedPrefix,
    read_cached_indices,
)
from mira_megatron.provenance.sequence_origins import SequenceOrigins, sequence_origins
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.tokenization.blend_files import absolute_prefix, read_blend
from mira_megatron.tokenization.token_dataset import TokenPrefix, read_token_dataset

LOADERS = ("single", "cyclic")  # Megatron's dataloader_type


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedTraining:
    """What decides which samples a training reads, and when; the trainer's own values."""

    run_folder: Path
    arm: str
    seed: int  # of the dataset: Megatron-LM --seed, Bridge random_seed, NeMo seed
    micro_batch_size: int
    global_batch_size: int
    data_parallel_size: int
    scoring: str | None = None  # a score table, record_scores/<scoring>; None tells no scores
    # Samples the trainer asked its dataset for: train_iters x global_batch_size, or train_samples.
    # None: as `mira midtrain` (one exhaustive pass, or the blend's num_train_samples where it has
    # weights), or whatever the index cache holds.
    num_samples: int | None = None
    cache_folder: Path | None = None  # the trainer's; None has Megatron build the indices again
    train_iters: int | None = None  # the last iteration; None: to the end of the dataset
    dataloader_type: str = "single"  # one of LOADERS
    has_data_sharding: bool = True  # of a cyclic loader
    rampup_batch_size: tuple[int, int, int] | None = None  # start, increment, samples
    # The last iteration of the earlier phases, which read other blends. Iterations go on counting
    # (`iteration`, `train_iters`), positions in this blend begin at 0, and `num_samples` is what
    # this phase alone asks for (`argument_files.phase_arguments` gives both).
    start_iteration: int = 0

    def __post_init__(self) -> None:
        if self.dataloader_type not in LOADERS:
            raise ValueError(
                f"dataloader_type={self.dataloader_type!r} must be one of {', '.join(LOADERS)}: "
                "`batch` is for fine-tuning data, and what an external loader reads is its own"
            )
        if self.train_iters is not None and self.train_iters < 1:
            raise ValueError(f"train_iters={self.train_iters} must be positive")

    def order(self) -> BatchOrder:
        """Returns how samples are dealt out to iterations and ranks."""
        return batch_order(
            micro_batch_size=self.micro_batch_size,
            global_batch_size=self.global_batch_size,
            data_parallel_size=self.data_parallel_size,
            rampup_batch_size=self.rampup_batch_size,
            start_iteration=self.start_iteration,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedPrefix:
    """One training prefix of the blend, and the token dataset behind it."""

    path_prefix: Path
    token_prefix: TokenPrefix
    mask_path: Path
    handover: str

    def origins(self) -> SequenceOrigins:
        """Returns which documents its sequences are."""
        return sequence_origins(
            self.path_prefix, self.token_prefix, handover=self.handover, mask_path=self.mask_path
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedBlend:
    """An arm's blend as it is trained on."""

    sequence_length: int
    weights: tuple[float, ...] | None
    trained: tuple[TrainedPrefix, ...]  # in the blend's order
    token_prefixes: Mapping[str, TokenPrefix]  # by name: all of the arm's sources, kept or not
    mask_paths: Mapping[str, Path]  # by name, keep masks
    handover: str
    content: Mapping[str, Any]  # as `read_blend` gives it


def read_traced_blend(run_folder: Path, arm: str) -> TracedBlend:
    """Returns an arm's blend with the token datasets behind its training prefixes.

    Raises as `read_blend` and `read_token_dataset` do.
    """
    folder = run_folder / layout.blend(arm)
    content = read_blend(folder)
    listed = [*content["entries"], *content["left_out"]]
    sources = dict.fromkeys(each["source"] for each in listed)
    token_prefixes = {
        prefix.name: prefix
        for source in sources
        for prefix in read_token_dataset(run_folder / layout.tokens(source)).prefixes
    }
    mask_paths = {
        name: run_folder / layout.keep(arm) / f"{name}.keep.npy" for name in token_prefixes
    }
    names = {
        absolute_prefix(folder, each["prefix"]): each["name"]
        for each in listed
        if each["split"] == "train"
    }
    unlisted = [prefix for prefix in content["train"] if prefix not in names]
    if unlisted:
        raise ValueError(
            f"{folder / layout.BLEND}: {unlisted[0]} stands in none of its entries, so nobody can "
            "tell which documents it holds. Make it anew with `mira blend`."
        )
    trained = tuple(
        TrainedPrefix(
            path_prefix=Path(prefix),
            token_prefix=token_prefixes[names[prefix]],
            mask_path=mask_paths[names[prefix]],
            handover=content["handover"],
        )
        for prefix in content["train"]
    )
    weights = content["train_weights"]
    return TracedBlend(
        sequence_length=content["sequence_length"],
        weights=None if weights is None else tuple(weights),
        trained=trained,
        token_prefixes=token_prefixes,
        mask_paths=mask_paths,
        handover=content["handover"],
        content=content,
    )


def first_document(blend: TracedBlend, prefix: TokenPrefix) -> int:
    """Returns how many documents of its source lie before a prefix: its records' first place."""
    of_source = [p for p in blend.token_prefixes.values() if p.source == prefix.source]
    names = [each.name for each in of_source]
    return sum(each.num_documents for each in of_source[: names.index(prefix.name)])


def training_indices(training: TracedTraining, blend: TracedBlend) -> BlendIndices:
    """Returns what Megatron built for the training: its cache, or without one built again."""
    has_masks = blend.handover == "keep_mask_dataset"
    wanted = [
        WantedPrefix(
            path_prefix=each.path_prefix,
            seed=training.seed,
            sequence_length=blend.sequence_length,
            selection_digest=(
                read_keep_mask(each.mask_path).info.selection_digest if has_masks else None
            ),
        )
        for each in blend.trained
    ]
    if training.cache_folder is not None:
        return read_cached_indices(
            training.cache_folder,
            wanted,
            num_samples=training.num_samples,
            weights=blend.weights,
        )
    num_samples = training.num_samples
    if num_samples is None and blend.weights is not None:
        num_samples = int(blend.content["num_train_samples"])
    masks = {str(each.path_prefix): str(each.mask_path) for each in blend.trained}
    # Megatron and torch are loaded only where they are needed.
    rebuilding = importlib.import_module("mira_megatron.provenance.rebuilt_indices")
    indices: BlendIndices = rebuilding.rebuild_indices(
        wanted,
        num_samples=num_samples,
        weights=blend.weights,
        keep_masks=masks if has_masks else None,
        vocab_size=blend.content["vocab_size"],
        eod_id=blend.content["eod_id"],
    )
    return indices


def samples_at(
    training: TracedTraining, order: BatchOrder, num_samples: int, positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Returns the samples of the dataset that are read at positions of the training."""
    if training.dataloader_type == "single":
        return positions
    cyclic = importlib.import_module("mira_megatron.provenance.cyclic_order")
    samples: npt.NDArray[np.int64] = cyclic.CyclicOrder(
        order=order, num_samples=num_samples, has_data_sharding=training.has_data_sharding
    ).samples(positions)
    return samples


def last_iteration(training: TracedTraining, order: BatchOrder, num_samples: int) -> int | None:
    """Returns the last iteration the data or the trainer allows; None where there is no end."""
    if training.dataloader_type == "cyclic":
        return training.train_iters
    by_data = training.start_iteration + order.num_iterations(num_samples)
    return by_data if training.train_iters is None else min(by_data, training.train_iters)
