"""The section `distill`: what a scorer is made from, how it is asked, and how it is trained.

distill:
  base: null                 # or a Hugging Face folder: weights, config.json, tokenizer.json
  train_vocab_size: 4096     # base: null only: a tokenizer is trained on what the scorer will read
  model: {...}               # base: null only: a ModelShape, with random weights
  prompt: bare
  ...
  training: {...}            # TrainSettings; as model and num_epochs, not for trainer: bridge
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mira_megatron.config import Recipe, typed
from mira_megatron.rubric.prompt_form import LEARNED_ANSWERS, PromptForm

# megatron_core: on this machine, by `mira distill`. bridge: on a cluster, by recipes/scorer_sft.py,
# whose export `mira distill` takes over.
TRAINERS = ("megatron_core", "bridge")
NESTED = ("model", "training")  # sections within the section, typed by who trains


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """Teacher ratings -> a scorer per source group."""

    trainer: str = "megatron_core"  # one of TRAINERS
    base: str | None  # a Hugging Face folder; None: random weights of the shape `model`
    train_vocab_size: int | None = None  # of the tokenizer trained where there is no base
    prompt: str = "full"
    references: bool = True
    answers: str = "full"
    max_record_tokens: int  # of a record, in the scorer's tokens; what is longer is shown in part
    sequence_length: int  # tokens of a sample, into which prompts with their answers are packed
    validation_fraction: float  # of the distill half, for validation.jsonl
    num_epochs: int = 1  # passes over training.jsonl; trainer=megatron_core only
    # trainer=bridge only, and only where a job of ours trains (training_commands.py): what the
    # script is told by hand otherwise. The export decides the scorer's bytes, not these.
    config: str | None = None  # a recipe of recipes/scorer_sft.py
    num_steps: int | None = None

    def __post_init__(self) -> None:
        if self.answers not in LEARNED_ANSWERS:
            raise ValueError(
                f"answers={self.answers!r} must be one of {', '.join(LEARNED_ANSWERS)}, which a "
                "scorer learns to give; scores alone are asked for with score.answer_mode"
            )
        self.form  # noqa: B018  # raises for a form that cannot be
        if self.trainer not in TRAINERS:
            raise ValueError(f"trainer={self.trainer!r} must be one of {', '.join(TRAINERS)}")
        if self.trainer == "bridge" and self.base is None:
            raise ValueError("trainer=bridge needs base, the model that is trained on the cluster")
        if self.trainer != "bridge" and (self.config is not None or self.num_steps is not None):
            raise ValueError("config and num_steps are for trainer=bridge; leave them out")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps={self.num_steps} must be at least 1")
        if (self.base is None) != (self.train_vocab_size is not None):
            raise ValueError("give base (it brings its tokenizer) or train_vocab_size, not both")
        if self.train_vocab_size is not None and self.train_vocab_size < 512:
            raise ValueError(f"train_vocab_size={self.train_vocab_size} must be at least 512")
        for name in ("max_record_tokens", "sequence_length"):
            if getattr(self, name) < 64:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 64")
        if self.num_epochs < 1:
            raise ValueError(f"num_epochs={self.num_epochs} must be at least 1")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction} must be in (0, 1)")

    @property
    def form(self) -> PromptForm:
        """Returns how the scorer is asked, in training as afterwards."""
        return PromptForm(prompt=self.prompt, references=self.references, answers=self.answers)


def distill_config(recipe: Recipe) -> DistillConfig:
    """Returns the section `distill` without its nested sections; ValueError for a wrong setting."""
    where = f"{recipe.path}: distill"
    section = recipe.values.get("distill")
    if not isinstance(section, Mapping):
        raise ValueError(f"{where}: expected a mapping of settings, got {section!r}")
    flat = {key: value for key, value in section.items() if key not in NESTED}
    return typed(DistillConfig, flat, where=where)
