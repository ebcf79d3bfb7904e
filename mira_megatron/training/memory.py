"""The memory of one GPU at the fullest moment of a training step: an estimate from sizes.

Parameters are exact (`rank_parameters`), and so are gradients and optimizer state, but for the
padding of buffers. Activations are counted from what each layer keeps for its backward pass, after
Korthikanti et al. 2022 (arXiv 2205.05198, section 4), adapted: gated feed-forward layers, grouped
queries, no dropout, fused attention that keeps no scores, routed experts, and sequence parallelism
wherever there is tensor parallelism. Free of torch; nothing here was measured on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from mira_megatron.training.model_sizes import ModelSizes
from mira_megatron.training.rank_parameters import (
    ParallelSplit,
    embedding_rows,
    rank_parameters,
    stage_layers,
)

# Of a GPU, in 10^9 bytes; and what CUDA, NCCL and the allocator's gaps take of it.
GPU_GB = {"h200": 141.0, "h100": 80.0}
RESERVED_GB = 8.0
# A routed token may meet a full GPU: how many times the mean an expert rank is counted with.
EXPERT_IMBALANCE = 2
RECOMPUTE = ("full", "selective", "none")
_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSettings:
    """What of a training, beside model and split, decides its memory."""

    sequence_length: int  # tokens of a sample
    micro_batch_size: int = 1  # samples that go through a model replica together
    # full: a layer keeps its input and is run again; selective: attention alone is run again, which
    # saves the scores that unfused attention keeps; none: everything is kept.
    recompute: str = "full"
    is_attention_fused: bool = True  # keeps no scores (flash attention, Transformer Engine)
    value_bytes: int = 2  # of a weight and of an activation: 2 bfloat16, 4 float32
    gradient_bytes: int = 4  # of a gradient: 4 float32, 2 bfloat16
    moment_bytes: int = 4  # of each of Adam's two moments
    is_optimizer_sharded: bool = True  # Megatron's distributed optimizer

    def __post_init__(self) -> None:
        if self.recompute not in RECOMPUTE:
            raise ValueError(f"recompute={self.recompute!r} must be one of {', '.join(RECOMPUTE)}")
        for name in (
            "sequence_length",
            "micro_batch_size",
            "value_bytes",
            "gradient_bytes",
            "moment_bytes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def state_bytes(self) -> int:
        """Returns the optimizer's bytes of a parameter: both moments, and a float32 copy of it.

        What is trained in float32 needs no copy.
        """
        return 2 * self.moment_bytes + (_FLOAT32_BYTES if self.value_bytes < _FLOAT32_BYTES else 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """What one GPU holds at the fullest moment of a step, in 10^9 bytes."""

    weights: float
    gradients: float
    optimizer: float  # main parameters and two moments
    logits: float  # as the model gives them, and float32 in the cross entropy, in place
    activations: float

    @property
    def total(self) -> float:
        """Returns the sum."""
        return self.weights + self.gradients + self.optimizer + self.logits + self.activations

    def in_words(self) -> str:
        """Returns what a step takes, whole and in parts."""
        parts = ", ".join(f"{each.name} {getattr(self, each.name):.1f}" for each in fields(self))
        return f"a step takes about {self.total:.1f} GB of a GPU ({parts})"

    def fits(self, gpu: str) -> bool:
        """Returns whether a GPU of this kind has the room, less what is reserved."""
        return self.total <= GPU_GB[gpu] - RESERVED_GB


def estimate_memory(sizes: ModelSizes, split: ParallelSplit, step: StepSettings) -> MemoryEstimate:
    """Returns what a GPU of the fullest pipeline stage holds.

    Raises ValueError where the model cannot be cut so.
    """
    stages = [estimate_stage(sizes, split, step, stage) for stage in range(split.pipeline)]
    return max(stages, key=lambda estimate: estimate.total)


def estimate_stage(
    sizes: ModelSizes, split: ParallelSplit, step: StepSettings, stage: int
) -> MemoryEstimate:
    """Returns what a GPU of one pipeline stage, counted from 0, holds."""
    parameters = rank_parameters(sizes, split, stage)
    tokens = step.micro_batch_size * step.sequence_length / split.context
    held: float = parameters.total  # whose optimizer state this GPU keeps
    if step.is_optimizer_sharded:
        held = parameters.experts / split.expert_shards + parameters.others / split.shards
    is_last = stage == split.pipeline - 1
    rows = embedding_rows(sizes, split) if is_last else 0
    return MemoryEstimate(
        weights=step.value_bytes * parameters.total / 1e9,
        gradients=step.gradient_bytes * parameters.total / 1e9,
        optimizer=step.state_bytes * held / 1e9,
        logits=(step.value_bytes + _FLOAT32_BYTES) * tokens * rows / 1e9,
        activations=_activation_bytes(sizes, split, step, stage) / 1e9,
    )


def _activation_bytes(
    sizes: ModelSizes, split: ParallelSplit, step: StepSettings, stage: int
) -> float:
    """Returns what the stage's layers keep, of every micro-batch under way.

    The schedule is 1F1B: stage 0 of P has P micro-batches under way, the last stage one. To what is
    kept comes the layer that is being worked on: its activations' gradients, and where layers are
    recomputed its activations too.
    """
    in_flight = split.pipeline - stage
    layers = stage_layers(sizes, split, stage)
    whole = [_layer_bytes(sizes, split, step, layer) for layer in layers]
    if step.recompute != "full":
        return in_flight * sum(whole) + max(whole)
    tokens = step.micro_batch_size * step.sequence_length / (split.context * split.tensor)
    kept_input = step.value_bytes * tokens * sizes.hidden_size
    return in_flight * len(layers) * kept_input + 2 * max(whole)


def _layer_bytes(sizes: ModelSizes, split: ParallelSplit, step: StepSettings, layer: int) -> float:
    """Returns the bytes of all that one layer keeps of a micro-batch.

    Of the hidden width are the inputs of both norms and what the norms put out: cut along the
    sequence by sequence parallelism. All else is cut along heads or the feed-forward width.
    """
    tokens = step.micro_batch_size * step.sequence_length / split.context
    mixer = _delta_net_values if sizes.is_linear(layer) else _attention_values
    values = 4 * sizes.hidden_size / split.tensor + mixer(sizes, split.tensor)
    values += _feed_forward_values(sizes, split.tensor)
    scores = 0.0
    keeps_scores = not step.is_attention_fused and step.recompute == "none"
    if keeps_scores and not sizes.is_linear(layer):
        scores = tokens * step.sequence_length * sizes.num_heads / split.tensor
    return step.value_bytes * (tokens * values + scores)


def _attention_values(sizes: ModelSizes, tensor: int) -> float:
    """Returns the values per token of attention: q (and its gate), k, v and what comes out.

    With fewer key/value heads than GPUs, each GPU holds a whole head.
    """
    gated = 2 if sizes.has_attention_gate else 1
    keys = max(sizes.key_width / tensor, sizes.head_dim)
    norm_inputs = sizes.query_width / tensor + keys if sizes.has_qk_norm else 0.0
    return (gated + 1) * sizes.query_width / tensor + 2 * keys + norm_inputs


def _delta_net_values(sizes: ModelSizes, tensor: int) -> float:
    """Returns the values per token of Gated DeltaNet: projections, convolved qkv, out, normed."""
    linear = sizes.linear
    assert linear is not None, "a layer is linear only where the model has the sizes of it"
    projected = 2 * linear.key_width + 2 * linear.value_width + 2 * linear.num_value_heads
    convolved = 2 * linear.key_width + linear.value_width
    return (projected + convolved + 2 * linear.value_width) / tensor


def _feed_forward_values(sizes: ModelSizes, tensor: int) -> float:
    """Returns the values per token of the feed-forward part: gate, up and their product.

    A routed token is copied for each of its experts: its input, the three of the expert's width,
    its output. Sequence parallelism shares the tokens out before they are routed.
    """
    if sizes.experts is None:
        return 3 * sizes.ffn_hidden_size / tensor
    routed = sizes.experts.per_token * EXPERT_IMBALANCE
    of_expert = 2 * sizes.hidden_size + 3 * sizes.experts.ffn_hidden_size
    return (routed * of_expert + 3 * sizes.experts.shared_ffn_hidden_size) / tensor
