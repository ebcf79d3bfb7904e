"""A small training run in a process of its own, which may kill itself at a chosen moment.

    torchrun --nproc-per-node 2 training_run.py FOLDER never 0      or python training_run.py ...

FOLDER/checkpoints, FOLDER/trainer_state.json and FOLDER/weights-<rank>.txt are what it writes. The
moment is a call of the standard library or of torch; the trainer itself is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from megatron.core.models.gpt.gpt_model import GPTModel

from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import process_group_of_torchrun
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.schedule import TrainSettings
from mira_megatron.training.trainer import train

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
    num_moe_experts=4,
    moe_router_topk=2,
    moe_ffn_hidden_size=16,
    moe_aux_loss_coeff=0.01,
)
SETTINGS = TrainSettings(
    sequence_length=16,
    micro_batch_size=2,
    global_batch_size=8,
    train_iters=8,
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
    save_interval=3,
)


def samples(num_samples: int) -> list[dict[str, torch.Tensor]]:
    """Sample i counts up by 3 from i, with a loss on its second half."""
    tokens = torch.arange(num_samples)[:, None] + 3 * torch.arange(17)
    loss_mask = torch.cat([torch.zeros(8), torch.ones(8)])
    return [
        {
            "tokens": row[:-1] % VOCAB_SIZE,
            "labels": row[1:] % VOCAB_SIZE,
            "loss_mask": loss_mask,
            "position_ids": torch.arange(16),
        }
        for row in tokens
    ]


def main(words: Sequence[str]) -> int:
    """Trains; `words` are the folder, what to be killed at, and at which of its calls."""
    folder, called, kill_at = Path(words[0]), words[1], int(words[2])
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    with process_group_of_torchrun(os.environ), killed_at(called, kill_at):
        result = train(
            model_shape=SHAPE,
            settings=SETTINGS,
            vocab_size=VOCAB_SIZE,
            train_dataset=samples(64),
            valid_dataset=samples(3),
            checkpointing=Checkpointing(folder=folder / "checkpoints", data_fingerprint="counting"),
        )
    if rank == "0":
        result.state.save(folder / "trainer_state.json")
    (folder / f"weights-{rank}.txt").write_text(digest(result.model))
    return 0


def killed_at(called: str, kill_at: int) -> AbstractContextManager[object]:
    """Returns a block in which this process dies at a call of `called`, as of kill -9."""
    places: dict[str, tuple[Any, str]] = {
        "backward": (torch.autograd, "backward"),
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
    }
    if called not in places:
        return nullcontext()
    module, name = places[called]
    return mock.patch.object(module, name, _killing(getattr(module, name), kill_at))


def _killing(function: Callable[..., object], kill_at: int) -> Callable[..., object]:
    """A checkpoint is written by forked children: there, too, it is this process that dies."""
    main_process, num_calls = os.getpid(), 0

    def call(*arguments: object) -> object:
        nonlocal num_calls
        num_calls += 1
        if num_calls == kill_at:
            os.kill(main_process, signal.SIGKILL)
        return function(*arguments)

    return call


def digest(model: GPTModel) -> str:
    """Returns a digest of every bit of the weights."""
    whole = hashlib.sha256()
    for name, weight in model.named_parameters():
        whole.update(name.encode() + weight.detach().numpy().tobytes())
    return whole.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
