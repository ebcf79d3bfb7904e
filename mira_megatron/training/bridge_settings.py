"""What is chosen for a training on a cluster, and where its files lie. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

Choices = TypeVar("Choices", bound="TrainingChoices")
_DECAY = 10  # of the peak to the lowest rate


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingChoices:
    """What is chosen, not derived, in every training here: our choices, where nothing else is said.

    The paper's values (its appendix A.4) are not known to us.
    """

    sequence_length: int  # tokens of a sample, and the longest that can be trained
    num_steps: int = 1000
    learning_rate: float = 1e-5
    min_learning_rate: float = 1e-6
    warmup_fraction: float = 0.03
    weight_decay: float = 0.1
    adam_beta2: float = 0.95
    clip_grad: float = 1.0
    save_every_steps: int = 200
    keep_checkpoints: int = 2  # each holds weights and optimizer: 14 bytes a parameter
    validate_every_steps: int = 100
    num_validation_steps: int = 8
    seed: int = 1234

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps={self.num_steps} must be at least 1")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction={self.warmup_fraction} must be in [0, 1)")
        if not 0 < self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                f"min_learning_rate={self.min_learning_rate} must be positive and not exceed "
                f"learning_rate={self.learning_rate}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSftSettings(TrainingChoices):
    """A scorer's training."""

    sequence_length: int = 65536
    moe_aux_loss_coeff: float = 1e-3  # what the models' own configs say


@dataclass(frozen=True, kw_only=True, slots=True)
class MidtrainChoices(TrainingChoices):
    """Continued training on a blend. Its number of steps is the blend's; see `use_blend`.

    A tenth of the 3e-4 that Bridge's own pre-training recipes start from scratch with, which would
    undo what the base has learnt.
    """

    learning_rate: float = 3e-5
    min_learning_rate: float = 3e-6
    warmup_fraction: float = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructSftChoices(TrainingChoices):
    """The instruction tuning that every arm shares."""


def with_learning_rate(choices: Choices, learning_rate: float | None) -> Choices:
    """Returns the choices with another peak learning rate, decaying to a tenth of it; None: same.

    Raises ValueError for one that is not positive.
    """
    if learning_rate is None:
        return choices
    # In decimals, as the rates above are written: 0.1 x 1e-5 in binary is not 1e-6, and the rates
    # are in the digest that a training is known by.
    lowest = float(Decimal(repr(learning_rate)) / _DECAY)
    return replace(choices, learning_rate=learning_rate, min_learning_rate=lowest)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSftPaths:
    """Where a scorer's training reads and writes; the defaults are names in the working folder."""

    data: str = "data"  # training.jsonl and validation.jsonl; Bridge puts its caches beside them
    tokenizer: str = "base_hf"  # a Hugging Face folder: the base model's
    base: str = "base_megatron"  # the base model's weights, imported
    checkpoints: str = "checkpoints"
    tensorboard: str = "tensorboard"


@dataclass(frozen=True, kw_only=True, slots=True)
class MidtrainPaths:
    """Where a mid-training reads and writes; the defaults are names in the working folder."""

    blend: str = "blend"  # blends/<arm> of a run folder
    index_cache: str = "index_cache"  # Megatron's indices of it
    tokenizer: str = "base_hf"
    base: str = "base_megatron"
    checkpoints: str = "checkpoints"
    tensorboard: str = "tensorboard"
