import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_hf import DENSE, MOE, VOCAB_SIZE, encoded_source, hf_model
from torch import Tensor

from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.hf_layout import local_name
from mira_megatron.training.hf_weights import load_hf_weights
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.megatron

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        DENSE,
        replace(DENSE, tie_embeddings=False),
        replace(DENSE, num_query_groups=8),
        MOE,
        replace(MOE, tie_embeddings=True, num_query_groups=1),
    ],
    ids=["dense", "dense_untied", "dense_no_groups", "moe", "moe_tied_one_group"],
)


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


@pytest.fixture(scope="module")
def saved_dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    hf_model(DENSE).save_pretrained(folder)
    return folder


@pytest.fixture
def dense_folder(saved_dense: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_dense, tmp_path / "model"))


def logits_of(model: torch.nn.Module, tokens_BS: Tensor) -> Tensor:
    """Returns Megatron's logits without those of the padded vocabulary."""
    positions_BS = torch.arange(tokens_BS.shape[1])[None]
    with torch.no_grad():
        logits: Tensor = model.eval()(tokens_BS, positions_BS, None)
    return logits[..., :VOCAB_SIZE]


@SHAPES
def test_loaded_model_gives_transformers_logits_on_real_text(
    tmp_path: Path, shape: ModelShape
) -> None:
    theirs = hf_model(shape)
    theirs.save_pretrained(tmp_path)
    ours = build_model(shape, VOCAB_SIZE)
    tokens_BS = encoded_source(300)

    load_hf_weights(ours, tmp_path, shape)

    with torch.no_grad():
        expected = theirs(tokens_BS).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits_of(ours, tokens_BS), expected, atol=1e-4, rtol=0)


def test_loaded_shards_are_the_single_file(saved_dense: Path, tmp_path: Path) -> None:
    tensors = load_file(saved_dense / "model.safetensors")
    shutil.copy(saved_dense / "config.json", tmp_path)
    weight_map = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, tmp_path / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    whole, sharded = build_model(DENSE, VOCAB_SIZE), build_model(DENSE, VOCAB_SIZE)

    load_hf_weights(whole, saved_dense, DENSE)
    load_hf_weights(sharded, tmp_path, DENSE)

    tokens_BS = encoded_source(20)
    assert torch.equal(logits_of(whole, tokens_BS), logits_of(sharded, tokens_BS))


@pytest.mark.parametrize("vocab_size", [200, 290, 600])
def test_loaded_vocabulary_of_another_size_fills_the_rows_both_have(
    saved_dense: Path, vocab_size: int
) -> None:
    model = build_model(DENSE, vocab_size)
    before = model.embedding.word_embeddings.weight.detach().clone()

    load_hf_weights(model, saved_dense, DENSE)

    after = model.embedding.word_embeddings.weight
    stored = load_file(saved_dense / "model.safetensors")["model.embed_tokens.weight"]
    num_shared = min(len(stored), len(after))
    assert torch.equal(after[:num_shared], stored[:num_shared])
    assert torch.equal(after[num_shared:], before[num_shared:])


def test_loaded_weights_keep_the_models_own_type(saved_dense: Path) -> None:
    model = build_model(DENSE, VOCAB_SIZE, dtype=torch.bfloat16)

    load_hf_weights(model, saved_dense, DENSE)

    stored = load_file(saved_dense / "model.safetensors")["model.norm.weight"]
    assert torch.equal(model.decoder.final_layernorm.weight, stored.bfloat16())


def test_loaded_tied_matrix_may_be_stored_twice_if_equal(dense_folder: Path) -> None:
    tensors = load_file(dense_folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    model = build_model(DENSE, VOCAB_SIZE)

    save_file(tensors | {"lm_head.weight": embedding.clone()}, dense_folder / "model.safetensors")
    load_hf_weights(model, dense_folder, DENSE)
    save_file(tensors | {"lm_head.weight": embedding + 1}, dense_folder / "model.safetensors")

    with pytest.raises(ValueError, match=r"holds lm_head\.weight that differs from"):
        load_hf_weights(model, dense_folder, DENSE)


def without_a_norm(tensors: dict[str, Tensor]) -> None:
    del tensors["model.norm.weight"]


def with_a_stranger(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(4)


def with_a_longer_bias(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.1.self_attn.k_proj.bias"] = torch.ones(9)


def with_whole_numbers(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(32, dtype=torch.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_norm, r"lacks model\.norm\.weight\."),
        (with_a_stranger, r"holds model\.layers\.0\.self_attn\.q_norm\.weight, which"),
        (with_a_longer_bias, r"layers\.1\.self_attn\.k_proj\.bias of shape \[9\], expected \[8\]"),
        (with_whole_numbers, r"model\.norm\.weight as I8, expected one of F32, BF16, F16"),
    ],
)
def test_loading_other_tensors_is_refused_before_anything_changes(
    dense_folder: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    tensors = load_file(dense_folder / "model.safetensors")
    change(tensors)
    save_file(tensors, dense_folder / "model.safetensors")
    model = build_model(DENSE, VOCAB_SIZE)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    with pytest.raises(ValueError, match=message):
        load_hf_weights(model, dense_folder, DENSE)

    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotary_base", 500_000),
        ("tie_embeddings", False),
        ("ffn_hidden_size", 64),
        ("kv_channels", 8),
        ("layernorm_epsilon", 1e-5),
    ],
)
def test_loading_weights_of_another_shape_names_the_field(
    saved_dense: Path, name: str, value: Any
) -> None:
    shape = replace(DENSE, **{name: value})
    model = build_model(shape, VOCAB_SIZE)

    with pytest.raises(ValueError, match=rf"config\.json: its weights .* with {name}="):
        load_hf_weights(model, saved_dense, shape)


def test_loading_for_a_shorter_sequence_is_fine(saved_dense: Path) -> None:
    shape = replace(DENSE, max_sequence_length=64)

    load_hf_weights(build_model(shape, VOCAB_SIZE), saved_dense, shape)


def test_loading_without_safetensors_says_what_to_do(dense_folder: Path) -> None:
    (dense_folder / "model.safetensors").unlink()

    with pytest.raises(FileNotFoundError, match="Save the model as safetensors"):
        load_hf_weights(build_model(DENSE, VOCAB_SIZE), dense_folder, DENSE)


def test_loading_a_cut_file_names_it(dense_folder: Path) -> None:
    path = dense_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ValueError, match=r"model\.safetensors: not a safetensors file"):
        load_hf_weights(build_model(DENSE, VOCAB_SIZE), dense_folder, DENSE)


@pytest.mark.parametrize("file", ["gone.safetensors", "../model/model.safetensors"])
def test_loading_an_index_of_files_that_are_not_beside_it_is_refused(
    dense_folder: Path, file: str
) -> None:
    (dense_folder / "model.safetensors").rename(dense_folder / "elsewhere.safetensors")
    index = {"weight_map": {"model.norm.weight": file}}
    (dense_folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(FileNotFoundError, match=f"{Path(file).name}: no such file beside"):
        load_hf_weights(build_model(DENSE, VOCAB_SIZE), dense_folder, DENSE)


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_loading_an_index_that_is_not_one_names_it(dense_folder: Path, content: str) -> None:
    (dense_folder / "model.safetensors").unlink()
    (dense_folder / "model.safetensors.index.json").write_text(content)

    with pytest.raises(ValueError, match=r"index\.json: not an index"):
        load_hf_weights(build_model(DENSE, VOCAB_SIZE), dense_folder, DENSE)


@pytest.mark.parametrize(
    ("transformer_engines", "ours"),
    [
        ("self_attention.linear_qkv.layer_norm_weight", "input_layernorm.weight"),
        ("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight"),
        ("mlp.experts.linear_fc1.weight12", "mlp.experts.local_experts.12.linear_fc1.weight"),
        ("mlp.experts.linear_fc2.weight0", "mlp.experts.local_experts.0.linear_fc2.weight"),
        ("mlp.linear_fc1.weight", "mlp.linear_fc1.weight"),
    ],
)
def test_local_name_of_transformer_engines_parameters(transformer_engines: str, ours: str) -> None:
    assert local_name(f"decoder.layers.1.{transformer_engines}") == f"decoder.layers.1.{ours}"
