from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from tiny_training import SETTINGS, SHAPE, VOCAB_SIZE, counting_samples
from torch import Tensor
from torch.nn import functional

from mira_megatron.training.batches import Batch, Batches
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.gradient import GradientBuffer, accumulate_gradient
from mira_megatron.training.moe_balance import share_aux_loss
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.token_loss import summed_loss
from mira_megatron.training.trainer import train
from mira_megatron.training.training_log import TrainEntry

pytestmark = pytest.mark.megatron

NUM_EXPERTS, TOPK = 4, 2
COEFFICIENT = 0.5  # large, so that a wrong share of it shows
MOE_SHAPE = replace(
    SHAPE,
    num_moe_experts=NUM_EXPERTS,
    moe_router_topk=TOPK,
    moe_ffn_hidden_size=24,
    moe_aux_loss_coeff=COEFFICIENT,
)


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


def load_balancing_loss(router_input: Tensor, router_weight: Tensor) -> Tensor:
    """E * sum over experts of (share of the choices) x (mean probability), written out."""
    logits_TE = functional.linear(router_input.flatten(0, 1), router_weight)
    chosen_TK = logits_TE.topk(TOPK).indices
    share_E = torch.bincount(chosen_TK.flatten(), minlength=NUM_EXPERTS) / chosen_TK.numel()
    return NUM_EXPERTS * (share_E * logits_TE.softmax(dim=-1).mean(dim=0)).sum()


def explicit_loss(model: GPTModel, batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """The loss of the step, and the mean load-balancing loss, with no help from Megatron's."""
    balances: list[Tensor] = []

    def listen(router: Any, arguments: tuple[Tensor, ...]) -> None:
        balances.append(load_balancing_loss(arguments[0], router.weight))

    hooks = [layer.mlp.router.register_forward_pre_hook(listen) for layer in model.decoder.layers]
    losses = [summed_loss(model, batch) for batch in batches]
    for hook in hooks:
        hook.remove()
    num_tokens = sum(float(batch.loss_mask_BS.sum()) for batch in batches)
    aux_loss = COEFFICIENT * torch.stack(balances).sum() / len(batches)
    return torch.stack(losses).sum() / num_tokens + aux_loss, torch.stack(balances).mean()


@pytest.mark.parametrize("micro_batch_size", [8, 4, 2])
def test_gradient_of_a_mixture_of_experts_equals_the_explicit_losses(
    micro_batch_size: int,
) -> None:
    settings = replace(SETTINGS, micro_batch_size=micro_batch_size)
    model = build_model(MOE_SHAPE, VOCAB_SIZE)
    batches = list(Batches(counting_samples(8), settings, VOCAB_SIZE).between(0, 8))
    assert len(batches) == 8 // micro_batch_size
    loss, balance = explicit_loss(model, batches)
    share_aux_loss(10**30)  # Megatron's own share of this backward pass is nothing
    expected = torch.autograd.grad(loss, list(model.parameters()))
    gradients = GradientBuffer(list(model.parameters()))

    for _ in range(2):  # what the first pass left behind does not count again
        work = accumulate_gradient(model, gradients, batches)

    for (name, _), view, gradient in zip(
        model.named_parameters(), gradients.views, expected, strict=True
    ):
        torch.testing.assert_close(view, gradient)
        assert gradient.any() or "router" not in name, name
    assert work.mean_load_balancing_loss == pytest.approx(balance.item(), rel=1e-5)


def test_training_logs_the_load_balancing_loss_of_a_mixture_of_experts_alone() -> None:
    logged = []
    for shape in (MOE_SHAPE, SHAPE):
        result = train(
            model_shape=shape,
            settings=SETTINGS,
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(48),
            valid_dataset=None,
        )
        logged.append([e for e in result.state.log_history if isinstance(e, TrainEntry)])
        names = result.state.to_json()["log_history"][0]
        assert ("load_balancing_loss" in names) == (shape is MOE_SHAPE)

    # 1 is balance, and the number of experts is all tokens at one of them.
    assert all(0.9 < (e.load_balancing_loss or 0) < NUM_EXPERTS for e in logged[0])
    assert [e.load_balancing_loss for e in logged[1]] == [None] * 3
