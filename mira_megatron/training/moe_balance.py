"""The load-balancing loss of a mixture of experts, which Megatron adds during the backward pass.

Megatron attaches it to the router's output, so that it never stands in the loss we see. Its
gradient is multiplied by one factor, which the trainer has to set.
"""

from __future__ import annotations

import torch
from megatron.core.transformer.moe.moe_utils import (
    MoEAuxLossAutoScaler,
    clear_aux_losses_tracker,
    get_moe_layer_wise_logging_tracker,
)

from mira_megatron.training.process_group import current_device


def share_aux_loss(num_micro_batches: int) -> None:
    """Makes the step's auxiliary loss the mean over its micro-batches, those of all processes.

    Each micro-batch balances its own tokens, as in Megatron. Gradients are summed over
    micro-batches and processes, and the language-model loss is divided by the tokens of the whole
    step already. Forgets what earlier forward passes left for `load_balancing_loss_sum`.
    """
    clear_aux_losses_tracker()
    scale = torch.tensor(1.0 / num_micro_batches, device=current_device())
    MoEAuxLossAutoScaler.set_loss_scale(scale)


def load_balancing_loss_sum() -> float:
    """Returns the loss summed over this process's forward passes since `share_aux_loss`.

    Of each pass the mean over its layers, before the coefficient; 0.0 for a dense model.
    """
    entry = get_moe_layer_wise_logging_tracker().get("load_balancing_loss")
    if entry is None:
        return 0.0
    return float(entry["values"].mean())
