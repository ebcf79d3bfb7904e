"""A blend's datasets for somebody else's trainer, which says how many samples it wants.

Training data is what `build_datasets` builds, whatever a trainer asks for, so that the indices that
were verified, prebuilt and traced are those that are trained on. What a trainer's wish would change
silently (a second pass, an evaluation that runs dry) is refused or provided for here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset
from megatron.core.datasets.utils import Split

from mira_megatron.tokenization.blend_files import prefix_samples, prefix_tokens
from mira_megatron.tokenization.megatron_datasets import dataset_config, prefix_datasets


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerDatasets:
    """What a trainer's dataset provider returns; None on a rank that reads no data."""

    train: GPTDataset | BlendedDataset | None
    valid: torch.utils.data.Dataset[Any] | None
    test: torch.utils.data.Dataset[Any] | None


class WholePasses(torch.utils.data.Dataset[Any]):
    """A dataset that starts again where it ends, `num_samples` long.

    Megatron gives no more held-out samples than several prefixes without weights hold, and a
    trainer that goes on asking stops there with StopIteration, in the middle of its training.
    """

    def __init__(self, dataset: GPTDataset | BlendedDataset, num_samples: int, split: Split):
        self.dataset = dataset
        self.split = split  # Megatron-LM's loaders ask a dataset which split it is
        self._num_samples = num_samples

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._num_samples:
            raise IndexError(f"sample {index} of {self._num_samples}")
        return self.dataset[index % len(self.dataset)]


def trainer_datasets(
    blend: Mapping[str, Any],
    num_samples: Sequence[int | None],
    *,
    seed: int,
    cache_folder: Path,
    options: Mapping[str, Any] | None = None,
    is_built_on_rank: Callable[[], bool] = lambda: True,
) -> TrainerDatasets:
    """Returns a blend's datasets for a trainer that asks for (train, valid, test) samples.

    Training data is one pass, or what the blend's weights make of `num_train_samples`; held-out
    data starts again where it ends. Must be called on all ranks. Raises ValueError when more
    training samples are asked for than the blend has.
    """
    dataset_class, config = dataset_config(
        blend, seed=seed, cache_folder=cache_folder, options=options
    )
    size = None if blend.get("train_weights") is None else int(blend["num_train_samples"])
    sizes = [size, None, None]
    train, valid, _ = BlendedMegatronDatasetBuilder(
        dataset_class, sizes, is_built_on_rank, config
    ).build()
    if train is not None:
        require_class(train, dataset_class)
        _require_enough(blend, num_samples[0], len(train) if size is None else size)
    return TrainerDatasets(
        train=train,
        valid=_held_out(valid, num_samples[1], Split.valid),
        test=_held_out(valid, num_samples[2], Split.test),
    )


def require_class(train: GPTDataset | BlendedDataset, dataset_class: type[GPTDataset]) -> None:
    """Raises TypeError where a prefix is read by another class: its keep mask would be lost."""
    for dataset in prefix_datasets(train):
        if type(dataset) is not dataset_class:
            raise TypeError(
                f"{dataset.dataset_path}: is read by {type(dataset).__name__}, not by "
                f"{dataset_class.__name__}; training would see every document of it"
            )


def at_sequence_length(blend: Mapping[str, Any], sequence_length: int) -> Mapping[str, Any]:
    """Returns a blend read in samples of another length; the documents stay those selected.

    Its `num_train_samples` are one pass in samples of that length, as of every blend. Raises
    ValueError for a prefix that holds no whole sample of that length.
    """
    if sequence_length == blend["sequence_length"]:
        return blend
    for prefix in [*blend["train"], *blend["valid"]]:
        num_tokens = prefix_tokens(blend, prefix)
        if num_tokens <= sequence_length:
            raise ValueError(
                f"{prefix}: its {num_tokens:,} tokens fill no sample of {sequence_length:,}. Blend "
                f"again with blend.sequence_length={sequence_length}, which leaves it out."
            )
    other = {**blend, "sequence_length": sequence_length}
    num_train_samples = sum(prefix_samples(other, prefix) for prefix in blend["train"])
    return {**other, "num_train_samples": num_train_samples}


def _require_enough(blend: Mapping[str, Any], wanted: int | None, available: int) -> None:
    if wanted is not None and wanted > available:
        raise ValueError(
            f"{wanted:,} training samples are asked for, but the blend of arm "
            f"{blend.get('arm')!r} holds {available:,} of {blend['sequence_length']:,} tokens. "
            "Train on that many at most (round down to whole global batches), or select more."
        )


def _held_out(
    dataset: GPTDataset | BlendedDataset | None, wanted: int | None, split: Split
) -> torch.utils.data.Dataset[Any] | None:
    if dataset is None:
        return None
    return WholePasses(dataset, max(len(dataset), wanted or 0), split)
