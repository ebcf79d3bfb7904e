from __future__ import annotations

from dataclasses import replace

from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.layout_checks import (
    check_batch,
    check_cut,
    check_enough_data,
    check_parallel_sizes,
    check_sequence_parallel,
)

FITTING = TrainingFacts(
    num_gpus=64,
    tensor_parallel=1,
    pipeline_parallel=2,
    context_parallel=8,
    expert_parallel=8,
    global_batch_size=32,
    micro_batch_size=1,
    sequence_length=65_536,
    num_training_tokens=32 * 65_536,
    is_packed=True,
)


def test_sizes_that_multiply_are_silent() -> None:
    for check in (check_parallel_sizes, check_batch, check_cut, check_enough_data):
        assert not check(FITTING)


def test_parallel_sizes_that_do_not_divide_the_gpus_are_found() -> None:
    (finding,) = check_parallel_sizes(replace(FITTING, tensor_parallel=3))
    assert "tensor 3 x pipeline 2 x context 8 = 48" in finding.what


def test_expert_parallel_size_that_does_not_divide_the_gpus_is_found() -> None:
    (finding,) = check_parallel_sizes(replace(FITTING, expert_parallel=24))
    assert "expert 24 x pipeline 2 = 48" in finding.what


def test_global_batch_that_cannot_be_shared_out_is_found() -> None:
    (finding,) = check_batch(replace(FITTING, global_batch_size=30))
    assert finding.way_out == "give a multiple of 4"


def test_sequence_length_that_cannot_be_cut_is_found() -> None:
    (finding,) = check_cut(replace(FITTING, sequence_length=65_528))
    assert finding.way_out == "give a multiple of 16"


def test_data_that_do_not_fill_a_batch_are_found() -> None:
    (finding,) = check_enough_data(replace(FITTING, num_training_tokens=32 * 65_536 - 1))
    assert "at most 2,097,151 tokens fill 31 samples of 65,536" in finding.what
    assert "fewer than a global batch of 32" in finding.what


def test_share_of_a_sample_that_sequence_parallelism_cannot_cut_is_found() -> None:
    assert not check_sequence_parallel(replace(FITTING, tensor_parallel=4, context_parallel=2))
    facts = replace(FITTING, tensor_parallel=4, context_parallel=2, sequence_length=65_540)
    (finding,) = check_sequence_parallel(facts)
    assert "32,770 tokens" in finding.what
    assert finding.way_out == "give a multiple of 8"
