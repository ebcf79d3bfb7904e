"""What is chosen for a scorer's training on a cluster, and where its files lie. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSftSettings:
    """What is chosen, not derived: the paper's values (its appendix A.4) are not known to us."""

    sequence_length: int = 65536  # tokens of a packed sample, and the longest that can be trained
    num_steps: int = 1000
    learning_rate: float = 1e-5
    min_learning_rate: float = 1e-6
    warmup_fraction: float = 0.03
    weight_decay: float = 0.1
    adam_beta2: float = 0.95
    clip_grad: float = 1.0
    moe_aux_loss_coeff: float = 1e-3  # what the models' own configs say
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSftPaths:
    """Where a scorer's training reads and writes; the defaults are names in the working folder."""

    data: str = "data"  # training.jsonl and validation.jsonl; Bridge puts its caches beside them
    tokenizer: str = "base_hf"  # a Hugging Face folder: the base model's
    base: str = "base_megatron"  # the base model's weights, imported
    checkpoints: str = "checkpoints"
    tensorboard: str = "tensorboard"
