"""The section `instruct_sft`: what every arm is tuned on after its mid-training, and how.

instruct_sft:
  trainer: megatron_core     # or bridge, on a cluster: see training/cluster_training.py
  sources: [docstring_qa]    # of families qa, qa_with_think and agent, in this recipe
  data: [instructions.jsonl] # or files of messages, or of input and output; or both
  num_records: null          # of all together, in the order of a hash; null: all
  validation_fraction: 0.05
  sequence_length: 1024      # tokens; what is longer is left out and counted
  num_epochs: 2
  training: {...}            # TrainSettings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mira_megatron.config import Recipe, nearest, typed
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.training.cluster_training import (
    BRIDGE,
    MEGATRON_CORE,
    cluster_instruct_sft,
    trainer_of,
)
from mira_megatron.training.schedule import TrainSettings

SECTION = "instruct_sft"
FAMILIES = ("qa", "qa_with_think", "agent")  # in which somebody answers


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructConfig:
    """Instructions and answers -> an instruction-tuned model per arm."""

    trainer: str = MEGATRON_CORE
    sources: list[str] | None = None
    data: list[str] | None = None  # jsonl files, also .gz and .zst
    num_records: int | None = None  # training and validation together; None: all there are
    validation_fraction: float
    sequence_length: int  # tokens of a sample, into which shorter ones are packed
    num_epochs: int = 1

    def __post_init__(self) -> None:
        if not self.sources and not self.data:
            raise ValueError("give sources (names in this recipe) or data (jsonl files), or both")
        for name in ("num_records", "num_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if self.sequence_length < 16:
            raise ValueError(f"sequence_length={self.sequence_length} must be at least 16")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction} must be in (0, 1)")


def instruct_config(recipe: Recipe) -> InstructConfig | None:
    """Returns the section without its training; None where there is none, or it is for a cluster.

    Raises ValueError for a wrong setting.
    """
    trainer = trainer_of(recipe, SECTION)
    if trainer is None:
        return None
    if trainer == BRIDGE:
        cluster_instruct_sft(recipe)
        return None
    where = f"{recipe.path}: {SECTION}"
    section = {key: value for key, value in recipe.values[SECTION].items() if key != "training"}
    config = typed(InstructConfig, section, where=where)
    if "midtrain" not in recipe.values:
        raise ValueError(f"{where}: needs a section midtrain, whose models are tuned")
    if trainer_of(recipe, "midtrain") == BRIDGE:
        raise ValueError(
            f"{where}.trainer={MEGATRON_CORE!r}: a model that was mid-trained on a cluster is "
            f"tuned there, too. Set {SECTION}.trainer={BRIDGE}"
        )
    sources = recipe_sources(recipe)
    for name in config.sources or ():
        if name not in sources:
            raise ValueError(f"{where}.sources: no source {name!r}.{nearest(name, sources)}")
        family = sources[name][0].family
        if family not in FAMILIES:
            raise ValueError(
                f"{where}.sources: {name} is of family {family}, in which nobody answers; "
                f"expected {', '.join(FAMILIES)}"
            )
    return config


def instruct_training(recipe: Recipe, config: InstructConfig, seed: int) -> TrainSettings:
    """Returns how the models are tuned; ValueError for a wrong setting or one given elsewhere."""
    where = f"{recipe.path}: {SECTION}.training"
    own = recipe.values[SECTION].get("training")
    if not isinstance(own, Mapping):
        raise ValueError(f"{where}: expected a mapping of settings, got {own!r}")
    given = {"sequence_length": config.sequence_length, "seed": seed}
    if twice := sorted(own.keys() & given.keys()):
        raise ValueError(
            f"{where}: {', '.join(twice)}: sequence_length is that of the samples ({SECTION}."
            "sequence_length), seed that of the recipe or of ablation.seeds. Leave them out here"
        )
    return typed(TrainSettings, {**own, **given}, where=where)
