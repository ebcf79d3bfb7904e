"""What a Megatron-Bridge ConfigContainer's model takes of a GPU, from its own words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mira_megatron.doctor.finding import ERROR, INFO, Finding
from mira_megatron.training.memory import RECOMPUTE, StepSettings, estimate_memory
from mira_megatron.training.model_sizes import Experts, ModelSizes
from mira_megatron.training.rank_parameters import ParallelSplit, gpu_problems, model_problems

_SIZES = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "vocab_size")


def check_config_memory(config: Any, num_gpus: int) -> Iterator[Finding]:
    """Says what a step takes of a GPU, and finds what of the model cannot be cut so.

    Nothing where the model does not say its sizes, or has layers that are not counted here.
    """
    model = config.model
    sizes = config_sizes(model)
    if sizes is None:
        return
    split = ParallelSplit(
        num_gpus=num_gpus,
        tensor=model.tensor_model_parallel_size,
        pipeline=model.pipeline_model_parallel_size,
        context=model.context_parallel_size,
        expert=model.expert_model_parallel_size,
    )
    problems = model_problems(sizes, split)
    for problem in problems:
        where, way_out = "model.*_model_parallel_size", "change a size"
        yield Finding(level=ERROR, what=problem, where=where, way_out=way_out)
    if problems or gpu_problems(split):
        return  # nothing can be estimated of what cannot be cut
    memory = estimate_memory(sizes, split, _step(config))
    yield Finding(level=INFO, what=memory.in_words(), where="model")


def config_sizes(model: Any) -> ModelSizes | None:
    """Returns the sizes of a model provider; None where it does not say them or is of another kind.

    Counted are models whose layers are all alike, with softmax attention.
    """
    values = [getattr(model, name, None) for name in _SIZES]
    if getattr(model, "experimental_attention_variant", None) is not None:
        return None
    if not all(isinstance(value, int) for value in values):
        return None
    num_experts = getattr(model, "num_moe_experts", None)
    experts = None
    if num_experts is not None:
        if getattr(model, "moe_layer_freq", 1) != 1:
            return None
        experts = Experts(
            num_experts=num_experts,
            per_token=model.moe_router_topk,
            ffn_hidden_size=model.moe_ffn_hidden_size or model.ffn_hidden_size,
            shared_ffn_hidden_size=getattr(model, "moe_shared_expert_intermediate_size", 0) or 0,
        )
    heads = model.num_attention_heads
    return ModelSizes(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        vocab_size=model.vocab_size,
        max_positions=model.seq_length,
        tie_embeddings=bool(getattr(model, "share_embeddings_and_output_weights", False)),
        num_heads=heads,
        num_query_groups=getattr(model, "num_query_groups", None) or heads,
        head_dim=getattr(model, "kv_channels", None) or model.hidden_size // heads,
        has_qkv_bias=bool(getattr(model, "add_qkv_bias", False)),
        has_qk_norm=bool(getattr(model, "qk_layernorm", False)),
        has_attention_gate=bool(getattr(model, "attention_output_gate", False)),
        ffn_hidden_size=0 if experts is not None else model.ffn_hidden_size,
        experts=experts,
    )


def _step(config: Any) -> StepSettings:
    recompute = getattr(config.model, "recompute_granularity", None)
    moments = str(getattr(getattr(config, "optimizer", None), "exp_avg_dtype", "float32"))
    ddp = getattr(config, "ddp", None)
    return StepSettings(
        sequence_length=config.model.seq_length,
        micro_batch_size=config.train.micro_batch_size,
        recompute=recompute if recompute in RECOMPUTE else "none",
        gradient_bytes=4 if getattr(ddp, "grad_reduce_in_fp32", True) else 2,
        moment_bytes=2 if "16" in moments else 4,
        is_optimizer_sharded=bool(getattr(ddp, "use_distributed_optimizer", True)),
    )
