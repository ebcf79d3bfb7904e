"""Which Hugging Face tensors each Megatron parameter is made of.

Megatron keeps q, k and v in one matrix, query group by query group (the group's queries, then its
key, then its value), and the gate above the up projection; Hugging Face keeps all of them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mira_megatron.training.model_shape import ModelShape

Parts = Mapping[str, tuple[int, ...]]  # Hugging Face name -> shape

# Transformer Engine puts a norm into the linear layer behind it, and all experts into one layer.
_TRANSFORMER_ENGINE_NAMES = (
    (r"\.self_attention\.linear_qkv\.layer_norm_weight$", ".input_layernorm.weight"),
    (r"\.mlp\.linear_fc1\.layer_norm_weight$", ".pre_mlp_layernorm.weight"),
    (
        r"\.mlp\.experts\.linear_fc([12])\.weight(\d+)$",
        r".mlp.experts.local_experts.\2.linear_fc\1.weight",
    ),
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One Megatron parameter, as the local layers name it, and the tensors it is made of."""

    name: str
    parts: Parts
    num_groups: int = 1  # blocks that each hold an equal share of the rows of every part
    is_padded: bool = False  # the parameter has the rows of a padded vocabulary

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Returns the parameter that the parts make."""
        blocks = [tensor.reshape(self.num_groups, -1, *tensor.shape[1:]) for tensor in tensors]
        return torch.cat(blocks, dim=1).flatten(0, 1)

    def split(self, parameter: Tensor) -> list[Tensor]:
        """Returns the parts of a parameter; padding is left out."""
        num_rows = [shape[0] for shape in self.parts.values()]
        whole = parameter[: sum(num_rows)]
        blocks = whole.reshape(self.num_groups, -1, *whole.shape[1:])
        split = torch.split(blocks, [rows // self.num_groups for rows in num_rows], dim=1)
        return [block.flatten(0, 1) for block in split]


def local_name(parameter_name: str) -> str:
    """Returns how the local layers name a parameter of either kind of layer."""
    for pattern, replacement in _TRANSFORMER_ENGINE_NAMES:
        parameter_name = re.sub(pattern, replacement, parameter_name)
    return parameter_name


def slots(shape: ModelShape, vocab_size: int) -> Iterator[Slot]:
    """Yields every parameter of a model; `vocab_size` is that of the Hugging Face side."""
    hidden, rows = shape.hidden_size, (vocab_size, shape.hidden_size)
    embedding = {"model.embed_tokens.weight": rows}
    yield Slot("embedding.word_embeddings.weight", embedding, is_padded=True)
    for index in range(shape.num_layers):
        ours, theirs = f"decoder.layers.{index}", f"model.layers.{index}"
        yield _vector(f"{ours}.input_layernorm", f"{theirs}.input_layernorm", hidden)
        yield from _attention(shape, f"{ours}.self_attention", f"{theirs}.self_attn")
        yield _vector(f"{ours}.pre_mlp_layernorm", f"{theirs}.post_attention_layernorm", hidden)
        yield from (_experts if shape.is_moe else _dense)(shape, f"{ours}.mlp", f"{theirs}.mlp")
    yield _vector("decoder.final_layernorm", "model.norm", hidden)
    if not shape.tie_embeddings:
        yield Slot("output_layer.weight", {"lm_head.weight": rows}, is_padded=True)


def _vector(ours: str, theirs: str, size: int) -> Slot:
    return Slot(f"{ours}.weight", {f"{theirs}.weight": (size,)})


def _attention(shape: ModelShape, ours: str, theirs: str) -> Iterator[Slot]:
    hidden, channels = shape.hidden_size, shape.channels_per_head
    query_rows = shape.num_attention_heads * channels
    rows = {"q": query_rows} | dict.fromkeys("kv", shape.num_query_groups * channels)
    weights: Parts = {f"{theirs}.{part}_proj.weight": (n, hidden) for part, n in rows.items()}
    yield Slot(f"{ours}.linear_qkv.weight", weights, shape.num_query_groups)
    if shape.is_moe:
        yield _vector(f"{ours}.q_layernorm", f"{theirs}.q_norm", channels)
        yield _vector(f"{ours}.k_layernorm", f"{theirs}.k_norm", channels)
    else:
        biases: Parts = {f"{theirs}.{part}_proj.bias": (n,) for part, n in rows.items()}
        yield Slot(f"{ours}.linear_qkv.bias", biases, shape.num_query_groups)
    yield Slot(f"{ours}.linear_proj.weight", {f"{theirs}.o_proj.weight": (hidden, query_rows)})


def _dense(shape: ModelShape, ours: str, theirs: str) -> Iterator[Slot]:
    yield from _mlp(ours, theirs, shape.hidden_size, shape.ffn_hidden_size)


def _experts(shape: ModelShape, ours: str, theirs: str) -> Iterator[Slot]:
    assert shape.num_moe_experts is not None
    assert shape.moe_ffn_hidden_size is not None
    gate = {f"{theirs}.gate.weight": (shape.num_moe_experts, shape.hidden_size)}
    yield Slot(f"{ours}.router.weight", gate)
    for index in range(shape.num_moe_experts):
        names = f"{ours}.experts.local_experts.{index}", f"{theirs}.experts.{index}"
        yield from _mlp(*names, shape.hidden_size, shape.moe_ffn_hidden_size)


def _mlp(ours: str, theirs: str, hidden: int, ffn: int) -> Iterator[Slot]:
    gate_up = {f"{theirs}.{part}_proj.weight": (ffn, hidden) for part in ("gate", "up")}
    yield Slot(f"{ours}.linear_fc1.weight", gate_up)
    yield Slot(f"{ours}.linear_fc2.weight", {f"{theirs}.down_proj.weight": (hidden, ffn)})
