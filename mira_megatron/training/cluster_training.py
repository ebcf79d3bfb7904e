"""The sections `midtrain` and `instruct_sft` of a recipe that trains on a cluster. No torch.

midtrain:
  trainer: bridge
  config: qwen25_coder_14b_midtrain_64gpu_h200_bf16_config   # of recipes/midtrain.py
  base: /models/Qwen2.5-Coder-14B                            # a Hugging Face folder
  learning_rate: null                                        # null: the recipe's own
instruct_sft:
  trainer: bridge
  config: qwen25_coder_14b_instruct_sft_64gpu_h200_bf16_config
  data: [instructions.jsonl]     # messages, or input and output
  base: null                     # null: what each arm's midtrain left; else the same for every arm
                                 # (ablation.base_arm starts from midtrain.base)
  num_epochs: 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe, typed
from mira_megatron.training.dense_layouts import (
    INSTRUCT_SFT,
    MIDTRAIN,
    DenseRecipe,
    find_dense_recipe,
)
from mira_megatron.training.trained_arms import TrainedArm

BRIDGE, MEGATRON_CORE = "bridge", "megatron_core"
TRAINERS = (MEGATRON_CORE, BRIDGE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMidtrain:
    """Mid-training by recipes/midtrain.py."""

    trainer: str
    config: str
    base: str
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        _check(self.learning_rate)
        find_dense_recipe(self.config, MIDTRAIN)

    @property
    def recipe(self) -> DenseRecipe:
        """Returns what `config` names."""
        return find_dense_recipe(self.config, MIDTRAIN)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterInstructSft:
    """Instruction tuning by recipes/instruct_sft.py, the same for every arm."""

    trainer: str
    config: str
    data: list[str]
    base: str | None = None
    num_epochs: int = 2
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        _check(self.learning_rate)
        if self.num_epochs < 1:
            raise ValueError(f"num_epochs={self.num_epochs} must be at least 1")
        if not self.data:
            raise ValueError("data=[] must name the jsonl files of the instructions")
        find_dense_recipe(self.config, INSTRUCT_SFT)

    @property
    def recipe(self) -> DenseRecipe:
        """Returns what `config` names."""
        return find_dense_recipe(self.config, INSTRUCT_SFT)


def trainer_of(recipe: Recipe, section: str) -> str | None:
    """Returns who trains, one of TRAINERS; None where the recipe has no such section.

    Raises ValueError for another trainer.
    """
    values = recipe.values.get(section)
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise ValueError(f"{recipe.path}: {section}: expected a mapping, got {values!r}")
    trainer = values.get("trainer", MEGATRON_CORE)
    if trainer not in TRAINERS:
        raise ValueError(
            f"{recipe.path}: {section}.trainer={trainer!r} must be one of {', '.join(TRAINERS)}"
        )
    return str(trainer)


def cluster_midtrain(recipe: Recipe) -> ClusterMidtrain:
    """Returns the section `midtrain` with trainer=bridge; ValueError for a wrong setting."""
    return typed(ClusterMidtrain, recipe.values["midtrain"], where=f"{recipe.path}: midtrain")


def cluster_instruct_sft(recipe: Recipe) -> ClusterInstructSft:
    """Returns the section `instruct_sft` with trainer=bridge; ValueError for a wrong setting."""
    where = f"{recipe.path}: instruct_sft"
    config = typed(ClusterInstructSft, recipe.values["instruct_sft"], where=where)
    if config.base is None and "midtrain" not in recipe.values:
        raise ValueError(f"{where}.base: needed where nothing was mid-trained before")
    return config


def instruct_base(recipe: Recipe, config: ClusterInstructSft, model: TrainedArm) -> Path:
    """Returns the Hugging Face folder that a model's instruction tuning starts from."""
    if config.base is not None:
        return recipe.path_of(config.base)
    if not model.has_midtraining:
        return recipe.path_of(str(recipe.values["midtrain"]["base"]))
    return recipe.run_folder / layout.checkpoints(model.name) / layout.HF_EXPORT


def _check(learning_rate: float | None) -> None:
    if learning_rate is not None and not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate} must be positive")
