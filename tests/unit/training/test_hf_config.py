import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hf import DENSE, MOE, VOCAB_SIZE, hf_model
from transformers import AutoConfig

from mira_megatron.training.hf_config import HfShape, hf_config, read_hf_shape
from mira_megatron.training.model_shape import ModelShape

BOTH = pytest.mark.parametrize("shape", [DENSE, MOE], ids=["dense", "moe"])


def write_config(folder: Path, shape: ModelShape, **changed: Any) -> None:
    config = hf_config(shape, VOCAB_SIZE, torch.float32) | changed
    (folder / "config.json").write_text(json.dumps(config))


@BOTH
def test_shape_written_by_transformers_is_read(tmp_path: Path, shape: ModelShape) -> None:
    hf_model(shape).save_pretrained(tmp_path)

    assert read_hf_shape(tmp_path) == HfShape(shape, VOCAB_SIZE)


@BOTH
def test_shape_written_by_transformers_4_is_read(tmp_path: Path, shape: ModelShape) -> None:
    config = hf_config(shape, VOCAB_SIZE, torch.float32)
    del config["rope_parameters"], config["dtype"]
    if not shape.is_moe:
        del config["head_dim"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_scaling": None}))

    assert read_hf_shape(tmp_path) == HfShape(shape, VOCAB_SIZE)


@BOTH
def test_config_written_is_read_back_and_loaded_by_transformers(
    tmp_path: Path, shape: ModelShape
) -> None:
    write_config(tmp_path, shape)

    loaded = AutoConfig.from_pretrained(tmp_path)

    assert read_hf_shape(tmp_path) == HfShape(shape, VOCAB_SIZE)
    assert loaded.rope_parameters["rope_theta"] == shape.rotary_base
    assert loaded.tie_word_embeddings == shape.tie_embeddings
    assert loaded.dtype == torch.float32
    if shape.is_moe:
        assert (loaded.num_experts, loaded.head_dim, loaded.norm_topk_prob) == (4, 16, True)


@pytest.mark.parametrize(
    ("shape", "name", "value", "expected"),
    [
        (DENSE, "architectures", ["LlamaForCausalLM"], "Qwen2ForCausalLM"),
        (DENSE, "use_sliding_window", True, "False"),
        (DENSE, "layer_types", ["full_attention", "sliding_attention"], "full_attention"),
        (DENSE, "hidden_act", "gelu", "silu"),
        (DENSE, "quantization_config", {"quant_method": "fp8"}, "None"),
        (DENSE, "rope_scaling", {"type": "yarn", "factor": 4.0}, "None"),
        (DENSE, "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "default"),
        (DENSE, "rope_parameters", {"rope_theta": 1e4, "partial_rotary_factor": 0.5}, "alone"),
        (DENSE, "rope_parameters", {"rope_theta": 1e4 + 0.5}, "whole number"),
        (DENSE, "hidden_size", "32", "a whole number"),
        (DENSE, "num_key_value_heads", None, "a whole number"),
        (MOE, "decoder_sparse_step", 2, "1"),
        (MOE, "mlp_only_layers", [0], r"\[\]"),
        (MOE, "norm_topk_prob", False, "True"),
        (MOE, "attention_bias", True, "False"),
    ],
)
def test_config_of_a_model_not_built_here_is_refused(
    tmp_path: Path, shape: ModelShape, name: str, value: Any, expected: str
) -> None:
    write_config(tmp_path, shape, **{name: value})

    with pytest.raises(ValueError, match=rf"config\.json: r?[a-z_]+=.*{expected}"):
        read_hf_shape(tmp_path)


def test_config_without_norm_topk_prob_is_refused_as_transformers_takes_it_for_false(
    tmp_path: Path,
) -> None:
    config = hf_config(MOE, VOCAB_SIZE, torch.float32)
    del config["norm_topk_prob"]
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match="norm_topk_prob=False is not supported, expected True"):
        read_hf_shape(tmp_path)


def test_config_of_an_impossible_shape_names_the_file(tmp_path: Path) -> None:
    write_config(tmp_path, MOE, num_experts_per_tok=5)

    with pytest.raises(ValueError, match=r"config\.json: moe_router_topk=5 must not exceed"):
        read_hf_shape(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_config_that_is_not_one_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))

    with pytest.raises(ValueError, match=r"config\.json: (not JSON|not a JSON object)"):
        read_hf_shape(tmp_path)


def test_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        read_hf_shape(tmp_path)


def test_config_keeps_a_usual_head_size_unsaid(tmp_path: Path) -> None:
    write_config(tmp_path, replace(DENSE, kv_channels=4))

    assert read_hf_shape(tmp_path).shape.kv_channels is None  # 32 / 8 heads
