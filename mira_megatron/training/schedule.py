"""The settings of a training run, and what follows from them by arithmetic alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """How long, how fast and in which batches a model is trained."""

    sequence_length: int  # tokens per sample
    micro_batch_size: int  # samples per forward pass of one process
    global_batch_size: int  # samples per step
    train_iters: int | None  # steps; None = one pass over the train dataset
    learning_rate: float  # at the end of the warm-up
    min_learning_rate: float  # at the last step
    warmup_iters: int
    weight_decay: float  # on matrices only, not on norms and biases
    adam_beta1: float
    adam_beta2: float
    clip_grad: float  # largest L2 norm of the whole gradient
    eval_interval: int  # steps; validation also runs before the first step and after the last
    log_interval: int  # steps
    seed: int
    precision: str = "float32"  # of weights and activations; or bfloat16, updated in float32
    # Of the CPU: the last digits of weights depend on it. None = as many as torch takes here.
    num_threads: int | None = field(default=None, metadata={"younger": True})
    # Steps between checkpoints, where the caller names a folder for them.
    save_interval: int = field(default=200, metadata={"execution": True})

    def __post_init__(self) -> None:
        for name in (
            "sequence_length",
            "micro_batch_size",
            "global_batch_size",
            "train_iters",
            "learning_rate",
            "clip_grad",
            "eval_interval",
            "log_interval",
            "save_interval",
            "num_threads",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        for name in ("min_learning_rate", "warmup_iters", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1)")
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} must be a multiple of "
                f"micro_batch_size={self.micro_batch_size}"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} must be one of {', '.join(PRECISIONS)}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate={self.min_learning_rate} must not exceed "
                f"learning_rate={self.learning_rate}"
            )


def num_train_iters(settings: TrainSettings, num_samples: int) -> int:
    """Returns the steps to take over a train dataset of `num_samples`, whole batches only.

    Raises ValueError where the dataset is too short for the steps, or the steps for the warm-up.
    """
    available = num_samples // settings.global_batch_size
    train_iters = max(available, 1) if settings.train_iters is None else settings.train_iters
    if train_iters > available:
        raise ValueError(
            f"the train dataset has {num_samples:,} samples of {settings.sequence_length:,} "
            f"tokens, but train_iters={train_iters:,} x global_batch_size="
            f"{settings.global_batch_size} needs {train_iters * settings.global_batch_size:,}. "
            "Give it more data or epochs, or lower train_iters, global_batch_size or "
            "sequence_length."
        )
    if settings.warmup_iters >= train_iters:
        raise ValueError(
            f"warmup_iters={settings.warmup_iters} must be below the {train_iters:,} training steps"
        )
    return train_iters


def learning_rate_at(step: int, settings: TrainSettings, train_iters: int) -> float:
    """Returns the rate of step 1..train_iters: linear warm-up, then cosine down to the minimum."""
    if step <= settings.warmup_iters:
        return settings.learning_rate * step / settings.warmup_iters
    progress = (step - settings.warmup_iters) / (train_iters - settings.warmup_iters)
    above_minimum = settings.learning_rate - settings.min_learning_rate
    return settings.min_learning_rate + above_minimum * (1 + math.cos(math.pi * progress)) / 2
