"""The section `distill`: what a scorer is made from, how it is asked, and how it is trained.

distill:
  base: null                 # or a Hugging Face folder: weights, config.json, tokenizer.json
  train_vocab_size: 4096     # base: null only: a tokenizer is trained on what the scorer will read
  model: {...}               # base: null only: a ModelShape, with random weights
  prompt: bare
  ...
  training: {...}            # TrainSettings
"""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron.rubric.prompt_form import PromptForm


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """Teacher ratings -> a scorer per source group."""

    base: str | None  # a Hugging Face folder; None: random weights of the shape `model`
    train_vocab_size: int | None = None  # of the tokenizer trained where there is no base
    prompt: str = "full"
    references: bool = True
    answers: str = "full"
    max_record_tokens: int  # of a record, in the scorer's tokens; what is longer is shown in part
    sequence_length: int  # tokens of a sample, into which prompts with their answers are packed
    validation_fraction: float  # of the distill half, for validation.jsonl
    num_epochs: int  # passes over training.jsonl

    def __post_init__(self) -> None:
        self.form  # noqa: B018  # raises for a form that cannot be
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
