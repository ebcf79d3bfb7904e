"""Megatron datasets as micro-batches of tensors.

Shape letters: B samples of a micro-batch, S sequence length in tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from megatron.core import parallel_state
from torch import Tensor

from mira_megatron.training.process_group import current_device
from mira_megatron.training.schedule import TrainSettings


class TokenDataset(Protocol):
    """What Megatron's GPTDataset and BlendedDataset have in common.

    A sample maps tokens, labels, loss_mask and position_ids to tensors of sequence_length values,
    and attention_mask, where the dataset was built with create_attention_mask, to (1, S, S).
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch on the device; B samples of S tokens."""

    tokens_BS: Tensor
    labels_BS: Tensor
    loss_mask_BS: Tensor
    position_ids_BS: Tensor
    attention_mask_B1SS: Tensor | None


@dataclass(frozen=True, slots=True)
class Batches:
    """A dataset as micro-batches, of which each process takes its share."""

    dataset: TokenDataset
    settings: TrainSettings
    vocab_size: int

    def between(self, first: int, end: int) -> Iterator[Batch]:
        """Yields this process's micro-batches of samples first..end-1."""
        rank = parallel_state.get_data_parallel_rank()
        world_size = parallel_state.get_data_parallel_world_size()
        size = self.settings.micro_batch_size
        for start in range(first, end, size)[rank::world_size]:
            yield self._collate(range(start, min(start + size, end)))

    def _collate(self, indices: range) -> Batch:
        samples = [self.dataset[index] for index in indices]
        self._check(indices, samples)

        def stacked(name: str) -> Tensor:
            return torch.stack([sample[name] for sample in samples]).to(current_device())

        has_attention_mask = "attention_mask" in samples[0]
        return Batch(
            tokens_BS=stacked("tokens"),
            labels_BS=stacked("labels"),
            loss_mask_BS=stacked("loss_mask"),
            position_ids_BS=stacked("position_ids"),
            attention_mask_B1SS=stacked("attention_mask") if has_attention_mask else None,
        )

    def _check(self, indices: range, samples: list[Mapping[str, Tensor]]) -> None:
        for index, sample in zip(indices, samples, strict=True):
            tokens = sample["tokens"]
            if len(tokens) != self.settings.sequence_length:
                raise ValueError(
                    f"sample {index} has {len(tokens):,} tokens, expected sequence_length="
                    f"{self.settings.sequence_length:,}. Build the dataset with that length."
                )
            if int(tokens.max()) >= self.vocab_size:
                raise ValueError(
                    f"sample {index} holds token id {int(tokens.max()):,}, but the vocabulary has "
                    f"{self.vocab_size:,} tokens. Give the tokenizer the data was encoded with."
                )
