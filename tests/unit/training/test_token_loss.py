from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import Tensor

from mira_megatron.training.batches import Batch
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.token_loss import summed_loss

pytestmark = pytest.mark.megatron

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
LOSS_MASK_BS = [[0.0, 0.0, 1.0, 1.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


def batch_with(loss_mask_BS: list[list[float]], *, is_masked: bool = False) -> Batch:
    causal = torch.ones(2, 1, 6, 6).triu(1).bool()
    return Batch(
        tokens_BS=torch.arange(12).view(2, 6),
        labels_BS=torch.arange(1, 13).view(2, 6),
        loss_mask_BS=torch.tensor(loss_mask_BS),
        position_ids_BS=torch.arange(6).expand(2, 6),
        attention_mask_B1SS=causal if is_masked else None,
    )


def loss_over_all_tokens(model: GPTModel, batch: Batch) -> Tensor:
    """Megatron's own: a loss for every token, and then the mask."""
    loss_BS: Tensor = model(
        batch.tokens_BS, batch.position_ids_BS, batch.attention_mask_B1SS, labels=batch.labels_BS
    )
    return (loss_BS * batch.loss_mask_BS).sum()


def gradients(model: GPTModel, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("is_masked", [True, False])
def test_summed_loss_and_its_gradient_equal_megatrons_own(
    tie_embeddings: bool, is_masked: bool
) -> None:
    model = build_model(replace(SHAPE, tie_embeddings=tie_embeddings), vocab_size=100)
    batch = batch_with(LOSS_MASK_BS, is_masked=is_masked)

    ours, stock = summed_loss(model, batch), loss_over_all_tokens(model, batch)

    torch.testing.assert_close(ours, stock)  # float32 sums in another order
    torch.testing.assert_close(gradients(model, ours), gradients(model, stock))


def test_summed_loss_without_loss_tokens_is_zero_with_a_zero_gradient() -> None:
    model = build_model(SHAPE, vocab_size=100)

    loss = summed_loss(model, batch_with([[0.0] * 6] * 2))

    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(model, loss))
