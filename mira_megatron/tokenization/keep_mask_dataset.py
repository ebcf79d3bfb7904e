"""`KeepMaskGPTDataset`: Megatron's GPTDataset over one prefix, restricted by a keep mask.

For when one prefix serves several selections. Needs megatron-core and numpy alone, so that
`pip install --no-deps mira-megatron` inside a training container is enough.

Shape letters: S sequences of the prefix, K of the selection, repeated ones repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split

from mira_megatron.retention.keep_masks import KeepMask, read_keep_mask
from mira_megatron.tokenization.handovers import checked_index, selected_sequences


@dataclass
class KeepMaskGPTDatasetConfig(GPTDatasetConfig):  # type: ignore[misc]  # megatron is untyped
    """GPTDatasetConfig and, for every training prefix, the path of its keep mask."""

    keep_masks: Mapping[str, str] = field(default_factory=dict)


class KeepMaskGPTDataset(GPTDataset):  # type: ignore[misc]  # megatron is untyped
    """Samples drawn from the kept documents of a prefix; held-out splits stay whole.

    Raises ValueError when a training prefix has no mask (training on everything by omission), or
    one made for another index.
    """

    def __init__(
        self,
        indexed_dataset: IndexedDataset,
        dataset_path: str,
        indexed_indices: npt.NDArray[np.int32],
        num_samples: int | None,
        index_split: Split,
        config: KeepMaskGPTDatasetConfig,
    ) -> None:
        self._selection_digest: str | None = None
        self._num_kept_tokens: int | None = None
        if index_split is Split.train:
            mask = _mask_of(config, dataset_path)
            self._selection_digest = mask.info.selection_digest
            index = checked_index(Path(dataset_path), mask)
            selected_K = selected_sequences(index, mask.is_kept, mask.repeats_D)
            if indexed_indices is not None:  # None under --dataloader-fast-cache-load
                is_in_split_S = np.zeros(len(index.lengths_S), dtype=bool)
                is_in_split_S[indexed_indices] = True
                indexed_indices = selected_K[is_in_split_S[selected_K]].astype(np.int32)
            self._num_kept_tokens = int(index.lengths_S[selected_K].sum(dtype=np.int64))
        super().__init__(
            indexed_dataset, dataset_path, indexed_indices, num_samples, index_split, config
        )

    def _build_document_sample_shuffle_indices(
        self,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        # Megatron's cache key holds neither indices nor file contents: without the digest, a
        # changed mask would train on the documents of the old one.
        if self._selection_digest is not None:
            self.unique_identifiers["selection"] = self._selection_digest
            self.unique_description = json.dumps(
                self.unique_identifiers, indent=4, default=lambda named: named.unique_identifiers
            )
            self.unique_description_hash = hashlib.md5(
                self.unique_description.encode("utf-8"), usedforsecurity=False
            ).hexdigest()
        indices: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]] = (
            super()._build_document_sample_shuffle_indices()
        )
        return indices

    def _get_num_tokens_per_epoch(self) -> int:
        # Under --dataloader-fast-cache-load Megatron has no indices here and would count all.
        if self._num_kept_tokens is not None and self.indices is None:
            return self._num_kept_tokens
        return int(super()._get_num_tokens_per_epoch())


def _mask_of(config: KeepMaskGPTDatasetConfig, dataset_path: str) -> KeepMask:
    try:
        return read_keep_mask(Path(config.keep_masks[dataset_path]))
    except KeyError as error:
        raise ValueError(
            f"{dataset_path}: no keep mask for this training prefix; keep_masks names "
            f"{sorted(config.keep_masks)}. Add it, or leave the prefix out of the training blend."
        ) from error
