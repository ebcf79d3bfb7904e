import copy
from dataclasses import replace

import pytest
import torch
from tiny_training import SETTINGS
from torch import Tensor, nn

from mira_megatron.training.adamw import Float32AdamW, parameter_groups
from mira_megatron.training.gradient import GradientBuffer

INPUTS = torch.tensor([[1.0, -2.0, 0.5], [0.25, 1.5, -1.0]])


def two_layers(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).to(dtype)


def backward(model: nn.Module, inputs: Tensor) -> None:
    dtype = next(model.parameters()).dtype
    torch.autograd.backward(model(inputs.to(dtype)).float().square().sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_buffer_adds_up_micro_batches_in_float32(dtype: torch.dtype) -> None:
    model = two_layers(dtype)
    parts = []
    for inputs in torch.split(INPUTS, 1):
        model.zero_grad()
        backward(model, inputs)
        parts.append([p.grad.float() for p in model.parameters() if p.grad is not None])
    model.zero_grad()

    buffer = GradientBuffer(list(model.parameters()))
    for inputs in torch.split(INPUTS, 1):
        backward(model, inputs)

    assert buffer.flat.dtype == torch.float32
    assert len(buffer.views) == len(parts[0]) == len(parts[1])
    for view, first, second in zip(buffer.views, *parts, strict=True):
        assert torch.equal(view, first + second)


@pytest.mark.parametrize(("max_norm", "clipped"), [(2.5, [1.5, 2.0]), (5.1, [3.0, 4.0])])
def test_gradient_buffer_clips_to_the_norm_of_all_gradients(
    max_norm: float, clipped: list[float]
) -> None:
    buffer = GradientBuffer([torch.zeros(1, requires_grad=True) for _ in range(2)])
    buffer.flat.copy_(torch.tensor([3.0, 4.0]))

    assert buffer.clip(max_norm) == 5.0
    assert buffer.flat.tolist() == clipped


def test_adamw_takes_the_steps_of_torchs_own() -> None:
    ours, stock = two_layers(), two_layers()
    optimizer = Float32AdamW(ours, SETTINGS)
    reference = torch.optim.AdamW(
        parameter_groups(list(stock.parameters()), SETTINGS.weight_decay),
        betas=(SETTINGS.adam_beta1, SETTINGS.adam_beta2),
    )
    for learning_rate in (0.1, 0.05, 0.01):
        optimizer.gradients.zero()
        backward(ours, INPUTS)
        optimizer.step(learning_rate)
        reference.zero_grad()
        backward(stock, INPUTS)
        for group in reference.param_groups:
            group["lr"] = learning_rate
        reference.step()

    torch.testing.assert_close(list(ours.parameters()), list(stock.parameters()))


def test_adamw_on_a_bfloat16_model_keeps_steps_too_small_for_bfloat16() -> None:
    model = two_layers(torch.bfloat16)
    start = copy.deepcopy(model.state_dict())
    optimizer = Float32AdamW(model, replace(SETTINGS, weight_decay=0.0))
    before = {name: weight.clone() for name, weight in optimizer.weights.items()}
    name = "1.weight"  # all ones, between which and the next bfloat16 lies 2**-8
    for _ in range(10):
        optimizer.gradients.flat.fill_(1.0)
        optimizer.step(1e-4)

    # Under a constant gradient each step of AdamW has the length of the learning rate.
    torch.testing.assert_close(before[name] - optimizer.weights[name], torch.full((4,), 1e-3))
    assert torch.equal(model.state_dict()[name], start[name])
    for _ in range(40):
        optimizer.step(1e-4)
    assert torch.equal(model.state_dict()[name], optimizer.weights[name].bfloat16())
    assert not torch.equal(model.state_dict()[name], start[name])


def test_adamw_with_loaded_tensors_goes_on_as_the_other_did() -> None:
    model = two_layers()
    optimizer = Float32AdamW(model, SETTINGS)
    backward(model, INPUTS)
    optimizer.step(0.1)
    resumed_model = copy.deepcopy(model)
    resumed = Float32AdamW(resumed_model, SETTINGS)
    for (name, theirs), (same_name, ours) in zip(
        optimizer.tensors(), resumed.tensors(), strict=True
    ):
        assert name == same_name
        ours.copy_(theirs)
    resumed.resume_after(1)
    for each, of in ((optimizer, model), (resumed, resumed_model)):
        each.gradients.zero()
        backward(of, INPUTS)
        each.step(0.05)

    for weight, expected in zip(resumed_model.parameters(), model.parameters(), strict=True):
        assert torch.equal(weight, expected)
