from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from megatron.core import parallel_state
from meta_models import build_rank, fake_world, state_bytes

from mira_megatron.training.bridge_models import QWEN3_30B_A3B, QWEN35_35B_A3B
from mira_megatron.training.hf_config import hf_config
from mira_megatron.training.memory import StepSettings, estimate_memory, estimate_stage
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.model_sizes import ModelSizes, model_sizes
from mira_megatron.training.rank_parameters import (
    ParallelSplit,
    gpu_problems,
    model_problems,
    num_parameters,
    rank_parameters,
)

pytestmark = pytest.mark.megatron

CODER_14B = ModelShape(
    num_layers=48,
    hidden_size=5120,
    ffn_hidden_size=13824,
    num_attention_heads=40,
    num_query_groups=8,
    max_sequence_length=32768,
    rotary_base=1_000_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=False,
)
QWEN3_30B = ModelShape(
    num_layers=48,
    hidden_size=2048,
    ffn_hidden_size=6144,
    num_attention_heads=32,
    num_query_groups=4,
    kv_channels=128,
    max_sequence_length=65536,
    rotary_base=10_000_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=False,
    num_moe_experts=128,
    moe_router_topk=8,
    moe_ffn_hidden_size=768,
    moe_aux_loss_coeff=1e-3,
)
TIED = ModelShape(
    num_layers=4,
    hidden_size=256,
    ffn_hidden_size=512,
    num_attention_heads=8,
    num_query_groups=2,
    max_sequence_length=128,
    rotary_base=10_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=True,
)
SMALL = ParallelSplit(num_gpus=8, tensor=4, pipeline=2, vocab_multiple=128)
STEP = StepSettings(sequence_length=32_768)


def _sizes(shape: ModelShape, vocab_size: int) -> ModelSizes:
    return model_sizes(hf_config(shape, vocab_size, torch.bfloat16))


@pytest.mark.parametrize("is_last", [False, True], ids=["first_rank", "last_rank"])
@pytest.mark.parametrize(
    ("shape", "vocab_size", "split"),
    [
        (CODER_14B, 152_064, ParallelSplit(num_gpus=8, tensor=4)),
        (CODER_14B, 152_064, ParallelSplit(num_gpus=8, tensor=8)),
        (CODER_14B, 152_064, ParallelSplit(num_gpus=64, tensor=2, pipeline=2, context=8)),
        (QWEN3_30B, 151_936, ParallelSplit(num_gpus=8, context=8, expert=8)),
        (QWEN3_30B, 151_936, ParallelSplit(num_gpus=64, tensor=8, pipeline=2, expert=8)),
        (TIED, 1000, SMALL),  # 2 key/value heads on 4 GPUs, an embedding padded to 1,024 rows
        (TIED, 1000, ParallelSplit(num_gpus=2)),
    ],
    ids=["14b_tp4", "14b_tp8", "14b_tp2_pp2_cp8", "30b_ep8", "30b_tp8_pp2_ep8", "tied_pp", "tied"],
)
def test_rank_holds_what_megatron_builds_for_it(
    shape: ModelShape,
    vocab_size: int,
    split: ParallelSplit,
    is_last: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = _sizes(shape, vocab_size)
    rank = split.num_gpus - 1 if is_last else 0
    with fake_world(split, rank=rank, monkeypatch=monkeypatch):
        stage = parallel_state.get_pipeline_model_parallel_rank()
        model = build_rank(shape, vocab_size, split)
        built = sum(parameter.numel() for parameter in model.parameters())
        gradients, optimizer = state_bytes(model)
    assert stage == (split.pipeline - 1 if is_last else 0)
    assert rank_parameters(sizes, split, stage).total == built
    estimate = estimate_stage(sizes, split, STEP, stage)
    assert estimate.weights == pytest.approx(2 * built / 1e9)
    # Megatron's buffers are padded so that all shards are equal: little, but not nothing.
    assert estimate.gradients == pytest.approx(gradients / 1e9, rel=1e-3)
    assert estimate.optimizer == pytest.approx(optimizer / 1e9, rel=1e-3)


def test_whole_models_have_the_parameters_that_transformers_counts() -> None:
    # sum(p.numel()) of Qwen3MoeForCausalLM and Qwen3_5MoeForCausalLM of these configs.
    counts = [num_parameters(model.sizes).total for model in (QWEN3_30B_A3B, QWEN35_35B_A3B)]
    assert counts == [30_532_122_624, 34_660_610_688]
    # 14.77 billion: the card of Qwen2.5-14B says 14.7B.
    assert num_parameters(_sizes(CODER_14B, 152_064)).total == 14_770_033_664


def test_linear_attention_is_cut_by_tensor_parallelism_but_for_its_norms() -> None:
    whole = rank_parameters(QWEN35_35B_A3B.sizes, ParallelSplit(num_gpus=2)).others
    half = rank_parameters(QWEN35_35B_A3B.sizes, ParallelSplit(num_gpus=2, tensor=2)).others
    # Held whole: norms, router and the shared expert's gate of 40 layers, the final norm, the norm
    # of 30 linear layers, those of queries and keys of 10 others.
    replicated = 40 * (2 * 2048 + 256 * 2048 + 2048) + 2048 + 30 * 128 + 10 * 2 * 256
    assert whole - replicated == 2 * (half - replicated)


@pytest.mark.parametrize(
    ("sizes", "split", "message"),
    [
        (QWEN3_30B_A3B.sizes, ParallelSplit(num_gpus=8, tensor=3), "8 GPUs are no multiple of"),
        (QWEN3_30B_A3B.sizes, ParallelSplit(num_gpus=8, expert=3), "multiple of expert 3 x pipel"),
        (QWEN3_30B_A3B.sizes, ParallelSplit(num_gpus=5, pipeline=5), "48 layers cannot be cut"),
        (QWEN3_30B_A3B.sizes, ParallelSplit(num_gpus=3, tensor=3), "32 attention heads cannot"),
        (QWEN3_30B_A3B.sizes, ParallelSplit(num_gpus=256, expert=256), "128 experts cannot be"),
        (_sizes(CODER_14B, 8), ParallelSplit(num_gpus=8, expert=8), "the model has no experts"),
        (_sizes(CODER_14B, 8), ParallelSplit(num_gpus=5, tensor=5), "8 key/value heads are neith"),
        (
            _sizes(replace(TIED, ffn_hidden_size=511), 8),
            ParallelSplit(num_gpus=2, tensor=2),
            "511 channels of a feed-forward layer cannot",
        ),
        (QWEN35_35B_A3B.sizes, ParallelSplit(num_gpus=32, tensor=32), "16 key heads of linear att"),
    ],
)
def test_split_that_cannot_be_says_what_does_not_divide(
    sizes: ModelSizes, split: ParallelSplit, message: str
) -> None:
    assert any(message in problem for problem in gpu_problems(split) + model_problems(sizes, split))
    with pytest.raises(ValueError, match="Change a parallel size"):
        estimate_memory(sizes, split, STEP)


def test_recomputation_keeps_a_layers_input_and_no_more() -> None:
    sizes, split = _sizes(CODER_14B, 152_064), ParallelSplit(num_gpus=8, context=8)
    kept = estimate_memory(sizes, split, replace(STEP, recompute="none")).activations
    recomputed = estimate_memory(sizes, split, STEP).activations
    # Per token: 4 of the hidden width, queries and what attention gives, keys, values, 3 of the
    # feed-forward width; two bytes each.
    layer = 4096 * 2 * (4 * 5120 + 2 * 5120 + 2 * 1024 + 3 * 13824) / 1e9
    assert kept == pytest.approx(49 * layer)  # 48 layers, and the gradients of one
    assert recomputed == pytest.approx(48 * 4096 * 2 * 5120 / 1e9 + 2 * layer)


def test_scores_are_kept_by_unfused_attention_unless_it_is_recomputed() -> None:
    sizes, split = _sizes(TIED, 1000), ParallelSplit(num_gpus=1)
    unfused = StepSettings(sequence_length=128, recompute="none", is_attention_fused=False)
    fused = replace(unfused, is_attention_fused=True)
    scores = 5 * 2 * 128 * 128 * 8 / 1e9  # 4 layers, and the gradients of one
    difference = (
        estimate_memory(sizes, split, unfused).activations
        - estimate_memory(sizes, split, fused).activations
    )
    assert difference == pytest.approx(scores)
    selective = replace(unfused, recompute="selective")
    assert estimate_memory(sizes, split, selective) == estimate_memory(sizes, split, fused)


def test_first_pipeline_stage_keeps_as_many_micro_batches_as_there_are_stages() -> None:
    sizes, split = _sizes(TIED, 1000), ParallelSplit(num_gpus=4, pipeline=4)
    first, last = (estimate_stage(sizes, split, STEP, stage).activations for stage in (0, 3))
    assert first - last == pytest.approx(3 * 32_768 * 2 * 256 / 1e9)


def test_tokens_of_a_gpu_decide_logits_and_activations() -> None:
    sizes = QWEN3_30B_A3B.sizes
    whole = estimate_memory(sizes, ParallelSplit(num_gpus=8, expert=8), STEP)
    cut = estimate_memory(sizes, ParallelSplit(num_gpus=8, context=4, expert=8), STEP)
    doubled = estimate_memory(
        sizes,
        ParallelSplit(num_gpus=8, context=4, expert=8),
        replace(STEP, micro_batch_size=2),
    )
    assert whole.logits == pytest.approx(32_768 * 151_936 * 6 / 1e9)
    assert (whole.logits, whole.activations) == pytest.approx((4 * cut.logits, 4 * cut.activations))
    assert (doubled.logits, doubled.activations) == pytest.approx(
        (2 * cut.logits, 2 * cut.activations)
    )


def test_precision_choices_decide_gradients_and_optimizer() -> None:
    sizes, split = _sizes(CODER_14B, 152_064), ParallelSplit(num_gpus=8)
    full = estimate_memory(sizes, split, STEP)
    coarse = estimate_memory(sizes, split, replace(STEP, gradient_bytes=2, moment_bytes=2))
    assert coarse.gradients == pytest.approx(full.gradients / 2)
    assert coarse.optimizer == pytest.approx(full.optimizer * 8 / 12)


def test_config_of_another_model_is_refused_by_name() -> None:
    config = hf_config(CODER_14B, 152_064, torch.bfloat16)
    with pytest.raises(ValueError, match=r"base: architectures=\['Mamba'\] is not known"):
        model_sizes({**config, "architectures": ["Mamba"]}, where="base")
    with pytest.raises(ValueError, match=r"base: hidden_size='5120', expected a whole number"):
        model_sizes({**config, "hidden_size": "5120"}, where="base")
    with pytest.raises(ValueError, match="layers that differ are not counted here"):
        model_sizes({**QWEN3_30B_A3B.hf_config, "mlp_only_layers": [0]})
    with pytest.raises(ValueError, match="recompute='some' must be one of full, selective, none"):
        StepSettings(sequence_length=1, recompute="some")
    with pytest.raises(ValueError, match="micro_batch_size=0 must be at least 1"):
        StepSettings(sequence_length=1, micro_batch_size=0)


def test_trainer_of_one_machine_keeps_a_whole_optimizer() -> None:
    sizes, split = _sizes(TIED, 1000), ParallelSplit(num_gpus=2)
    parameters = num_parameters(sizes).total
    step = StepSettings(sequence_length=128, is_optimizer_sharded=False)
    brain = estimate_memory(sizes, split, replace(step, gradient_bytes=2))
    assert (brain.weights, brain.gradients, brain.optimizer) == pytest.approx(
        (2 * parameters / 1e9, 2 * parameters / 1e9, 12 * parameters / 1e9)
    )
    single = estimate_memory(sizes, split, replace(step, value_bytes=4))
    assert (single.weights, single.optimizer) == pytest.approx(
        (4 * parameters / 1e9, 8 * parameters / 1e9)
    )
    assert single.activations == pytest.approx(2 * brain.activations)


def test_each_gpu_holds_a_whole_key_head_where_there_are_fewer_than_gpus() -> None:
    step = replace(STEP, recompute="none")
    layer = 32_768 * 2 * (4 * 256 / 4 + 2 * 256 / 4 + 2 * 32 + 3 * 512 / 4) / 1e9
    estimate = estimate_memory(_sizes(TIED, 1000), ParallelSplit(num_gpus=4, tensor=4), step)
    assert estimate.activations == pytest.approx(5 * layer)  # 4 layers, and the gradients of one
