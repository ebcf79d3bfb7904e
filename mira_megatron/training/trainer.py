"""Train a GPT model on Megatron datasets, straight on megatron-core.

Data-parallel only, on the CPU or on GPUs: for one machine, the demo and the tests. Larger runs
belong to Megatron-Bridge. On the same machine with the same number of threads and processes, the
same seed gives the same bytes, however often the run was killed and resumed on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import distributed

from mira_megatron.config import fingerprinted
from mira_megatron.training.adamw import Float32AdamW
from mira_megatron.training.batches import Batches, TokenDataset
from mira_megatron.training.cpu_threads import cpu_threads
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.resuming import Checkpointing, TrainingCheckpoints
from mira_megatron.training.schedule import TrainSettings, num_train_iters
from mira_megatron.training.tensorboard_log import tensorboard_log
from mira_megatron.training.training_log import LogEntry, Progress, TrainerState
from mira_megatron.training.training_loop import TrainingRun


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """A trained model, how it got there, and how fast."""

    model: GPTModel
    state: TrainerState
    tokens_per_second: float  # of training, validation left out


def train(
    *,
    model_shape: ModelShape,
    settings: TrainSettings,
    vocab_size: int,
    train_dataset: TokenDataset,
    valid_dataset: TokenDataset | None,
    initialise: Callable[[GPTModel], None] | None = None,
    on_log: Callable[[LogEntry], None] | None = None,
    checkpointing: Checkpointing | None = None,
    tensorboard_folder: Path | None = None,
) -> TrainResult:
    """Returns a trained model; needs `megatron_process_group`.

    Starts from random weights, which `initialise` may replace. With `checkpointing`, goes on from
    the newest checkpoint of the folder, and writes one every `save_interval` steps. Samples are
    taken in index order, as Megatron's single-GPU loader does: the shuffle is the dataset's own.
    Without a validation dataset the log has no evaluations. Entries logged before a resume are not
    told again. Raises ValueError where dataset, settings or checkpoint do not fit, and where the
    loss stops being a number; OSError (ENOSPC) where a checkpoint finds no room.
    """
    _check_fit(model_shape, settings)
    train_iters = num_train_iters(settings, len(train_dataset))
    checkpoints = None
    if checkpointing is not None:
        origin = _origin(model_shape, settings, vocab_size, train_iters, checkpointing)
        checkpoints = TrainingCheckpoints(checkpointing.folder, origin)
    latest = None if checkpoints is None else checkpoints.latest()
    torch.manual_seed(settings.seed)
    if torch.cuda.is_available():
        tensor_parallel.model_parallel_cuda_manual_seed(settings.seed)
    model = build_model(model_shape, vocab_size, dtype=getattr(torch, settings.precision))
    if initialise is not None and latest is None:
        initialise(model)
    optimizer = Float32AdamW(model, settings)
    progress = Progress()
    if checkpoints is not None and latest is not None:
        progress = checkpoints.load(latest, model, optimizer)
    log_folder = tensorboard_folder if distributed.get_rank() == 0 else None
    with cpu_threads(settings.num_threads), tensorboard_log(log_folder) as log:
        listeners: list[Callable[[LogEntry], None]] = [] if log is None else [log.write]
        if on_log is not None and distributed.get_rank() == 0:
            listeners.append(on_log)
        TrainingRun(
            model=model,
            optimizer=optimizer,
            settings=settings,
            train_iters=train_iters,
            train_batches=Batches(train_dataset, settings, vocab_size),
            valid_batches=(
                None if valid_dataset is None else Batches(valid_dataset, settings, vocab_size)
            ),
            checkpoints=checkpoints,
            listeners=listeners,
            progress=progress,
        ).to_the_end()
    return TrainResult(
        model=model,
        state=progress.state(train_iters),
        tokens_per_second=progress.trained.tokens_per_second,
    )


def _origin(
    shape: ModelShape,
    settings: TrainSettings,
    vocab_size: int,
    train_iters: int,
    checkpointing: Checkpointing,
) -> dict[str, Any]:
    """Returns what decides the losses of a run, as a checkpoint of it remembers it."""
    return {
        **{f"model.{name}": value for name, value in asdict(shape).items()},
        **{f"training.{name}": value for name, value in fingerprinted(settings).items()},
        "training.train_iters": train_iters,  # the schedule's length, where the data gives it
        "vocab_size": vocab_size,
        "data_fingerprint": checkpointing.data_fingerprint,
        "processes": parallel_state.get_data_parallel_world_size(),
    }


def _check_fit(shape: ModelShape, settings: TrainSettings) -> None:
    if settings.sequence_length > shape.max_sequence_length:
        raise ValueError(
            f"sequence_length={settings.sequence_length:,} exceeds the model's "
            f"max_sequence_length={shape.max_sequence_length:,}"
        )
    world_size = parallel_state.get_data_parallel_world_size()
    if settings.global_batch_size % (settings.micro_batch_size * world_size):
        raise ValueError(
            f"global_batch_size={settings.global_batch_size} must be a multiple of "
            f"micro_batch_size={settings.micro_batch_size} x {world_size} processes"
        )
