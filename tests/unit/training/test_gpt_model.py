from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.moe.moe_layer import MoELayer
from torch import Tensor
from torch.nn import functional

from mira_megatron.training.checkpoint import load_checkpoint, save_checkpoint
from mira_megatron.training.gpt_model import (
    SdpaAttention,
    build_model,
    has_transformer_engine,
    layer_spec,
    padded_vocab_size,
    transformer_config,
)
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group

pytestmark = pytest.mark.megatron

VOCAB_SIZE = 100
TOKENS_BS = torch.tensor([[11, 12, 13, 14, 15, 16]])
POSITIONS_BS = torch.arange(6)[None]
CAUSAL_MASK = torch.ones(1, 1, 6, 6).triu(1).bool()  # Megatron's: True = hidden
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
MOE = replace(
    SHAPE,
    num_moe_experts=4,
    moe_router_topk=2,
    moe_ffn_hidden_size=12,
    moe_aux_loss_coeff=0.01,
)
BOTH = pytest.mark.parametrize("shape", [SHAPE, MOE], ids=["dense", "moe"])


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


def logits_of(model: torch.nn.Module, tokens_BS: Tensor, attention_mask: Tensor | None) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(tokens_BS, POSITIONS_BS, attention_mask)
    return logits


@pytest.mark.parametrize("attention_mask", [None, CAUSAL_MASK], ids=["mask_off", "mask_on"])
def test_model_changed_future_token_leaves_earlier_logits(attention_mask: Tensor | None) -> None:
    model = build_model(SHAPE, VOCAB_SIZE)
    changed_BS = TOKENS_BS.clone()
    changed_BS[0, 3] = 99

    before = logits_of(model, TOKENS_BS, attention_mask)
    after = logits_of(model, changed_BS, attention_mask)

    assert torch.equal(before[0, :3], after[0, :3])
    assert not torch.isclose(before[0, 3:], after[0, 3:]).all(dim=-1).any()


def test_model_with_a_mask_between_documents_does_not_look_across() -> None:
    model = build_model(SHAPE, VOCAB_SIZE)
    mask = CAUSAL_MASK.clone()
    mask[..., 3:, :3] = True  # tokens 3-5 are another document
    changed_BS = TOKENS_BS.clone()
    changed_BS[0, 0] = 99

    before = logits_of(model, TOKENS_BS, mask)
    after = logits_of(model, changed_BS, mask)

    assert torch.equal(before[0, 3:], after[0, 3:])


@BOTH
def test_model_attention_equals_megatrons_own(shape: ModelShape) -> None:
    model = build_model(shape, VOCAB_SIZE)
    ours = logits_of(model, TOKENS_BS, None)

    for layer in model.decoder.layers:
        layer.self_attention.core_attention.__class__ = DotProductAttention
    stock = logits_of(model, TOKENS_BS, CAUSAL_MASK)

    torch.testing.assert_close(ours, stock)  # float32 sums in another order


def test_model_has_biases_on_q_k_and_v_only() -> None:
    names = {
        name.split(".", 3)[-1] for name, _ in build_model(SHAPE, VOCAB_SIZE).named_parameters()
    }

    assert {name for name in names if "bias" in name} == {"self_attention.linear_qkv.bias"}


@pytest.mark.parametrize(("is_tied", "num_matrices"), [(True, 1), (False, 2)])
def test_model_embeddings_are_one_matrix_when_tied(is_tied: bool, num_matrices: int) -> None:
    model = build_model(replace(SHAPE, tie_embeddings=is_tied), VOCAB_SIZE)

    rows = [p for p in model.parameters() if p.shape[0] == padded_vocab_size(VOCAB_SIZE)]
    assert len(rows) == num_matrices


@pytest.mark.parametrize(("vocab_size", "num_rows"), [(1, 128), (128, 128), (129, 256)])
def test_padded_vocab_size_is_the_next_multiple_of_128(vocab_size: int, num_rows: int) -> None:
    assert padded_vocab_size(vocab_size) == num_rows


def test_moe_model_has_no_biases_and_normalises_q_and_k_per_head() -> None:
    parameters = dict(build_model(MOE, VOCAB_SIZE).named_parameters())

    assert not any("bias" in name for name in parameters)
    for which in ("q_layernorm", "k_layernorm"):
        norm = parameters[f"decoder.layers.0.self_attention.{which}.weight"]
        assert norm.shape == (MOE.channels_per_head,)


def test_moe_model_after_one_with_fewer_layers_runs() -> None:
    for num_layers in (1, 2):
        model = build_model(replace(MOE, num_layers=num_layers), VOCAB_SIZE).train()
        loss_BS = model(TOKENS_BS, POSITIONS_BS, None, labels=TOKENS_BS)
        torch.autograd.backward(loss_BS.sum())


def test_moe_layer_is_the_weighted_sum_of_each_tokens_best_experts() -> None:
    layer = build_model(MOE, VOCAB_SIZE).decoder.layers[0].mlp
    tokens_SBH = torch.randn(5, 1, 16)

    with torch.no_grad():
        got_SBH, _ = layer(tokens_SBH)
        for token_H, got_H in zip(tokens_SBH[:, 0], got_SBH[:, 0], strict=True):
            best = (layer.router.weight @ token_H).topk(2)
            expected_H = torch.zeros(16)
            for weight, index in zip(best.values.softmax(0), best.indices, strict=True):
                expert = layer.experts.local_experts[int(index)]
                gate, up = (expert.linear_fc1.weight @ token_H).chunk(2)
                expected_H += weight * expert.linear_fc2.weight @ (functional.silu(gate) * up)
            torch.testing.assert_close(got_H, expected_H)  # float32 sums in another order


@pytest.mark.parametrize(("coefficient", "is_balanced"), [(0.01, True), (0.0, False)])
def test_moe_auxiliary_loss_reaches_the_router_only_through_its_coefficient(
    coefficient: float, is_balanced: bool
) -> None:
    model = build_model(replace(MOE, moe_aux_loss_coeff=coefficient), VOCAB_SIZE)

    # A loss of zero times the logits leaves the auxiliary loss alone.
    torch.autograd.backward(0 * model(TOKENS_BS, POSITIONS_BS, None).sum())

    gradient = model.decoder.layers[0].mlp.router.weight.grad
    assert bool(gradient.abs().sum() > 0) == is_balanced


@BOTH
def test_model_in_bfloat16_is_all_bfloat16_and_close_to_float32(shape: ModelShape) -> None:
    torch.manual_seed(1)
    full = build_model(shape, VOCAB_SIZE).eval()
    half = build_model(shape, VOCAB_SIZE, dtype=torch.bfloat16).eval()
    half.load_state_dict(full.state_dict())

    expected = logits_of(full, TOKENS_BS, None)
    got = logits_of(half, TOKENS_BS, None)

    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    # 8 bits of mantissa, a few roundings deep; the logits themselves are near 0.1.
    torch.testing.assert_close(got.float(), expected, atol=0.01, rtol=0.1)


@BOTH
def test_model_in_bfloat16_has_a_gradient_for_every_parameter(shape: ModelShape) -> None:
    model = build_model(shape, VOCAB_SIZE, dtype=torch.bfloat16)

    torch.autograd.backward(model(TOKENS_BS, POSITIONS_BS, None, labels=TOKENS_BS).sum())

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@BOTH
def test_model_without_transformer_engine_is_of_local_layers(shape: ModelShape) -> None:
    spec = layer_spec(shape, with_transformer_engine=False).submodules

    assert spec.self_attention.submodules.core_attention is SdpaAttention
    assert spec.mlp.module is (MoELayer if shape.is_moe else MLP)


def test_transformer_engine_is_not_used_without_cuda() -> None:
    assert has_transformer_engine() <= torch.cuda.is_available()


@pytest.mark.parametrize("with_transformer_engine", [False, True])
def test_moe_settings_group_the_experts_only_with_transformer_engine(
    with_transformer_engine: bool,
) -> None:
    config = transformer_config(
        MOE, dtype=torch.bfloat16, with_transformer_engine=with_transformer_engine
    )

    assert config.moe_grouped_gemm == with_transformer_engine


@BOTH
def test_checkpoint_loaded_into_another_model_gives_the_same_weights(
    tmp_path: Path, shape: ModelShape
) -> None:
    saved, loaded = build_model(shape, VOCAB_SIZE), build_model(shape, VOCAB_SIZE)
    save_checkpoint(saved, tmp_path / "checkpoint")

    load_checkpoint(loaded, tmp_path / "checkpoint")

    for (name, before), after in zip(saved.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(before, after), name


def test_checkpoint_of_the_same_weights_has_the_same_bytes(tmp_path: Path) -> None:
    model = build_model(SHAPE, VOCAB_SIZE)
    for folder in ("a", "b"):
        save_checkpoint(model, tmp_path / folder)

    visible = sorted(path.name for path in (tmp_path / "a").glob("[!.]*"))
    assert "metadata.json" in visible
    for name in visible:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("name", "saved", "loaded", "reason"),
    [
        ("ffn_hidden_size", 24, 32, "Global shape mismatch.*linear_fc1"),
        ("num_layers", 3, 2, "Global shape mismatch"),
        ("tie_embeddings", True, False, "not found in the checkpoint(?s:.)*output_layer.weight"),
        (
            "tie_embeddings",
            False,
            True,
            "found in the checkpoint are missing(?s:.)*output_layer.weight",
        ),
    ],
)
def test_checkpoint_of_another_shape_is_refused(
    tmp_path: Path, name: str, saved: Any, loaded: Any, reason: str
) -> None:
    save_checkpoint(build_model(replace(SHAPE, **{name: saved}), VOCAB_SIZE), tmp_path)
    model = build_model(replace(SHAPE, **{name: loaded}), VOCAB_SIZE)

    with pytest.raises(ValueError, match=rf"does not fit the model \((?s:.)*{reason}"):
        load_checkpoint(model, tmp_path)


def test_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    model = build_model(SHAPE, VOCAB_SIZE)

    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        load_checkpoint(model, tmp_path / "nowhere")


def test_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    model = build_model(SHAPE, VOCAB_SIZE)
    save_checkpoint(model, tmp_path)

    with pytest.raises(ValueError, match="already holds a checkpoint"):
        save_checkpoint(model, tmp_path)
