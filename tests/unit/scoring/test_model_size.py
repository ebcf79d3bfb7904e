from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mira_megatron.scoring.model_size import ModelSize, check_model_size

CONFIG = {
    "model_type": "llama",
    "vocab_size": 10,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
SHAPES: Mapping[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (10, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.0.self_attn.k_proj.weight": (4, 4),
    "model.layers.0.self_attn.v_proj.weight": (4, 4),
    "model.layers.0.self_attn.o_proj.weight": (4, 4),
    "model.layers.0.mlp.gate_proj.weight": (8, 4),
    "model.layers.0.mlp.up_proj.weight": (8, 4),
    "model.layers.0.mlp.down_proj.weight": (4, 8),
    "model.layers.0.input_layernorm.weight": (4,),
    "model.layers.0.post_attention_layernorm.weight": (4,),
    "model.norm.weight": (4,),
    "lm_head.weight": (10, 4),
}
NUM_PARAMETERS = 252  # of the shapes above


def write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Writes a safetensors file of ones in half precision."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ones = b""
    for name, shape in shapes.items():
        tensor = np.ones(shape, np.float16).tobytes()
        offsets = [len(ones), len(ones) + len(tensor)]
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": offsets}
        ones += tensor
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + ones)


def write_model(folder: Path, **changes: Any) -> Path:
    """Writes a model of one shard; `changes` are the config's."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    write_shard(folder / "model.safetensors", SHAPES)
    return folder


def write_sharded_model(folder: Path) -> Path:
    """Writes the same model in two shards under an index."""
    write_model(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(SHAPES)
    weight_map: dict[str, str] = {}
    for number, half in enumerate((names[:5], names[5:]), start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        write_shard(folder / shard, {name: SHAPES[name] for name in half})
        weight_map |= dict.fromkeys(half, shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def without_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if ".layers." not in name}


@pytest.mark.parametrize("write", [write_model, write_sharded_model])
def test_whole_model_has_the_size_of_its_config(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    assert sum(math.prod(shape) for shape in SHAPES.values()) == NUM_PARAMETERS
    assert check_model_size(write(tmp_path)) == ModelSize(
        expected_parameters=NUM_PARAMETERS, reason=None, stored_parameters=NUM_PARAMETERS
    )


def test_model_without_most_of_its_weights_is_refused_with_both_figures(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_shard(tmp_path / "model.safetensors", without_layers(SHAPES))
    with pytest.raises(ValueError, match=r"hold 84 .* a model of 252\. Download the model again"):
        check_model_size(tmp_path)


def test_difference_of_up_to_a_fifth_is_tolerated(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_shard(tmp_path / "model.safetensors", {**SHAPES, "mtp.weight": (50,)})
    assert check_model_size(tmp_path).stored_parameters == NUM_PARAMETERS + 50
    write_shard(tmp_path / "model.safetensors", {**SHAPES, "mtp.weight": (51,)})
    with pytest.raises(ValueError, match=r"hold 303 parameters"):
        check_model_size(tmp_path)


def test_output_matrix_stored_beside_a_tied_embedding_counts_once(tmp_path: Path) -> None:
    size = check_model_size(write_model(tmp_path, tie_word_embeddings=True))
    assert size.stored_parameters == size.expected_parameters == NUM_PARAMETERS - 40


def test_size_of_a_wrapped_config_is_that_of_its_text_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": CONFIG}))
    assert check_model_size(tmp_path).expected_parameters == NUM_PARAMETERS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mamba2"}, "model_type='mamba2' is none of llama, qwen2"),
        ({"quantization_config": {"bits": 4}}, "quantised weights are stored packed"),
    ],
)
def test_model_whose_config_cannot_say_its_size_passes_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    size = check_model_size(write_model(tmp_path, **changes))
    assert size.expected_parameters is None
    assert str(size.reason).startswith(reason)
    assert size.stored_parameters == NUM_PARAMETERS


def test_model_of_unknown_size_without_any_parameter_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, model_type="mamba2")
    write_shard(tmp_path / "model.safetensors", {})
    with pytest.raises(ValueError, match=r"hold no parameter"):
        check_model_size(tmp_path)


@pytest.mark.parametrize("kept_bytes", [0, 7, 8, 9, 200, -1])
def test_shard_that_was_cut_short_is_named(tmp_path: Path, kept_bytes: int) -> None:
    path = write_model(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ValueError, match=r"model\.safetensors: .*Download the model again"):
        check_model_size(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
        struct.pack("<Q", 20) + b"x" * 20,
    ],
)
def test_file_that_is_no_shard_is_named(tmp_path: Path, content: bytes) -> None:
    (write_model(tmp_path) / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*Download the model again"):
        check_model_size(tmp_path)


def test_shard_that_the_index_names_and_nobody_finds_is_named(tmp_path: Path) -> None:
    (write_sharded_model(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 shards .* model-00002-of-00002"):
        check_model_size(tmp_path)


def test_tensor_that_the_index_names_and_no_shard_holds_is_named(tmp_path: Path) -> None:
    write_sharded_model(tmp_path)
    write_shard(tmp_path / "model-00001-of-00002.safetensors", {"lm_head.weight": (10, 4)})
    with pytest.raises(ValueError, match=r"names 4 tensors that no shard holds"):
        check_model_size(tmp_path)


def test_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    index = write_sharded_model(tmp_path) / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ValueError, match=r"'\.\./secret\.safetensors' must be a file name"):
        check_model_size(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_model(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.removeprefix("model")):
        check_model_size(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": None},
        {"model_type": "qwen3_5_text", "layer_types": ["linear_attention"]},
        {"model_type": "qwen3_5_text", "layer_types": ["full_attention"], "num_hidden_layers": 2},
        {"vision_config": [1]},
    ],
)
def test_config_of_no_whole_model_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"config\.json: does not describe a whole model"):
        check_model_size(write_model(tmp_path, **changes))
