"""Checks of sizes: whether the GPUs can be divided as asked, and the data fill a step."""

from __future__ import annotations

from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.finding import ERROR, Finding
from mira_megatron.training.rank_parameters import ParallelSplit, gpu_problems


def check_parallel_sizes(facts: TrainingFacts) -> list[Finding]:
    """Finds parallel sizes that do not multiply to the GPUs."""
    if facts.num_gpus is None:
        return []
    split = ParallelSplit(
        num_gpus=facts.num_gpus,
        tensor=facts.tensor_parallel or 1,
        pipeline=facts.pipeline_parallel or 1,
        context=facts.context_parallel or 1,
        expert=facts.expert_parallel or 1,
    )
    return [
        Finding(
            level=ERROR,
            what=problem,
            where="model.*_model_parallel_size",
            way_out="change a size, or the number of GPUs",
        )
        for problem in gpu_problems(split)
    ]


def check_batch(facts: TrainingFacts) -> list[Finding]:
    """Finds a global batch that cannot be shared out evenly."""
    if facts.num_gpus is None or facts.global_batch_size is None:
        return []
    model_size = (
        (facts.tensor_parallel or 1)
        * (facts.pipeline_parallel or 1)
        * (facts.context_parallel or 1)
    )
    share = max(facts.num_gpus // model_size, 1) * (facts.micro_batch_size or 1)
    if facts.global_batch_size % share == 0:
        return []
    return [
        Finding(
            level=ERROR,
            what=f"a global batch of {facts.global_batch_size} is no multiple of data parallel "
            f"size x micro batch = {share}",
            where="train.global_batch_size",
            way_out=f"give a multiple of {share}",
        )
    ]


def check_enough_data(facts: TrainingFacts) -> list[Finding]:
    """Finds a dataset that does not fill one batch.

    Of Bridge's own loader no batch ever comes; of ours, one in which samples come twice.
    """
    if None in (facts.num_training_tokens, facts.sequence_length, facts.global_batch_size):
        return []
    assert facts.num_training_tokens is not None
    assert facts.sequence_length is not None
    assert facts.global_batch_size is not None
    num_samples = facts.num_training_tokens // facts.sequence_length
    if not facts.is_packed or num_samples >= facts.global_batch_size:
        return []
    return [
        Finding(
            level=ERROR,
            what=f"at most {facts.num_training_tokens:,} tokens fill {num_samples} samples of "
            f"{facts.sequence_length:,}, fewer than a global batch of {facts.global_batch_size}: "
            "no step reads each sample once",
            where="train.global_batch_size, dataset.seq_length",
            way_out="label more records, or lower one of the two",
        )
    ]


def check_cut(facts: TrainingFacts) -> list[Finding]:
    """Finds a sequence length that context parallelism cannot cut evenly."""
    context = facts.context_parallel or 1
    if facts.sequence_length is None or context == 1 or facts.sequence_length % (2 * context) == 0:
        return []
    return [
        Finding(
            level=ERROR,
            what=f"{facts.sequence_length:,} tokens cannot be cut into 2 x {context} equal pieces",
            where="model.seq_length",
            way_out=f"give a multiple of {2 * context}",
        )
    ]


def check_sequence_parallel(facts: TrainingFacts) -> list[Finding]:
    """Finds a share of a sample that tensor parallel GPUs cannot divide between their layers."""
    tensor, context = facts.tensor_parallel or 1, facts.context_parallel or 1
    if facts.sequence_length is None or facts.sequence_length // context % tensor == 0:
        return []
    return [
        Finding(
            level=ERROR,
            what=f"{facts.sequence_length // context:,} tokens of a sample on each GPU cannot be "
            f"cut into {tensor} equal parts by sequence parallelism",
            where="model.seq_length",
            way_out=f"give a multiple of {tensor * context}",
        )
    ]
