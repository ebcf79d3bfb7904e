"""The shape of a GPT model, free of torch, so that a recipe can be read without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A Qwen2, or with `num_moe_experts` a Qwen3-MoE, in Megatron's own words.

    Both have RMSNorm, SwiGLU, rotary positions and grouped queries. Qwen2 is dense and has biases
    on q, k and v only; Qwen3-MoE has none, normalises q and k per head, and every layer is a
    mixture of experts whose chosen weights sum to 1.
    """

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int  # of a dense layer; of one expert it is moe_ffn_hidden_size
    num_attention_heads: int
    num_query_groups: int  # key/value heads; each serves an equal share of the attention heads
    max_sequence_length: int  # tokens
    rotary_base: int
    layernorm_epsilon: float
    tie_embeddings: bool  # one matrix for input embedding and output layer
    kv_channels: int | None = None  # per attention head; None: hidden_size / num_attention_heads
    # Qwen3-MoE only, and all of them there:
    num_moe_experts: int | None = None  # per layer
    moe_router_topk: int | None = None  # experts that a token goes to
    moe_ffn_hidden_size: int | None = None
    moe_aux_loss_coeff: float | None = None  # Qwen3-MoE's own default is 0.001

    def __post_init__(self) -> None:
        for name in (
            "num_layers",
            "hidden_size",
            "ffn_hidden_size",
            "num_attention_heads",
            "num_query_groups",
            "max_sequence_length",
            "rotary_base",
            "layernorm_epsilon",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} must be a multiple of 2 x num_attention_heads="
                f"{2 * self.num_attention_heads}: rotary positions turn channels of a head in pairs"
            )
        if self.num_attention_heads % self.num_query_groups:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_query_groups={self.num_query_groups}"
            )
