"""Which samples of its dataset a data-parallel rank reads at which iteration, by arithmetic alone.

A *position* counts the samples consumed before a sample, over all ranks. An iteration takes
consecutive positions: micro-batch after micro-batch, in each of them rank after rank. With
`dataloader_type: single` the position is the sample's number in the dataset; so it is in
Megatron-LM core_v0.16.1 (training/datasets/data_samplers.py), Megatron-Bridge 0.3.1
(data/samplers.py), NeMo 2.7.3 (lightning/data.py) and `mira midtrain`, and resuming changes nothing
about it. `cyclic_order` turns positions into samples for `dataloader_type: cyclic`.

Shape letters: M micro-batches of one rank in one iteration, B samples of a micro-batch, N
positions, I iterations of a batch-size ramp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Of Megatron-LM, Megatron-Bridge and NeMo, unless use_tp_pp_dp_mapping is set: then pp before dp.
RANK_ORDER = "tp-cp-ep-dp-pp"


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where positions are read; N positions."""

    iteration_N: npt.NDArray[np.int64]  # from 1, as training logs count
    micro_batch_N: npt.NDArray[np.int64]  # from 0, of its rank and iteration
    rank_N: npt.NDArray[np.int64]  # data-parallel, from 0
    row_N: npt.NDArray[np.int64]  # from 0, in its micro-batch


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOrder:
    """How positions are dealt out to iterations, micro-batches and ranks; made by `batch_order`."""

    micro_batch_size: int
    global_batch_size: int  # after a ramp
    data_parallel_size: int
    start_iteration: int  # the last one that read another dataset: 0, or the end of a phase
    ramp_ends_I: npt.NDArray[np.int64]  # samples consumed after each iteration of the ramp

    @property
    def samples_at_once(self) -> int:
        """Returns how many samples all ranks together read per micro-batch."""
        return self.micro_batch_size * self.data_parallel_size

    def consumed_before(self, iteration: int) -> int:
        """Returns how many samples of the dataset the earlier iterations read."""
        taken = iteration - self.start_iteration - 1
        if taken < 0:
            raise ValueError(
                f"iteration={iteration} is before the first, {self.start_iteration + 1}: "
                "iterations count from 1, after those of earlier phases"
            )
        num_ramping = len(self.ramp_ends_I)
        if taken <= num_ramping:
            return int(self.ramp_ends_I[taken - 1]) if taken else 0
        return self._ramp_samples + (taken - num_ramping) * self.global_batch_size

    def positions(self, iteration: int, rank: int) -> npt.NDArray[np.int64]:
        """Returns the positions that a data-parallel rank reads at an iteration, shape (M, B)."""
        if not 0 <= rank < self.data_parallel_size:
            raise ValueError(
                f"rank={rank} must be in 0..{self.data_parallel_size - 1}, a data-parallel rank"
            )
        first = self.consumed_before(iteration) + rank * self.micro_batch_size
        end = self.consumed_before(iteration + 1)
        starts_M = np.arange(first, end, self.samples_at_once, dtype=np.int64)
        return starts_M[:, None] + np.arange(self.micro_batch_size)

    def places(self, positions_N: npt.NDArray[np.int64]) -> Places:
        """Returns where each position is read."""
        num_ramping = len(self.ramp_ends_I)
        in_ramp_N = np.searchsorted(self.ramp_ends_I, positions_N, side="right")
        after_ramp_N = (positions_N - self._ramp_samples) // self.global_batch_size
        taken_N = np.where(in_ramp_N < num_ramping, in_ramp_N, num_ramping + after_ramp_N)
        ramp_starts = np.concatenate([[0], self.ramp_ends_I]).astype(np.int64)
        starts_N = np.where(
            in_ramp_N < num_ramping,
            ramp_starts[in_ramp_N],
            self._ramp_samples + after_ramp_N * self.global_batch_size,
        )
        offset_N = positions_N - starts_N
        within_N = offset_N % self.samples_at_once
        return Places(
            iteration_N=self.start_iteration + 1 + taken_N,
            micro_batch_N=offset_N // self.samples_at_once,
            rank_N=within_N // self.micro_batch_size,
            row_N=within_N % self.micro_batch_size,
        )

    def num_iterations(self, num_positions: int) -> int:
        """Returns how many whole iterations `num_positions` samples are enough for."""
        if num_positions < self._ramp_samples:
            return int(np.searchsorted(self.ramp_ends_I, num_positions, side="right"))
        left = num_positions - self._ramp_samples
        return len(self.ramp_ends_I) + left // self.global_batch_size

    @property
    def _ramp_samples(self) -> int:
        return int(self.ramp_ends_I[-1]) if len(self.ramp_ends_I) else 0


def batch_order(
    *,
    micro_batch_size: int,
    global_batch_size: int,
    data_parallel_size: int,
    rampup_batch_size: Sequence[int] | None = None,
    start_iteration: int = 0,
) -> BatchOrder:
    """Returns the order of a training with these batch sizes.

    `rampup_batch_size` is Megatron-LM's and Bridge's (start, increment, samples). NeMo 2.7.3 counts
    its ramp a step late and stops training at each rise, so a ramp of NeMo's is not this one.
    `start_iteration` is the last iteration of an earlier phase (--phase-transition-iterations).
    Raises ValueError where Megatron would refuse the sizes.
    """
    for name, value in (
        ("micro_batch_size", micro_batch_size),
        ("global_batch_size", global_batch_size),
        ("data_parallel_size", data_parallel_size),
    ):
        if value < 1:
            raise ValueError(f"{name}={value} must be positive")
    if start_iteration < 0 or (start_iteration and rampup_batch_size):
        raise ValueError(
            f"start_iteration={start_iteration} must not be negative, nor be given together with "
            f"rampup_batch_size={rampup_batch_size}: phases count in whole global batches"
        )
    at_once = micro_batch_size * data_parallel_size
    _check_divisible(global_batch_size, at_once, "global_batch_size")
    ramp_ends: list[int] = []
    if rampup_batch_size is not None:
        ramp_ends = _ramp_ends(rampup_batch_size, global_batch_size, at_once)
    return BatchOrder(
        micro_batch_size=micro_batch_size,
        global_batch_size=global_batch_size,
        data_parallel_size=data_parallel_size,
        start_iteration=start_iteration,
        ramp_ends_I=np.array(ramp_ends, dtype=np.int64),
    )


def data_parallel_rank(
    global_rank: int,
    *,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    context_parallel_size: int = 1,
    data_parallel_size: int,
    order: str = RANK_ORDER,
) -> int:
    """Returns the data-parallel rank that loads what a global rank trains on.

    `order` names the dimensions from the fastest to the slowest; expert parallelism takes no place
    of its own, it divides the others (megatron.core.parallel_state, 0.16.1).
    """
    sizes = {
        "tp": tensor_parallel_size,
        "cp": context_parallel_size,
        "ep": 1,
        "dp": data_parallel_size,
        "pp": pipeline_parallel_size,
    }
    names = order.split("-")
    if sorted(names) != sorted(sizes):
        raise ValueError(
            f"order={order!r} must name each of {', '.join(sizes)} once, from the fastest on"
        )
    world_size = int(np.prod(list(sizes.values())))
    if min(sizes.values()) < 1 or not 0 <= global_rank < world_size:
        raise ValueError(
            f"global rank {global_rank} must be in 0..{world_size - 1}: "
            + " x ".join(f"{name} {sizes[name]}" for name in names)
        )
    faster = int(np.prod([sizes[name] for name in names[: names.index("dp")]]))
    return global_rank // faster % data_parallel_size


def _ramp_ends(rampup: Sequence[int], global_batch_size: int, at_once: int) -> list[int]:
    """Returns the samples consumed after each iteration of a ramp.

    The batch size is that of Megatron's RampupBatchsizeNumMicroBatchesCalculator (megatron.core
    0.16.1), asked before each iteration for the samples consumed so far; floats as there.
    """
    if len(rampup) != 3 or min(rampup) < 1:
        raise ValueError(
            f"rampup_batch_size={list(rampup)} must be three positive numbers: start, increment, "
            "samples"
        )
    start, increment, num_samples = rampup
    rise = global_batch_size - start
    if rise <= 0 or rise % increment:
        raise ValueError(
            f"rampup_batch_size={list(rampup)} does not lead to global_batch_size="
            f"{global_batch_size}: the rise of {rise} must be a positive multiple of {increment}"
        )
    samples_per_increment = num_samples / (rise // increment)
    ends: list[int] = []
    consumed = 0
    while consumed <= num_samples:
        batch_size = start + int(consumed / samples_per_increment) * increment
        _check_divisible(batch_size, at_once, "the ramp's batch size")
        consumed += batch_size
        ends.append(consumed)
    return ends


def _check_divisible(batch_size: int, at_once: int, name: str) -> None:
    if batch_size % at_once:
        raise ValueError(
            f"{name} {batch_size} must be a multiple of {at_once} (micro_batch_size x "
            "data_parallel_size). With --decrease-batch-size-if-needed Megatron rounds down: give "
            "the size it rounds to."
        )
