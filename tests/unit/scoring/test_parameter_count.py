from __future__ import annotations

from typing import Any

import pytest

from mira_megatron.scoring.parameter_count import num_parameters

# The numbers that decide a size, as the hub's config.json gives them.
QWEN25_CODER_14B = {
    "model_type": "qwen2",
    "vocab_size": 152_064,
    "hidden_size": 5120,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "intermediate_size": 13_824,
    "tie_word_embeddings": False,
}
QWEN25_05B = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "tie_word_embeddings": True,
}
QWEN3_8B = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12_288,
}
LLAMA31_8B = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
}
_HYBRID = {
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
QWEN3_NEXT_80B = {
    **_HYBRID,
    "model_type": "qwen3_next",
    "vocab_size": 151_936,
    "num_hidden_layers": 48,
    "num_experts": 512,
    "full_attention_interval": 4,
}
QWEN35_35B_A3B = {
    "model_type": "qwen3_5_moe",
    "text_config": {
        **_HYBRID,
        "model_type": "qwen3_5_moe_text",
        "vocab_size": 248_320,
        "num_hidden_layers": 40,
        "num_experts": 256,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 10,
    },
    "vision_config": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "in_channels": 3,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "num_position_embeddings": 2304,
        "out_hidden_size": 3584,
    },
}
# One layer: embeddings 2 x 10 x 4, attention 4 x 4 x 4, MLP 3 x 4 x 8, norms 3 x 4.
TINY = {
    "model_type": "llama",
    "vocab_size": 10,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
TINY_PARAMETERS = 80 + 64 + 96 + 12


# What `sum(p.numel() for p in model.parameters())` gives for these in transformers 5.19.
@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param(QWEN25_CODER_14B, 14_770_033_664, id="qwen2.5-coder-14b"),
        pytest.param(QWEN25_05B, 494_032_768, id="qwen2.5-0.5b, tied"),
        pytest.param(QWEN3_8B, 8_190_735_360, id="qwen3-8b"),
        pytest.param(LLAMA31_8B, 8_030_261_248, id="llama-3.1-8b"),
        pytest.param(QWEN3_30B_A3B, 30_532_122_624, id="qwen3-30b-a3b"),
        pytest.param(QWEN3_NEXT_80B, 79_674_391_296, id="qwen3-next-80b-a3b"),
        pytest.param(QWEN35_35B_A3B, 35_114_261_360, id="qwen3.5-35b-a3b, with vision"),
    ],
)
def test_known_model_has_its_published_size(config: dict[str, Any], parameters: int) -> None:
    assert num_parameters(config) == parameters


@pytest.mark.parametrize(
    ("change", "added"),
    [
        pytest.param({}, 0, id="key and value heads as many as query heads"),
        pytest.param({"num_key_value_heads": 1}, -16, id="half of the keys and values"),
        pytest.param({"head_dim": 4}, 64, id="heads twice as wide"),
        pytest.param({"model_type": "qwen2"}, 12, id="biases of query, key and value"),
        pytest.param({"attention_bias": True}, 16, id="biases of all four projections"),
        pytest.param({"mlp_bias": True}, 20, id="biases of the MLP"),
        pytest.param({"model_type": "qwen3"}, 4, id="norms of query and key"),
        pytest.param({"tie_word_embeddings": True}, -40, id="tied embeddings"),
    ],
)
def test_setting_adds_what_it_stands_for(change: dict[str, Any], added: int) -> None:
    assert num_parameters({**TINY, **change}) == TINY_PARAMETERS + added


def test_experts_take_the_place_of_the_mlp_only_in_sparse_layers() -> None:
    dense = {**TINY, "model_type": "qwen2", "num_hidden_layers": 3}
    sparse = {**dense, "model_type": "qwen2_moe", "num_experts": 3, "moe_intermediate_size": 5}
    without = num_parameters(dense)
    assert without is not None
    more = 3 * (4 + 3 * 4 * 5) - 96  # a row of the router and an MLP each, less the MLP
    assert num_parameters(sparse) == without + 3 * more
    assert num_parameters({**sparse, "mlp_only_layers": [0]}) == without + 2 * more
    assert num_parameters({**sparse, "decoder_sparse_step": 2}) == without + more  # the second


def test_architecture_without_a_formula_has_no_size() -> None:
    assert num_parameters({**TINY, "model_type": "mamba2"}) is None


@pytest.mark.parametrize("value", [None, 0, -4, 2.5, "4", True])
def test_number_that_cannot_be_one_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"hidden_size=.* must be a whole number above 0"):
        num_parameters({**TINY, "hidden_size": value})
