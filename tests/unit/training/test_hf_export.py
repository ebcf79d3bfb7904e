import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from safetensors.torch import load_file
from tiny_hf import DENSE, MOE, VOCAB_SIZE, encoded_source, python_source, small_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.hf_export import export_hf
from mira_megatron.training.hf_weights import load_hf_weights
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.megatron

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
SHAPES = pytest.mark.parametrize(
    "shape",
    [
        DENSE,
        replace(DENSE, tie_embeddings=False, kv_channels=6),
        MOE,
        replace(MOE, tie_embeddings=True),
    ],
    ids=["dense", "dense_untied_wide_heads", "moe", "moe_tied"],
)


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


def random_model(shape: ModelShape) -> GPTModel:
    """Returns a model whose norms and biases are random too."""
    torch.manual_seed(3)
    model = build_model(shape, VOCAB_SIZE).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.2)
    return model


def export(model: GPTModel, shape: ModelShape, folder: Path, **changed: Any) -> None:
    tokenizer_file = folder.parent / "trained.json"
    small_tokenizer(shape).save(str(tokenizer_file))
    arguments: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "tokenizer_file": tokenizer_file,
        "chat_template": CHAT_TEMPLATE,
        "eos_tokens": ["<|im_end|>", "<|endoftext|>"],
        "dtype": torch.float32,
        "folder": folder,
    }
    export_hf(model, shape, **(arguments | changed))


@SHAPES
def test_exported_model_gives_the_same_logits_in_transformers(
    tmp_path: Path, shape: ModelShape
) -> None:
    model = random_model(shape)
    tokens_BS = encoded_source(300)
    export(model, shape, tmp_path / "hf")

    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    theirs, loading = loaded

    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        ours = model(tokens_BS, torch.arange(300)[None], None)[..., :VOCAB_SIZE]
        logits = theirs.eval()(tokens_BS).logits
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, ours, atol=1e-4, rtol=0)


@SHAPES
def test_exported_model_loaded_back_is_bit_equal(tmp_path: Path, shape: ModelShape) -> None:
    model, again = random_model(shape), build_model(shape, VOCAB_SIZE)
    export(model, shape, tmp_path / "hf")

    load_hf_weights(again, tmp_path / "hf", shape)

    for (name, before), after in zip(model.named_parameters(), again.parameters(), strict=True):
        is_padded = name.endswith(("word_embeddings.weight", "output_layer.weight"))
        num_rows = VOCAB_SIZE if is_padded else len(before)
        assert torch.equal(before[:num_rows], after[:num_rows]), name


def test_exported_bfloat16_model_is_the_rounded_one(tmp_path: Path) -> None:
    model = random_model(MOE)

    export(model, MOE, tmp_path / "hf", dtype=torch.bfloat16)

    stored = load_file(tmp_path / "hf" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    router = model.get_parameter("decoder.layers.1.mlp.router.weight")
    assert torch.equal(stored["model.layers.1.mlp.gate.weight"], router.bfloat16())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert loaded.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [DENSE, MOE], ids=["dense", "moe"])
def test_exported_tokenizer_encodes_and_renders_as_given(tmp_path: Path, shape: ModelShape) -> None:
    export(random_model(shape), shape, tmp_path / "hf")
    given = small_tokenizer(shape)

    loaded = AutoTokenizer.from_pretrained(tmp_path / "hf")

    text = python_source() + "<|im_start|>user\n  Grüße 1234\n\n\t<|im_end|>"
    assert loaded(text).input_ids == given.encode(text).ids
    assert loaded.decode(loaded(text).input_ids) == text
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")
    messages = [{"role": "user", "content": " a\n"}]
    rendered = loaded.apply_chat_template(messages, tokenize=False)
    assert rendered == "<|im_start|>user\n a\n<|im_end|>\n"


def test_export_of_a_dense_model_with_a_tokenizer_that_would_be_changed_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "own.json"
    small_tokenizer(MOE).save(str(path))

    with pytest.raises(ValueError, match=r"own\.json: it does not cut text as Qwen2's tokenizer"):
        export(random_model(DENSE), DENSE, tmp_path / "hf", tokenizer_file=path)

    assert not (tmp_path / "hf").exists()


def test_exported_generation_ends_at_any_of_the_end_tokens(tmp_path: Path) -> None:
    export(random_model(DENSE), DENSE, tmp_path / "hf")

    config = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").generation_config

    names = [small_tokenizer(DENSE).id_to_token(token_id) for token_id in config.eos_token_id]
    assert names == ["<|im_end|>", "<|endoftext|>"]


def test_exported_shards_load_like_one_file(tmp_path: Path) -> None:
    model = random_model(MOE)
    export(model, MOE, tmp_path / "one")
    export(model, MOE, tmp_path / "many", max_shard_bytes=100_000)

    assert len(list((tmp_path / "many").glob("model-0000?-of-0000?.safetensors"))) > 2
    one, many = (AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("one", "many"))
    for (name, before), after in zip(one.named_parameters(), many.parameters(), strict=True):
        assert torch.equal(before, after), name


def test_export_of_the_same_weights_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(random_model(MOE), MOE, tmp_path / name)

    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_export_after_a_killed_one_leaves_none_of_its_weights(tmp_path: Path) -> None:
    model = random_model(DENSE)
    export(model, DENSE, tmp_path / "hf", max_shard_bytes=20_000)
    (tmp_path / "hf" / "config.json").unlink()  # as a kill before the last file leaves it

    export(model, DENSE, tmp_path / "hf")

    assert [path.name for path in (tmp_path / "hf").glob("*safetensors*")] == ["model.safetensors"]
    with pytest.raises(ValueError, match="already holds a model"):
        export(model, DENSE, tmp_path / "hf")


def test_export_that_fails_midway_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "hf" / "generation_config.json").mkdir(
        parents=True
    )  # stands for whatever stops the last files

    with pytest.raises(OSError, match="generation_config"):
        export(random_model(DENSE), DENSE, tmp_path / "hf")

    assert (tmp_path / "hf" / "model.safetensors").is_file()
    assert not (tmp_path / "hf" / "config.json").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vocab_size", 299, r"highest token id 299 does not fit vocab_size=299"),
        ("eos_tokens", ["<|end|>"], r"eos_tokens=\['<\|end\|>'\] must be tokens of it"),
        ("eos_tokens", [], "at least one"),
        ("dtype", torch.float16, "dtype=torch.float16 must be one of"),
    ],
)
def test_export_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export(random_model(DENSE), DENSE, tmp_path / "hf", **{name: value})

    assert not (tmp_path / "hf").exists()


def test_exported_config_names_the_end_token(tmp_path: Path) -> None:
    export(random_model(DENSE), DENSE, tmp_path / "hf")

    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert small_tokenizer(DENSE).id_to_token(config["eos_token_id"]) == "<|im_end|>"
