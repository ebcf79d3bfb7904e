"""Which samples a rank reads at an iteration, beside the code of others that decides it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core import parallel_state
from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator

from mira_megatron.provenance.batch_order import batch_order, data_parallel_rank
from mira_megatron.provenance.cyclic_order import CyclicOrder
from mira_megatron.training.batches import Batches

pytestmark = pytest.mark.megatron

SMALL = st.integers(1, 4)


class Numbers:
    """A dataset whose samples hold nothing but their number."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        number = torch.tensor([index])
        return dict.fromkeys(("tokens", "labels", "loss_mask", "position_ids"), number)


@given(micro=SMALL, ranks=SMALL, accumulated=SMALL, iteration=st.integers(1, 5))
def test_rank_reads_what_our_own_trainer_gives_it(
    micro: int, ranks: int, accumulated: int, iteration: int
) -> None:
    size = micro * ranks * accumulated
    order = batch_order(micro_batch_size=micro, global_batch_size=size, data_parallel_size=ranks)
    trainer: Any = SimpleNamespace(micro_batch_size=micro, sequence_length=1)
    batches = Batches(Numbers(1000), cast("Any", trainer), 1000)
    for rank in range(ranks):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel_state, "_MPU_DATA_PARALLEL_RANK", rank)
            patch.setattr(parallel_state, "_MPU_DATA_PARALLEL_WORLD_SIZE", ranks)
            read = batches.between((iteration - 1) * size, iteration * size)
            expected = [batch.tokens_BS[:, 0].tolist() for batch in read]
        assert order.positions(iteration, rank).tolist() == expected


@settings(deadline=None)
@given(micro=SMALL, ranks=SMALL, rise=SMALL, steps=SMALL, per_step=st.integers(1, 60))
def test_ramp_takes_the_batch_sizes_of_megatrons_calculator(
    micro: int, ranks: int, rise: int, steps: int, per_step: int
) -> None:
    at_once = micro * ranks
    start, increment = at_once, rise * at_once
    size, samples = start + steps * increment, per_step * steps + 1
    order = batch_order(
        micro_batch_size=micro,
        global_batch_size=size,
        data_parallel_size=ranks,
        rampup_batch_size=(start, increment, samples),
    )
    calculator = RampupBatchsizeNumMicroBatchesCalculator(
        size, micro, ranks, False, 1, start, increment, samples
    )
    consumed = 0
    for iteration in range(1, samples // start + 4):
        calculator.update(consumed, consistency_check=True)
        assert order.consumed_before(iteration) == consumed
        assert order.positions(iteration, 0).shape == (calculator.get(), micro)
        consumed += calculator.get() * at_once
        assert order.num_iterations(consumed) == iteration
        assert order.num_iterations(consumed - 1) == iteration - 1


@given(
    micro=SMALL,
    ranks=SMALL,
    accumulated=SMALL,
    start=st.integers(0, 3),
    has_ramp=st.booleans(),
)
def test_places_are_where_positions_are_read(
    micro: int, ranks: int, accumulated: int, start: int, has_ramp: bool
) -> None:
    at_once = micro * ranks
    order = batch_order(
        micro_batch_size=micro,
        global_batch_size=at_once * (accumulated + 1),
        data_parallel_size=ranks,
        rampup_batch_size=(at_once, at_once * accumulated, 3 * at_once) if has_ramp else None,
        start_iteration=0 if has_ramp else start,
    )
    first = order.start_iteration + 1
    seen = 0
    for iteration in range(first, first + 8):
        for rank in range(ranks):
            positions = order.positions(iteration, rank)
            for micro_batch, rows in enumerate(positions):
                places = order.places(rows)
                assert set(places.iteration_N) == {iteration}
                assert set(places.micro_batch_N) == {micro_batch}
                assert set(places.rank_N) == {rank}
                assert places.row_N.tolist() == list(range(micro))
            seen += positions.size
    assert seen == order.consumed_before(first + 8)


@given(tp=SMALL, cp=SMALL, dp=SMALL, pp=SMALL, is_pipeline_first=st.booleans())
def test_global_ranks_have_the_data_parallel_rank_of_megatrons_groups(
    tp: int, cp: int, dp: int, pp: int, is_pipeline_first: bool
) -> None:
    order = "tp-cp-ep-pp-dp" if is_pipeline_first else "tp-cp-ep-dp-pp"
    generator = parallel_state.RankGenerator(tp=tp, ep=1, dp=dp, pp=pp, cp=cp, order=order)
    for group in generator.get_ranks("dp"):
        found = [
            data_parallel_rank(
                rank,
                tensor_parallel_size=tp,
                pipeline_parallel_size=pp,
                context_parallel_size=cp,
                data_parallel_size=dp,
                order=order,
            )
            for rank in group
        ]
        assert found == list(range(dp))


@pytest.mark.parametrize("has_data_sharding", [True, False])
def test_cyclic_epochs_deal_every_sample_once_and_are_inverted(has_data_sharding: bool) -> None:
    order = batch_order(micro_batch_size=2, global_batch_size=12, data_parallel_size=3)
    cyclic = CyclicOrder(order=order, num_samples=30, has_data_sharding=has_data_sharding)
    samples = cyclic.samples(np.arange(90))
    epochs = samples.reshape(3, 30)
    assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(30))] * 3
    assert epochs[0].tolist() != epochs[1].tolist()
    read, positions = cyclic.positions(np.array([4, 17]), end=75)
    assert samples[positions].tolist() == read.tolist()
    assert positions.tolist() == [at for at in range(75) if samples[at] in (4, 17)]


def test_cyclic_loader_whose_ranks_drift_apart_is_traced_in_its_first_epoch_alone() -> None:
    order = batch_order(micro_batch_size=1, global_batch_size=4, data_parallel_size=4)
    cyclic = CyclicOrder(order=order, num_samples=10, has_data_sharding=False)
    assert len(set(cyclic.samples(np.arange(8)).tolist())) == 8
    with pytest.raises(ValueError, match="Only the first epoch can be traced"):
        cyclic.samples(np.array([8]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch_size": 10}, "global_batch_size 10 must be a multiple of 8"),
        ({"micro_batch_size": 0}, "micro_batch_size=0 must be positive"),
        ({"rampup_batch_size": (8, 8)}, "must be three positive numbers"),
        ({"rampup_batch_size": (8, 5, 100)}, "rise of 16 must be a positive multiple of 5"),
        ({"rampup_batch_size": (24, 8, 100)}, "rise of 0 must be a positive multiple"),
        ({"rampup_batch_size": (4, 4, 100)}, "the ramp's batch size 4 must be a multiple of 8"),
        ({"rampup_batch_size": (8, 8, 9), "start_iteration": 2}, "start_iteration=2 must not"),
    ],
)
def test_batch_sizes_that_megatron_refuses_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    sizes = {"micro_batch_size": 2, "global_batch_size": 24, "data_parallel_size": 4, **changes}
    with pytest.raises(ValueError, match=message):
        batch_order(**sizes)


def test_ranks_and_iterations_that_do_not_exist_are_refused() -> None:
    order = batch_order(
        micro_batch_size=1, global_batch_size=2, data_parallel_size=2, start_iteration=100
    )
    assert order.positions(101, 1).tolist() == [[1]]
    with pytest.raises(ValueError, match=r"rank=2 must be in 0\.\.1"):
        order.positions(101, 2)
    with pytest.raises(ValueError, match="iteration=100 is before the first, 101"):
        order.positions(100, 0)
    with pytest.raises(ValueError, match=r"global rank 8 must be in 0\.\.7"):
        data_parallel_rank(8, tensor_parallel_size=4, data_parallel_size=2)
