"""How many parameters lie on one GPU when a model is cut by Megatron. Free of torch.

Counted as megatron-core 0.16.1 cuts (tests build its GPTModel beside it): tensor parallelism cuts
the projections, the embedding and the heads, and leaves norms and the router whole; the experts are
cut by expert parallelism alone (expert tensor parallel size 1); the embedding is on the first
pipeline stage and the output layer on the last, which keeps its own copy where the two are tied.
"""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron.training.model_sizes import ModelSizes


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelSplit:
    """How a model and its batch are cut; `num_gpus` is all of them."""

    num_gpus: int
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1
    # The embedding is padded to a multiple of this times the tensor parallel size.
    vocab_multiple: int = 1

    @property
    def data(self) -> int:
        """Returns the data parallel size: samples worked on at the same time."""
        return self.num_gpus // (self.tensor * self.pipeline * self.context)

    @property
    def shards(self) -> int:
        """Returns over how many GPUs the optimizer state of what is no expert is cut."""
        return self.num_gpus // (self.tensor * self.pipeline)

    @property
    def expert_shards(self) -> int:
        """Returns over how many GPUs the optimizer state of an expert is cut."""
        return self.num_gpus // (self.expert * self.pipeline)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankParameters:
    """Parameters of one GPU."""

    experts: int
    others: int

    @property
    def total(self) -> int:
        """Returns the sum."""
        return self.experts + self.others


def gpu_problems(split: ParallelSplit) -> list[str]:
    """Returns why the GPUs cannot be shared out so, each a message without a way out."""
    num_gpus, tensor, pipeline, expert = split.num_gpus, split.tensor, split.pipeline, split.expert
    replica = tensor * pipeline * split.context
    problems = []
    if num_gpus % replica:
        problems.append(
            f"{num_gpus} GPUs are no multiple of tensor {tensor} x pipeline {pipeline} x "
            f"context {split.context} = {replica}"
        )
    if num_gpus % (expert * pipeline):
        problems.append(
            f"{num_gpus} GPUs are no multiple of expert {expert} x pipeline {pipeline} = "
            f"{expert * pipeline}"
        )
    return problems


def model_problems(sizes: ModelSizes, split: ParallelSplit) -> list[str]:
    """Returns what of a model cannot be cut so, each a message without a way out."""
    tensor, groups = split.tensor, sizes.num_query_groups
    cut = [
        (sizes.num_layers, split.pipeline, "layers"),
        (sizes.num_heads, tensor, "attention heads"),
        (sizes.ffn_hidden_size, tensor, "channels of a feed-forward layer"),
    ]
    if sizes.experts is not None:
        cut.append((sizes.experts.num_experts, split.expert, "experts"))
        cut.append((sizes.experts.shared_ffn_hidden_size, tensor, "channels of a shared expert"))
    if sizes.linear is not None:
        cut.append((sizes.linear.num_key_heads, tensor, "key heads of linear attention"))
        cut.append((sizes.linear.num_value_heads, tensor, "value heads of linear attention"))
    problems = [
        f"{number:,} {what} cannot be cut into {parts} equal parts"
        for number, parts, what in cut
        if number % parts
    ]
    if groups % tensor and tensor % groups:
        problems.append(
            f"{groups} key/value heads are neither a multiple nor a divisor of tensor {tensor}"
        )
    if sizes.experts is None and split.expert > 1:
        problems.append(f"expert parallel size {split.expert}, and the model has no experts")
    return problems


def embedding_rows(sizes: ModelSizes, split: ParallelSplit) -> int:
    """Returns the embedding's rows of one GPU, padded so that all have as many."""
    multiple = split.vocab_multiple * split.tensor
    return -(-sizes.vocab_size // multiple) * split.vocab_multiple


def stage_layers(sizes: ModelSizes, split: ParallelSplit, stage: int) -> range:
    """Returns the layers of a pipeline stage, counted from 0."""
    per_stage = sizes.num_layers // split.pipeline
    return range(stage * per_stage, (stage + 1) * per_stage)


def rank_parameters(sizes: ModelSizes, split: ParallelSplit, stage: int = 0) -> RankParameters:
    """Returns the parameters of a GPU of a pipeline stage, counted from 0.

    Every GPU of a stage has as many. Raises ValueError where the model cannot be cut so.
    """
    if problems := [*gpu_problems(split), *model_problems(sizes, split)]:
        raise ValueError(f"{'; '.join(problems)}. Change a parallel size.")
    layers = stage_layers(sizes, split, stage)
    embedding = embedding_rows(sizes, split) * sizes.hidden_size
    is_first, is_last = stage == 0, stage == split.pipeline - 1
    others = embedding if is_first else 0
    if is_last:
        has_own_output = not (sizes.tie_embeddings and is_first)
        others += sizes.hidden_size + (embedding if has_own_output else 0)
    for layer in layers:
        mixer = _gated_delta_net if sizes.is_linear(layer) else _full_attention
        others += mixer(sizes, split.tensor) + _feed_forward(sizes, split.tensor)
        others += 2 * sizes.hidden_size  # the two norms
    return RankParameters(experts=len(layers) * _routed_experts(sizes, split.expert), others=others)


def num_parameters(sizes: ModelSizes) -> RankParameters:
    """Returns the parameters of the whole model."""
    return rank_parameters(sizes, ParallelSplit(num_gpus=1))


def _full_attention(sizes: ModelSizes, tensor: int) -> int:
    """Returns the parameters of softmax attention: q (gated: twice), k, v, out, norms of q and k.

    More tensor parallel GPUs than key/value heads cut within a head, and gather it in each step.
    """
    gated = 2 if sizes.has_attention_gate else 1
    qkv_width = gated * sizes.query_width + 2 * sizes.key_width
    bias = qkv_width if sizes.has_qkv_bias else 0
    cut = qkv_width * sizes.hidden_size + bias + sizes.query_width * sizes.hidden_size
    return cut // tensor + (2 * sizes.head_dim if sizes.has_qk_norm else 0)


def _gated_delta_net(sizes: ModelSizes, tensor: int) -> int:
    """Returns the parameters of linear attention: qkv, z, b and a, convolution, norm, out."""
    linear = sizes.linear
    assert linear is not None, "a layer is linear only where the model has the sizes of it"
    keys, values, heads = linear.key_width, linear.value_width, linear.num_value_heads
    projections = sizes.hidden_size * (2 * keys + 2 * values + 2 * heads)
    convolution = (2 * keys + values) * linear.kernel
    decay = 2 * heads  # A_log and dt_bias
    cut = projections + convolution + decay + values * sizes.hidden_size
    return cut // tensor + linear.value_head_dim


def _feed_forward(sizes: ModelSizes, tensor: int) -> int:
    """Returns the parameters of a dense layer, or of a mixture's router and shared expert."""
    hidden = sizes.hidden_size
    if sizes.experts is None:
        return 3 * hidden * sizes.ffn_hidden_size // tensor
    shared = sizes.experts.shared_ffn_hidden_size
    gate = hidden if shared else 0
    return hidden * sizes.experts.num_experts + 3 * hidden * shared // tensor + gate


def _routed_experts(sizes: ModelSizes, expert: int) -> int:
    """Returns the parameters of a layer's routed experts on one GPU: gate, up and down."""
    if sizes.experts is None:
        return 0
    matrices = 3 * sizes.hidden_size * sizes.experts.ffn_hidden_size
    return sizes.experts.num_experts // expert * matrices
