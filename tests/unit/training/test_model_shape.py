from dataclasses import replace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mira_megatron.training.model_shape import ModelShape

SHAPE = ModelShape(
    num_layers=2,
    hidden_size=16,
    ffn_hidden_size=24,
    num_attention_heads=4,
    num_query_groups=2,
    max_sequence_length=8,
    rotary_base=10_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=True,
)
EXPERTS: dict[str, Any] = {
    "num_moe_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 8,
    "moe_aux_loss_coeff": 0.001,
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_layers", 0, "num_layers=0 must be positive"),
        ("hidden_size", 20, "hidden_size=20 must be a multiple of 2 x num_attention_heads=8"),
        ("num_query_groups", 3, "num_attention_heads=4 must be a multiple of num_query_groups=3"),
        ("kv_channels", 0, "kv_channels=0 must be positive and even"),
        ("kv_channels", 5, "kv_channels=5 must be positive and even"),
        ("moe_router_topk", 2, "num_moe_experts, moe_ffn_hidden_size, .* missing: a mixture of"),
    ],
)
def test_model_shape_out_of_range_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHAPE, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_moe_experts", 0, "num_moe_experts=0 must be positive"),
        ("moe_router_topk", 5, "moe_router_topk=5 must not exceed num_moe_experts=4"),
        ("moe_router_topk", 0, "moe_router_topk=0 must be positive"),
        ("moe_ffn_hidden_size", -1, "moe_ffn_hidden_size=-1 must be positive"),
        ("moe_aux_loss_coeff", -0.1, "moe_aux_loss_coeff=-0.1 must not be negative"),
        ("moe_aux_loss_coeff", None, "moe_aux_loss_coeff missing: a mixture of experts needs all"),
    ],
)
def test_model_shape_of_impossible_experts_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHAPE, **(EXPERTS | {name: value}))


def test_model_shape_with_experts_is_a_mixture() -> None:
    assert not SHAPE.is_moe
    assert replace(SHAPE, **EXPERTS).is_moe


def test_model_shape_with_kv_channels_has_heads_of_any_number_and_that_size() -> None:
    shape = replace(SHAPE, kv_channels=6, num_attention_heads=3, num_query_groups=1)

    assert (SHAPE.channels_per_head, shape.channels_per_head) == (4, 6)


@pytest.mark.parametrize("experts", [{}, EXPERTS], ids=["dense", "moe"])
def test_model_shape_loads_through_omegaconf(experts: dict[str, Any]) -> None:
    shape = replace(SHAPE, **experts)
    values = {name: getattr(shape, name) for name in ModelShape.__slots__}

    loaded = OmegaConf.merge(OmegaConf.structured(ModelShape), values)

    assert OmegaConf.to_object(loaded) == shape
