"""A blend becomes Megatron's own datasets, built by Megatron's own builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from mira_megatron.tokenization.blend_files import read_blend as read_blend
from mira_megatron.tokenization.keep_mask_dataset import (
    KeepMaskGPTDataset,
    KeepMaskGPTDatasetConfig,
)


@dataclass(frozen=True, slots=True)
class BlendTokenizer:
    """The part of a tokenizer that Megatron's datasets ask for."""

    vocab_size: int
    eod: int

    @property
    def pad(self) -> int:
        """Returns an id that no token has: nothing is padded, so nothing may be masked as padding.

        Megatron masks the loss wherever a label equals the pad id; the EOD must be learned.
        """
        return -1

    @property
    def unique_identifiers(self) -> dict[str, Any]:
        """Returns what Megatron puts into its cache key."""
        return {"class": type(self).__name__, "vocab_size": self.vocab_size, "eod": self.eod}


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendDatasets:
    """What is trained on, by default one pass over the selection, and the held-out documents."""

    train: GPTDataset | BlendedDataset
    valid: GPTDataset | BlendedDataset


def build_datasets(
    blend: Mapping[str, Any],
    *,
    seed: int,
    cache_folder: Path,
    num_train_samples: int | None = None,
) -> BlendDatasets:
    """Returns Megatron's datasets for a blend from `read_blend`.

    Without weights that is one exhaustive pass each; with weights as many training samples as one
    pass has, unless `num_train_samples` says otherwise. The index cache lies in `cache_folder`.
    torch.distributed must be initialised when the blend has several prefixes.
    """
    if num_train_samples is None and blend.get("train_weights") is not None:
        num_train_samples = blend["num_train_samples"]
    dataset_class, config = dataset_config(blend, seed=seed, cache_folder=cache_folder)
    sizes = [num_train_samples, None, None]
    builder = BlendedMegatronDatasetBuilder(dataset_class, sizes, lambda: True, config)
    train, valid, _ = builder.build()
    return BlendDatasets(train=train, valid=valid)


def dataset_config(
    blend: Mapping[str, Any],
    *,
    seed: int,
    cache_folder: Path,
    options: Mapping[str, Any] | None = None,
) -> tuple[type[GPTDataset], GPTDatasetConfig]:
    """Returns the dataset class of a blend's hand-over and Megatron's config for it.

    `options` are further fields of GPTDatasetConfig, such as a trainer's way of loading.
    """
    fields = {
        "random_seed": seed,
        "sequence_length": blend["sequence_length"],
        "blend_per_split": [
            (blend["train"], blend.get("train_weights")),
            (blend["valid"], None),
            None,  # the test split repeats the validation split
        ],
        "path_to_cache": str(cache_folder),
        "tokenizer": BlendTokenizer(vocab_size=blend["vocab_size"], eod=blend["eod_id"]),
        **(options or {}),
    }
    has_masks = blend["handover"] == "keep_mask_dataset"
    return class_and_config(fields, blend["keep_masks"] if has_masks else None)


def class_and_config(
    fields: Mapping[str, Any], keep_masks: Mapping[str, str] | None
) -> tuple[type[GPTDataset], GPTDatasetConfig]:
    """Returns GPTDataset, or with keep masks KeepMaskGPTDataset, and the config of these fields."""
    settings = {
        "reset_position_ids": False,
        "reset_attention_mask": False,
        "eod_mask_loss": False,
        "create_attention_mask": False,
        **fields,
    }
    if keep_masks is None:
        return GPTDataset, GPTDatasetConfig(**settings)
    return KeepMaskGPTDataset, KeepMaskGPTDatasetConfig(**settings, keep_masks=keep_masks)


def prefix_datasets(dataset: GPTDataset | BlendedDataset) -> list[GPTDataset]:
    """Returns the single-prefix datasets behind a blend, in its order."""
    return list(dataset.datasets) if isinstance(dataset, BlendedDataset) else [dataset]
