"""The config.json of a Hugging Face folder: which shape it tells of, and how one is written.

Two architectures are known, Qwen2ForCausalLM and Qwen3MoeForCausalLM; every setting of theirs that
our model cannot have is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mira_megatron.json_objects import read_json_object
from mira_megatron.training.model_shape import ModelShape

CONFIG = "config.json"
DENSE = "Qwen2ForCausalLM"
MOE = "Qwen3MoeForCausalLM"
DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

# Field: what transformers takes where it is missing, and the one value that can be built here.
_ONLY: Mapping[str, tuple[object, object]] = {
    "hidden_act": ("silu", "silu"),
    "use_sliding_window": (False, False),
    "rope_scaling": (None, None),
    "quantization_config": (None, None),
}
_ONLY_MOE: Mapping[str, tuple[object, object]] = {
    "decoder_sparse_step": (1, 1),
    "mlp_only_layers": ([], []),
    "norm_topk_prob": (False, True),
    "attention_bias": (False, False),
}


@dataclass(frozen=True, slots=True)
class HfShape:
    """What a Hugging Face folder's config tells of its weights."""

    shape: ModelShape
    vocab_size: int  # rows of its embedding, which may exceed the tokenizer's tokens


def read_hf_shape(folder: Path) -> HfShape:
    """Returns the shape of the model in a Hugging Face folder.

    Reads what transformers 5 writes and what earlier ones wrote. Raises FileNotFoundError without a
    config.json, ValueError naming file, field and value where it is of a model that cannot be built
    here.
    """
    fields = _read(folder / CONFIG)
    architectures = fields.values.get("architectures")
    if architectures not in ([DENSE], [MOE]):
        raise fields.refusal("architectures", architectures, f'["{DENSE}"] or ["{MOE}"]')
    is_moe = architectures == [MOE]
    _refuse_what_is_not_built(fields, is_moe)
    try:
        shape = ModelShape(**_dense_fields(fields), **(_expert_fields(fields) if is_moe else {}))
    except ValueError as error:
        raise ValueError(f"{fields.path}: {error}") from error
    return HfShape(shape=shape, vocab_size=fields.whole("vocab_size"))


def hf_config(shape: ModelShape, vocab_size: int, dtype: torch.dtype) -> dict[str, Any]:
    """Returns the config.json of a model: what transformers 5 reads, and 4 and older vLLMs too."""
    config: dict[str, Any] = {
        "architectures": [MOE if shape.is_moe else DENSE],
        "model_type": "qwen3_moe" if shape.is_moe else "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_query_groups,
        "head_dim": shape.channels_per_head,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_sequence_length,
        "rms_norm_eps": shape.layernorm_epsilon,
        "rope_theta": float(shape.rotary_base),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(shape.rotary_base)},
        "tie_word_embeddings": shape.tie_embeddings,
        "use_sliding_window": False,
        "sliding_window": None,
        "attention_dropout": 0.0,
        "use_cache": True,
        "dtype": DTYPE_NAMES[dtype],
        "torch_dtype": DTYPE_NAMES[dtype],
    }
    return config | (_expert_config(shape) if shape.is_moe else {})


def _expert_config(shape: ModelShape) -> dict[str, Any]:
    return {
        "num_experts": shape.num_moe_experts,
        "num_experts_per_tok": shape.moe_router_topk,
        "moe_intermediate_size": shape.moe_ffn_hidden_size,
        "router_aux_loss_coef": shape.moe_aux_loss_coeff,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "attention_bias": False,
    }


@dataclass(frozen=True, slots=True)
class _Fields:
    """A config.json's fields, each checked as it is read."""

    path: Path
    values: Mapping[str, Any]

    def whole(self, *names: str) -> int:
        """Returns a whole number that is written under one of several names."""
        name = next((name for name in names if name in self.values), names[0])
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refusal(name, value, "a whole number")
        return value

    def real(self, name: str) -> float:
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refusal(name, value, "a number")
        return value

    def refusal(self, name: str, found: object, expected: str) -> ValueError:
        return ValueError(
            f"{self.path}: {name}={found!r} is not supported, expected {expected}. Choose another "
            "base model, or train from random weights."
        )


def _read(path: Path) -> _Fields:
    values = read_json_object(path)
    if values is None:
        raise FileNotFoundError(
            f"{path}: no such file. Name a folder in Hugging Face's layout (save_pretrained)."
        )
    return _Fields(path, values)


def _refuse_what_is_not_built(fields: _Fields, is_moe: bool) -> None:
    for name, (default, needed) in ({**_ONLY, **_ONLY_MOE} if is_moe else _ONLY).items():
        value = fields.values.get(name, default)
        if value != needed and (value or needed):  # null, false and [] all say: not in use
            raise fields.refusal(name, value, repr(needed))
    layer_types = fields.values.get("layer_types") or []
    if set(layer_types) - {"full_attention"}:
        raise fields.refusal("layer_types", layer_types, '"full_attention" only')


def _dense_fields(fields: _Fields) -> dict[str, Any]:
    hidden_size = fields.whole("hidden_size")
    num_heads = fields.whole("num_attention_heads")
    head_dim = fields.values.get("head_dim")
    is_usual = head_dim is None or head_dim * num_heads == hidden_size
    return {
        "num_layers": fields.whole("num_hidden_layers"),
        "hidden_size": hidden_size,
        "ffn_hidden_size": fields.whole("intermediate_size"),
        "num_attention_heads": num_heads,
        "num_query_groups": fields.whole("num_key_value_heads"),
        "max_sequence_length": fields.whole("max_position_embeddings"),
        "rotary_base": _rotary_base(fields),
        "layernorm_epsilon": fields.real("rms_norm_eps"),
        "tie_embeddings": bool(fields.values.get("tie_word_embeddings", False)),
        "kv_channels": None if is_usual else fields.whole("head_dim"),
    }


def _expert_fields(fields: _Fields) -> dict[str, Any]:
    return {
        "num_moe_experts": fields.whole("num_experts", "num_local_experts"),
        "moe_router_topk": fields.whole("num_experts_per_tok"),
        "moe_ffn_hidden_size": fields.whole("moe_intermediate_size"),
        "moe_aux_loss_coeff": fields.real("router_aux_loss_coef"),
    }


def _rotary_base(fields: _Fields) -> int:
    rope = fields.values.get("rope_parameters")
    if rope is None:  # transformers 4
        base = fields.real("rope_theta")
    elif isinstance(rope, dict) and rope.keys() <= {"rope_type", "rope_theta"}:
        if rope.get("rope_type", "default") != "default":
            raise fields.refusal("rope_parameters", rope, 'rope_type "default"')
        base = _Fields(fields.path, rope).real("rope_theta")
    else:
        raise fields.refusal("rope_parameters", rope, "rope_theta alone")
    if base != int(base):
        raise fields.refusal("rope_theta", base, "a whole number")
    return int(base)
