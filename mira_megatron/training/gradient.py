"""The gradient of one step: over micro-batches, over processes, and no longer than allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import Tensor, distributed

from mira_megatron.training.batches import Batch
from mira_megatron.training.moe_balance import load_balancing_loss_sum, share_aux_loss
from mira_megatron.training.process_group import sum_over_processes
from mira_megatron.training.token_loss import summed_loss
from mira_megatron.training.training_log import Work


class GradientBuffer:
    """All gradients of a model, float32, end to end in one tensor.

    So that micro-batches add up in float32, and that processes exchange one tensor per step instead
    of one per parameter. A parameter that got no gradient has zeros.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes), dtype=torch.float32, device=parameters[0].device)
        self.views = [
            view.view_as(parameter)
            for view, parameter in zip(torch.split(self.flat, sizes), parameters, strict=True)
        ]
        for parameter, view in zip(parameters, self.views, strict=True):
            if parameter.dtype == torch.float32:
                parameter.grad = view  # to which autograd adds in place
            else:
                add_hook: Any = parameter.register_post_accumulate_grad_hook  # untyped in torch
                add_hook(_moved_into(view))

    def zero(self) -> None:
        """Forgets the gradient of the previous step."""
        self.flat.zero_()

    def sum_over_processes(self) -> None:
        """Adds up the gradients of the data-parallel processes; each of them has the sum then."""
        if parallel_state.get_data_parallel_world_size() > 1:
            distributed.all_reduce(self.flat, group=parallel_state.get_data_parallel_group())

    def clip(self, max_norm: float) -> float:
        """Scales the gradient down to `max_norm`; returns its L2 norm before that."""
        norm = float(torch.linalg.vector_norm(self.flat))
        if math.isfinite(norm) and norm > max_norm:
            self.flat.mul_(max_norm / norm)
        return norm


def accumulate_gradient(
    model: GPTModel, gradients: GradientBuffer, batches: Sequence[Batch]
) -> Work:
    """Leaves the gradient of the step in the buffer; returns the step's work, without its time.

    The loss is the mean per token over the micro-batches of all processes, `batches` being this
    one's. A mixture of experts adds the mean of their auxiliary losses. Without any token with a
    loss there is no gradient.
    """
    num_tokens, num_micro_batches = sum_over_processes(
        sum(float(batch.loss_mask_BS.sum()) for batch in batches), len(batches)
    )
    gradients.zero()
    if num_tokens == 0:
        return Work(num_steps=1)
    is_moe = model.config.num_moe_experts is not None
    if is_moe:
        share_aux_loss(int(num_micro_batches))
    loss_sum = 0.0
    for batch in batches:
        loss = summed_loss(model, batch)
        torch.autograd.backward(loss / num_tokens)
        loss_sum += loss.item()
    gradients.sum_over_processes()
    loss_sum, balance = sum_over_processes(loss_sum, load_balancing_loss_sum() if is_moe else 0.0)
    return Work(
        loss_sum=loss_sum,
        num_tokens=int(num_tokens),
        num_steps=1,
        load_balancing_sum=balance / num_micro_batches if is_moe else None,
    )


def _moved_into(view: Tensor) -> Callable[[Tensor], None]:
    def move(parameter: Tensor) -> None:
        assert parameter.grad is not None
        view.add_(parameter.grad)
        parameter.grad = None

    return move
