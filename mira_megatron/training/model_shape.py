"""The shape of a GPT model, free of torch, so that a recipe can be read without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A dense Qwen2: RMSNorm, SwiGLU, rotary positions, biases on q, k and v only."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int  # key/value heads; each serves an equal share of the attention heads
    max_sequence_length: int  # tokens
    rotary_base: int
    layernorm_epsilon: float
    tie_embeddings: bool  # one matrix for input embedding and output layer

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
