"""AdamW on float32 weights, whatever the model's own precision, fed from one gradient buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mira_megatron.training.gradient import GradientBuffer
from mira_megatron.training.schedule import TrainSettings


class Float32AdamW:
    """AdamW whose weights and moments are float32.

    The model's own parameters where they are float32 themselves; otherwise copies of them, whose
    rounded values the model gets after each step. A bfloat16 weight has 8 bits and would not move
    by the small steps at the end of a schedule.
    """

    def __init__(self, model: torch.nn.Module, settings: TrainSettings) -> None:
        self._parameters = dict(model.named_parameters())
        self.weights = {
            name: p if p.dtype == torch.float32 else p.detach().float()
            for name, p in self._parameters.items()
        }
        self.gradients = GradientBuffer(list(self._parameters.values()))
        for weight, gradient in zip(self.weights.values(), self.gradients.views, strict=True):
            weight.grad = gradient
        self._adamw = torch.optim.AdamW(
            parameter_groups(list(self.weights.values()), settings.weight_decay),
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            fused=True,
        )
        for weight in self.weights.values():
            self._adamw.state[weight] = {
                "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }

    def step(self, learning_rate: float) -> None:
        """Changes the weights by the gradient in the buffer."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self._round_into_model()

    def largest_weight(self) -> float:
        """Returns the largest magnitude of a weight; NaN where any weight is."""
        return float(
            torch.stack([weight.detach().abs().max() for weight in self.weights.values()]).max()
        )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields every tensor that, beside the model's weights, decides the steps to come."""
        for name, weight in self.weights.items():
            yield f"exp_avg.{name}", self._adamw.state[weight]["exp_avg"]
            yield f"exp_avg_sq.{name}", self._adamw.state[weight]["exp_avg_sq"]
            if weight is not self._parameters[name]:
                yield f"weight.{name}", weight

    def resume_after(self, step: int) -> None:
        """Goes on after `step` steps; `tensors` hold the values they had then."""
        for weight in self.weights.values():
            self._adamw.state[weight]["step"].fill_(step)
        self._round_into_model()

    @torch.no_grad()
    def _round_into_model(self) -> None:
        for name, parameter in self._parameters.items():
            if self.weights[name] is not parameter:
                parameter.copy_(self.weights[name])


def parameter_groups(weights: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Returns AdamW's groups: matrices decay; vectors, which are norms and biases, do not."""
    return [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]
