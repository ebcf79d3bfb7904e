"""A model and data so small that a test trains in a second."""

from __future__ import annotations

import torch
from torch import Tensor

from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.schedule import TrainSettings

VOCAB_SIZE = 64
SHAPE = ModelShape(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    num_attention_heads=4,
    num_query_groups=2,
    max_sequence_length=16,
    rotary_base=10_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=True,
)
SETTINGS = TrainSettings(
    sequence_length=16,
    micro_batch_size=4,
    global_batch_size=8,
    train_iters=6,
    learning_rate=1e-2,
    min_learning_rate=1e-3,
    warmup_iters=1,
    weight_decay=0.1,
    adam_beta1=0.9,
    adam_beta2=0.95,
    clip_grad=1.0,
    eval_interval=4,
    log_interval=2,
    seed=7,
)


def sample(tokens: list[int], loss_mask: list[int]) -> dict[str, Tensor]:
    """One item as GPTDataset gives it; the last of `tokens` is only a label."""
    return {
        "tokens": torch.tensor(tokens[:-1]),
        "labels": torch.tensor(tokens[1:]),
        "loss_mask": torch.tensor(loss_mask, dtype=torch.float32),
        "position_ids": torch.arange(len(tokens) - 1),
    }


def counting_samples(num_samples: int) -> list[dict[str, Tensor]]:
    """Sample i counts up from i: the next token is always the token after this one."""
    return [sample([(i + k) % VOCAB_SIZE for k in range(17)], [1] * 16) for i in range(num_samples)]
