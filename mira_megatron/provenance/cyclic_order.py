"""`dataloader_type: cyclic`: positions of training become samples, shuffled anew every epoch.

As MegatronPretrainingRandomSampler deals them in Megatron-LM core_v0.16.1 and Megatron-Bridge
0.3.1 (data_samplers.py, samplers.py: `data_sharding` on or off) and in NeMo 2.7.3
(lightning/data.py: always on). Imports torch, whose generator shuffles.

An epoch has the samples that fill whole micro-batches of all ranks; the rest is not read in it.

Shape letters: N positions or samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mira_megatron.provenance.batch_order import BatchOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class CyclicOrder:
    """The order of one dataset's samples under a cyclic loader."""

    order: BatchOrder
    num_samples: int  # of the dataset
    has_data_sharding: bool  # Megatron's --no-data-sharding turns it off

    def __post_init__(self) -> None:
        if not self.samples_per_epoch:
            raise ValueError(
                f"the dataset's {self.num_samples} samples fill no micro-batch of all ranks "
                f"({self.order.samples_at_once} samples), so a cyclic loader yields nothing"
            )

    @property
    def samples_per_epoch(self) -> int:
        """Returns how many samples all ranks together read before they are shuffled anew."""
        return self.num_samples - self.num_samples % self.order.samples_at_once

    def samples(self, positions_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the sample read at each position."""
        epochs_N, within_N = np.divmod(positions_N, self.samples_per_epoch)
        samples_N = np.empty_like(positions_N)
        for epoch in np.unique(epochs_N).tolist():
            is_epoch_N = epochs_N == epoch
            samples_N[is_epoch_N] = self.epoch_samples(epoch)[within_N[is_epoch_N]]
        return samples_N

    def positions(
        self, samples_N: npt.NDArray[np.int64], *, end: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns every reading of samples before position `end`: the samples, and the positions.

        In the order of the positions; a sample stands there once per epoch, or less often.
        """
        samples: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        positions: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        for start in range(0, end, self.samples_per_epoch):
            dealt = self.epoch_samples(start // self.samples_per_epoch)[: end - start]
            within = np.flatnonzero(np.isin(dealt, samples_N))
            samples.append(dealt[within])
            positions.append(start + within)
        return np.concatenate(samples), np.concatenate(positions)

    def epoch_samples(self, epoch: int) -> npt.NDArray[np.int64]:
        """Returns the sample read at each position of one epoch.

        Raises ValueError for an epoch in which Megatron's ranks no longer keep step: without data
        sharding some are dealt one micro-batch more than others when the samples do not divide, and
        are then an epoch ahead.
        """
        self._check_in_step(epoch)
        micro, ranks = self.order.micro_batch_size, self.order.data_parallel_size
        within = np.arange(self.samples_per_epoch, dtype=np.int64)
        micro_batch, in_micro_batch = np.divmod(within, self.order.samples_at_once)
        rank, row = np.divmod(in_micro_batch, micro)
        of_rank = micro_batch * micro + row
        bucket_size = self.samples_per_epoch // ranks
        if self.has_data_sharding:
            dealt = rank * bucket_size + _permutation(bucket_size, epoch)[of_rank]
        else:
            dealt = _permutation(self._num_shuffled, epoch)[of_rank * ranks + rank]
        return np.asarray(dealt, dtype=np.int64)

    @property
    def _num_shuffled(self) -> int:
        """Returns how many samples are shuffled together without data sharding."""
        return self.num_samples - self.num_samples % self.order.micro_batch_size

    def _check_in_step(self, epoch: int) -> None:
        if not epoch or self.has_data_sharding:
            return
        micro, ranks = self.order.micro_batch_size, self.order.data_parallel_size
        most_dealt = -(-self._num_shuffled // ranks) // micro * micro  # to rank 0
        if most_dealt * ranks != self.samples_per_epoch:
            raise ValueError(
                f"after the first epoch of {self.samples_per_epoch:,} samples Megatron's ranks are "
                f"not in the same epoch any more: without data sharding {self.num_samples:,} "
                f"samples deal some of the {ranks} ranks a micro-batch more. "
                "Only the first epoch can be traced."
            )


def _permutation(size: int, epoch: int) -> npt.NDArray[np.int64]:
    generator = torch.Generator()
    generator.manual_seed(epoch)
    shuffled: npt.NDArray[np.int64] = torch.randperm(size, generator=generator).numpy()
    return shuffled
