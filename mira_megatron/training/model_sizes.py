"""The sizes of a GPT model from its config.json: what memory is counted from. Free of torch.

Known are Qwen2, Qwen3, Qwen3-MoE and the text part of Qwen3.5-MoE, whose layers are linear
attention (Gated DeltaNet) but for each fourth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARCHITECTURES = (
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3_5MoeForCausalLM",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearAttention:
    """Sizes of Gated DeltaNet, and which layers have it."""

    num_key_heads: int
    num_value_heads: int
    key_width: int  # of all key heads together
    value_width: int  # of all value heads together
    value_head_dim: int
    kernel: int  # of the convolution, in tokens
    interval: int  # each interval-th layer is full attention

    def is_linear(self, layer: int) -> bool:
        """Returns whether a layer, counted from 0, is linear attention."""
        return (layer + 1) % self.interval != 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """Sizes of a layer's mixture of experts; every layer is one."""

    num_experts: int
    per_token: int  # routed experts that a token goes to
    ffn_hidden_size: int
    shared_ffn_hidden_size: int  # 0: no expert is shared


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSizes:
    """Sizes of a decoder with RMSNorm, gated feed-forward layers and grouped queries."""

    num_layers: int
    hidden_size: int
    vocab_size: int  # rows of the embedding
    max_positions: int  # tokens
    tie_embeddings: bool
    num_heads: int
    num_query_groups: int  # key/value heads
    head_dim: int
    has_qkv_bias: bool
    has_qk_norm: bool
    has_attention_gate: bool  # the query projection is twice as wide
    ffn_hidden_size: int  # of a dense layer; 0 where all are mixtures of experts
    experts: Experts | None = None
    linear: LinearAttention | None = None

    @property
    def query_width(self) -> int:
        """Returns the channels of all queries."""
        return self.num_heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Returns the channels of all keys; values have as many."""
        return self.num_query_groups * self.head_dim

    def is_linear(self, layer: int) -> bool:
        """Returns whether a layer, counted from 0, is linear attention."""
        return self.linear is not None and self.linear.is_linear(layer)


def model_sizes(config: Mapping[str, Any], *, where: str = "config.json") -> ModelSizes:
    """Returns the sizes that a Hugging Face config tells of; `where` names it in messages.

    Raises ValueError for another architecture, a field that is missing or no whole number, and for
    a mixture whose layers differ.
    """
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{where}: architectures={config.get('architectures')!r} is not known, expected one of "
            f"{', '.join(ARCHITECTURES)}. The memory of another model cannot be estimated."
        )
    is_moe = architecture in ("Qwen3MoeForCausalLM", "Qwen3_5MoeForCausalLM")
    hidden_size = _whole(config, "hidden_size", where)
    num_heads = _whole(config, "num_attention_heads", where)
    has_head_dim = config.get("head_dim") is not None
    return ModelSizes(
        num_layers=_whole(config, "num_hidden_layers", where),
        hidden_size=hidden_size,
        vocab_size=_whole(config, "vocab_size", where),
        max_positions=_whole(config, "max_position_embeddings", where),
        tie_embeddings=bool(config.get("tie_word_embeddings", False)),
        num_heads=num_heads,
        num_query_groups=_whole(config, "num_key_value_heads", where),
        head_dim=_whole(config, "head_dim", where) if has_head_dim else hidden_size // num_heads,
        has_qkv_bias=architecture == "Qwen2ForCausalLM",
        has_qk_norm=architecture != "Qwen2ForCausalLM",
        has_attention_gate=architecture == "Qwen3_5MoeForCausalLM",
        ffn_hidden_size=0 if is_moe else _whole(config, "intermediate_size", where),
        experts=_experts(config, where) if is_moe else None,
        linear=_linear(config, where) if "linear_num_key_heads" in config else None,
    )


def _experts(config: Mapping[str, Any], where: str) -> Experts:
    if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        raise ValueError(
            f"{where}: decoder_sparse_step={config.get('decoder_sparse_step')}, mlp_only_layers="
            f"{config.get('mlp_only_layers')}: layers that differ are not counted here, expected "
            "a mixture of experts in every layer"
        )
    name = "num_experts" if "num_experts" in config else "num_local_experts"  # transformers 5
    return Experts(
        num_experts=_whole(config, name, where),
        per_token=_whole(config, "num_experts_per_tok", where),
        ffn_hidden_size=_whole(config, "moe_intermediate_size", where),
        shared_ffn_hidden_size=int(config.get("shared_expert_intermediate_size") or 0),
    )


def _linear(config: Mapping[str, Any], where: str) -> LinearAttention:
    key_heads = _whole(config, "linear_num_key_heads", where)
    value_heads = _whole(config, "linear_num_value_heads", where)
    value_head_dim = _whole(config, "linear_value_head_dim", where)
    return LinearAttention(
        num_key_heads=key_heads,
        num_value_heads=value_heads,
        key_width=key_heads * _whole(config, "linear_key_head_dim", where),
        value_width=value_heads * value_head_dim,
        value_head_dim=value_head_dim,
        kernel=_whole(config, "linear_conv_kernel_dim", where),
        interval=_whole(config, "full_attention_interval", where),
    )


def _whole(config: Mapping[str, Any], name: str, where: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"{where}: {name}={value!r}, expected a whole number of at least 1. Take the "
            "config.json of the model's release."
        )
    return value
