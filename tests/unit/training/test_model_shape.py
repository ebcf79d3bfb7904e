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


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_layers", 0, "num_layers=0 must be positive"),
        ("hidden_size", 20, "hidden_size=20 must be a multiple of 2 x num_attention_heads=8"),
        ("num_query_groups", 3, "num_attention_heads=4 must be a multiple of num_query_groups=3"),
    ],
)
def test_model_shape_out_of_range_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHAPE, **{name: value})


def test_model_shape_loads_through_omegaconf() -> None:
    values = {name: getattr(SHAPE, name) for name in ModelShape.__slots__}

    loaded = OmegaConf.merge(OmegaConf.structured(ModelShape), values)

    assert OmegaConf.to_object(loaded) == SHAPE
