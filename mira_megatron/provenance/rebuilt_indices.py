"""Megatron's indices of a blend's training prefixes, built by Megatron's own builder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from torch import distributed

from mira_megatron.provenance.cached_indices import (
    BlendIndices,
    WantedPrefix,
    read_cached_indices,
)
from mira_megatron.tokenization.keep_mask_dataset import (
    KeepMaskGPTDataset,
    KeepMaskGPTDatasetConfig,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer


def rebuild_indices(
    wanted: Sequence[WantedPrefix],
    *,
    num_samples: int | None,
    weights: Sequence[float] | None,
    keep_masks: Mapping[str, str] | None,
    vocab_size: int,
    eod_id: int,
) -> BlendIndices:
    """Returns the indices that a trainer builds for these prefixes, as it builds them.

    `num_samples` is what the trainer asks for, None one exhaustive pass; `weights` are the blend's.
    `keep_masks` (path prefix -> mask) makes it KeepMaskGPTDataset. Nothing is left on disk: about
    4 bytes per document and 20 per sample lie in the temporary folder meanwhile.
    """
    if weights is not None and num_samples is None:
        raise ValueError(
            "a weighted blend has no end of its own: say for how many samples the trainer asks "
            "(train_iters x global_batch_size)"
        )
    prefixes = [str(prefix.path_prefix) for prefix in wanted]
    with TemporaryDirectory(prefix="mira-indices-") as folder, _process_group():
        settings: dict[str, Any] = {
            "random_seed": wanted[0].seed,
            "sequence_length": wanted[0].sequence_length,
            "blend_per_split": [(prefixes, weights), None, None],
            "path_to_cache": folder,
            "tokenizer": BlendTokenizer(vocab_size=vocab_size, eod=eod_id),
            "reset_position_ids": False,
            "reset_attention_mask": False,
            "eod_mask_loss": False,
            "create_attention_mask": False,
        }
        if keep_masks is None:
            dataset_class, config = GPTDataset, GPTDatasetConfig(**settings)
        else:
            dataset_class = KeepMaskGPTDataset
            config = KeepMaskGPTDatasetConfig(**settings, keep_masks=keep_masks)
        sizes = [num_samples, None, None]
        BlendedMegatronDatasetBuilder(dataset_class, sizes, lambda: True, config).build()
        # Mapped files stay readable after the folder is gone.
        indices = read_cached_indices(
            Path(folder), wanted, num_samples=None, is_weighted=weights is not None
        )
    return replace(indices, origin="Megatron's builder, in a temporary folder")


@contextmanager
def _process_group() -> Iterator[None]:
    """Gives Megatron the process group of one that it asks for where a blend is cached."""
    if distributed.is_initialized():
        yield
        return
    store = distributed.HashStore()  # type: ignore[attr-defined]  # public; stubs omit it
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()
