"""The shape of a GPT model, free of torch, so that a recipe can be read without it."""

from __future__ import annotations

from dataclasses import dataclass

_POSITIVE = (
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "num_query_groups",
    "max_sequence_length",
    "rotary_base",
    "layernorm_epsilon",
)
_OF_EXPERTS = ("num_moe_experts", "moe_router_topk", "moe_ffn_hidden_size", "moe_aux_loss_coeff")


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
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        self._check_heads()
        self._check_experts()

    @property
    def is_moe(self) -> bool:
        """Whether it is a Qwen3-MoE; a Qwen2 otherwise."""
        return self.num_moe_experts is not None

    @property
    def channels_per_head(self) -> int:
        """Channels of one attention head."""
        return self.kv_channels or self.hidden_size // self.num_attention_heads

    def _check_heads(self) -> None:
        if self.kv_channels is None and self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} must be a multiple of 2 x num_attention_heads="
                f"{2 * self.num_attention_heads}: rotary positions turn channels of a head in pairs"
            )
        if self.kv_channels is not None and (self.kv_channels <= 0 or self.kv_channels % 2):
            raise ValueError(
                f"kv_channels={self.kv_channels} must be positive and even: rotary positions turn "
                "channels of a head in pairs"
            )
        if self.num_attention_heads % self.num_query_groups:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_query_groups={self.num_query_groups}"
            )

    def _check_experts(self) -> None:
        given = {name: getattr(self, name) for name in _OF_EXPERTS}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == len(given):
            return
        if missing:
            raise ValueError(
                f"{', '.join(missing)} missing: a mixture of experts needs all of "
                f"{', '.join(given)}, a dense model none of them"
            )
        for name in ("num_moe_experts", "moe_router_topk", "moe_ffn_hidden_size"):
            if given[name] <= 0:
                raise ValueError(f"{name}={given[name]} must be positive")
        if given["moe_aux_loss_coeff"] < 0:
            raise ValueError(f"moe_aux_loss_coeff={self.moe_aux_loss_coeff} must not be negative")
        if given["moe_router_topk"] == 1:
            raise ValueError(
                "moe_router_topk=1 must be at least 2: the weights of the chosen experts sum to 1, "
                "so that of a single one never changes and the router learns nothing"
            )
        if given["moe_router_topk"] > given["num_moe_experts"]:
            raise ValueError(
                f"moe_router_topk={self.moe_router_topk} must not exceed "
                f"num_moe_experts={self.num_moe_experts}"
            )
