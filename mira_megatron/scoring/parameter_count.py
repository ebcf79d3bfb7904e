"""How many parameters a model has, by its config.json alone.

Exact for the architectures of `KINDS`, as transformers builds them; a layer that predicts further
tokens (Qwen3.5's `mtp`), which a checkpoint may hold besides, is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What sets the architectures apart; the rest is said by the config's numbers."""

    has_qkv_bias: bool = False  # unless the config says otherwise
    has_qk_norm: bool = False
    has_gated_query: bool = False  # the query projection also makes a gate for the output
    has_linear_layers: bool = False  # gated delta nets take the place of most attention layers
    has_experts: bool = False


KINDS: Mapping[str, Kind] = {
    "llama": Kind(),
    "qwen2": Kind(has_qkv_bias=True),
    "qwen2_moe": Kind(has_qkv_bias=True, has_experts=True),
    "qwen3": Kind(has_qk_norm=True),
    "qwen3_moe": Kind(has_qk_norm=True, has_experts=True),
    "qwen3_next": Kind(
        has_qk_norm=True, has_gated_query=True, has_linear_layers=True, has_experts=True
    ),
    "qwen3_5_text": Kind(has_qk_norm=True, has_gated_query=True, has_linear_layers=True),
    "qwen3_5_moe_text": Kind(
        has_qk_norm=True, has_gated_query=True, has_linear_layers=True, has_experts=True
    ),
}


def num_parameters(config: Mapping[str, Any]) -> int | None:
    """Returns the parameters of the model a config.json describes; None for another architecture.

    Raises ValueError for a number that is missing or cannot be one.
    """
    text = text_config(config)
    kind = KINDS.get(str(text.get("model_type")))
    if kind is None:
        return None
    hidden = _number(text, "hidden_size")
    layers = range(_number(text, "num_hidden_layers"))
    embeddings = _number(text, "vocab_size") * hidden * (1 if has_tied_embeddings(config) else 2)
    mixers = sum(
        _attention(text, kind) if _is_full_attention(text, kind, layer) else _linear_attention(text)
        for layer in layers
    )
    mlps = sum(
        _experts(text) if _is_sparse(text, kind, layer) else _mlp(text, "intermediate_size")
        for layer in layers
    )
    norms = (2 * len(layers) + 1) * hidden
    vision = config.get("vision_config")
    return embeddings + mixers + mlps + norms + (_vision(vision) if vision else 0)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the language model's part of a config: all of it, where there is no wrapper."""
    wrapped = config.get("text_config")
    return wrapped if isinstance(wrapped, Mapping) else config


def has_tied_embeddings(config: Mapping[str, Any]) -> bool:
    """True where one matrix is both input embedding and output layer."""
    inner = text_config(config).get("tie_word_embeddings", False)
    return bool(config.get("tie_word_embeddings", inner))


def _attention(text: Mapping[str, Any], kind: Kind) -> int:
    hidden, heads = _number(text, "hidden_size"), _number(text, "num_attention_heads")
    head_dim = _number(text, "head_dim", default=hidden // heads)
    query = heads * head_dim * (2 if kind.has_gated_query else 1)
    key_value = 2 * _number(text, "num_key_value_heads", default=heads) * head_dim
    has_bias = bool(text.get("attention_bias", False))  # of all four projections
    has_qkv_bias = has_bias or bool(text.get("qkv_bias", kind.has_qkv_bias))
    projections = hidden * (query + key_value) + heads * head_dim * hidden
    biases = (query + key_value if has_qkv_bias else 0) + (hidden if has_bias else 0)
    return projections + biases + (2 * head_dim if kind.has_qk_norm else 0)


def _linear_attention(text: Mapping[str, Any]) -> int:
    """A gated delta net: queries, keys, values, gate, decay and step, and a short convolution."""
    hidden = _number(text, "hidden_size")
    value_heads, value_dim = (
        _number(text, "linear_num_value_heads"),
        _number(text, "linear_value_head_dim"),
    )
    key = _number(text, "linear_num_key_heads") * _number(text, "linear_key_head_dim")
    value = value_heads * value_dim
    projections = hidden * (2 * key + 2 * value + 2 * value_heads) + value * hidden
    convolution = (2 * key + value) * _number(text, "linear_conv_kernel_dim")
    return projections + convolution + 2 * value_heads + value_dim


def _mlp(text: Mapping[str, Any], width_key: str) -> int:
    hidden, width = _number(text, "hidden_size"), _number(text, width_key)
    biases = 2 * width + hidden if text.get("mlp_bias", False) else 0
    return 3 * hidden * width + biases


def _experts(text: Mapping[str, Any]) -> int:
    """Router, experts, and the shared expert with its gate where there is one."""
    hidden, num_experts = _number(text, "hidden_size"), _num_experts(text)
    routed = num_experts * (hidden + _mlp(text, "moe_intermediate_size"))
    if not text.get("shared_expert_intermediate_size"):
        return routed
    return routed + _mlp(text, "shared_expert_intermediate_size") + hidden


def _num_experts(text: Mapping[str, Any]) -> int:
    # transformers 5 writes some configs with the second name.
    return _number(text, "num_experts" if "num_experts" in text else "num_local_experts")


def _is_full_attention(text: Mapping[str, Any], kind: Kind, layer: int) -> bool:
    if not kind.has_linear_layers:
        return True
    if text.get("layer_types"):
        return bool(text["layer_types"][layer] == "full_attention")
    return (layer + 1) % _number(text, "full_attention_interval", default=4) == 0


def _is_sparse(text: Mapping[str, Any], kind: Kind, layer: int) -> bool:
    if not kind.has_experts or layer in (text.get("mlp_only_layers") or ()):
        return False
    return (layer + 1) % _number(text, "decoder_sparse_step", default=1) == 0


def _vision(vision: Mapping[str, Any]) -> int:
    """Qwen's vision tower: patches, blocks with biases everywhere, and the merger behind them."""
    hidden, ffn = _number(vision, "hidden_size"), _number(vision, "intermediate_size")
    pixels = _number(vision, "in_channels") * _number(vision, "patch_size") ** 2
    patches = hidden * (pixels * _number(vision, "temporal_patch_size") + 1)
    positions = _number(vision, "num_position_embeddings") * hidden
    attention = 4 * hidden * (hidden + 1)
    block = attention + 2 * hidden * ffn + ffn + hidden + 4 * hidden
    merged = hidden * _number(vision, "spatial_merge_size") ** 2
    merger = 2 * hidden + merged * (merged + 1) + _number(vision, "out_hidden_size") * (merged + 1)
    return patches + positions + _number(vision, "depth") * block + merger


def _number(config: Mapping[str, Any], key: str, *, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key}={value!r} must be a whole number above 0")
    return value
