"""Packed samples that Megatron-Bridge's loader never comes to the end of.

Needs Megatron-Bridge (`requirements/bridge.txt`: 0.3.1). Its loader of fine-tuning goes round: each
pass begins at the number of samples consumed when the process started, modulo their number. So a
training that was preempted leaves out, in every later pass, what it had seen before; and where less
than a global batch is left there, or in the validation samples, the loader yields nothing and all
GPUs wait for ever. Here the datasets are as long as all steps and all evaluations, so that it never
goes round: passes follow each other, each in an order of its own that the seed decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron.bridge.data.utils import finetuning_train_valid_test_datasets_provider
from megatron.bridge.training.config import (
    DatasetBuildContext,
    DatasetProvider,
    FinetuningDatasetConfig,
)


class RepeatedSamples:
    """A dataset of `num_samples` that begins anew whenever another one's last is reached."""

    def __init__(self, dataset: Any, num_samples: int) -> None:
        self.dataset = dataset
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]

    def collate_fn(self, batch: Sequence[Any]) -> Any:
        """Returns the batch that the other dataset makes of samples."""
        return self.dataset.collate_fn(batch)


@dataclass(kw_only=True)
class PackedSamples(FinetuningDatasetConfig, DatasetProvider):  # type: ignore[misc]  # untyped
    """Bridge's own config of fine-tuning data, whose datasets are as long as what is asked of them.

    `max_train_samples` is to be all steps times the global batch: Bridge shuffles pass by pass up
    to there.
    """

    def build_datasets(self, context: DatasetBuildContext) -> tuple[Any, Any, Any]:
        """Returns (train, valid, None).

        Raises ValueError where more training samples are asked for than `max_train_samples`.
        """
        if self.max_train_samples is None or context.train_samples > self.max_train_samples:
            raise ValueError(
                f"dataset.max_train_samples={self.max_train_samples}, and the training asks for "
                f"{context.train_samples:,}: a resumed one would read other samples. Set it to "
                "train.train_iters x train.global_batch_size."
            )
        asked = [context.train_samples, context.valid_samples, context.test_samples]
        train, valid, _ = finetuning_train_valid_test_datasets_provider(
            asked, self, context.tokenizer
        )
        # Bridge has no such limit for validation, and one after the other is as good as shuffled.
        return train, RepeatedSamples(valid, context.valid_samples), None
