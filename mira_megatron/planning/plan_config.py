"""The section `plan` of a recipe: what is known of sizes, speeds and prices before a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mira_megatron.planning.price import Rates

# Who answers: the settings of its speed begin so. The scorer's have no beginning of their own.
_ANSWERERS = {"score": "", "label": "teacher_", "dataman": "dataman_", "eval": "eval_"}
_DECLARED = (
    *("num_records", "prompt_tokens_per_record", "output_tokens_per_record", "tokens_per_record"),
    *("instruct_sft_tokens", "eval_prompt_tokens", "eval_output_tokens", "price_per_gpu_hour"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """Nothing in it changes what is asked or trained."""

    records_per_group: int = 200  # looked at for a price
    # Where no tokenizer is configured. Prompts of recipes/demo.yaml have 3.07 bytes per token of
    # its own vocabulary of 8,192 entries; a larger one takes fewer tokens, so this errs high.
    bytes_per_token: float = 3.0
    # Tokens of one GPU, as measured with the model's own server; null: GPU-hours are not told.
    prompt_tokens_per_second: float | None = None  # of the scorer
    output_tokens_per_second: float | None = None
    teacher_prompt_tokens_per_second: float | None = None
    teacher_output_tokens_per_second: float | None = None
    dataman_prompt_tokens_per_second: float | None = None  # of baselines with method dataman
    dataman_output_tokens_per_second: float | None = None
    eval_prompt_tokens_per_second: float | None = None  # of a tuned model that is evaluated
    eval_output_tokens_per_second: float | None = None
    # What is known of a corpus before it is ingested; null: hours are not told then.
    num_records: int | None = None  # of all sources, to be scored
    tokens_per_record: float | None = None  # as it is trained on
    prompt_tokens_per_record: float | None = None
    output_tokens_per_record: float | None = None
    instruct_sft_tokens: float | None = None  # of one pass over instruct_sft.data
    eval_prompt_tokens: float | None = None  # of all questions that one model is asked
    eval_output_tokens: float | None = None
    # Baseline with method perplexity -> parameters of its model, where no config.json tells them.
    reference_parameters: dict[str, float] = field(default_factory=dict)
    # How much of a GPU's peak a training uses. NVIDIA's README of Megatron-LM reports 41 to 48 % on
    # H100 for dense models of 2 to 462 billion parameters. The second is our choice, half of the
    # first: experts get smaller matrices and wait for exchanges between GPUs.
    mfu: float = 0.4
    mixture_of_experts_mfu: float = 0.2
    num_gpus: int | None = None  # at hand: GPU-hours are also told as hours on all of them
    price_per_gpu_hour: float | None = None  # in the currency of the judges' prices

    def __post_init__(self) -> None:
        for name in ("records_per_group", "num_gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 < self.bytes_per_token < math.inf:
            raise ValueError(f"bytes_per_token={self.bytes_per_token} must be a number above 0")
        for whose in _ANSWERERS.values():
            names = (f"{whose}prompt_tokens_per_second", f"{whose}output_tokens_per_second")
            speeds = [getattr(self, name) for name in names]
            if (speeds[0] is None) != (speeds[1] is None):
                raise ValueError(f"{' and '.join(names)} go together: give both or neither")
            for name, speed in zip(names, speeds, strict=True):
                if speed is not None and not 0 < speed < math.inf:
                    raise ValueError(f"{name}={speed} must be a number above 0")
        for name in _DECLARED:
            size = getattr(self, name)
            if size is not None and not 0 <= size < math.inf:
                raise ValueError(f"{name}={size} must be a number from 0")
        for name in ("mfu", "mixture_of_experts_mfu"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in (0, 1]")
        for name, number in self.reference_parameters.items():
            if not 0 < number < math.inf:
                raise ValueError(f"reference_parameters.{name}={number} must be a number above 0")

    def rates(self, answerer: str) -> Rates | None:
        """Returns how fast the model that is asked is on one GPU, None where it is not told.

        `answerer` is "label" for the teacher, "score" for the scorer, "dataman" or "eval".
        """
        prompt, output = (getattr(self, name) for name in rate_names(answerer))
        if prompt is None or output is None:
            return None
        return Rates(prompt_tokens_per_second=prompt, output_tokens_per_second=output)

    def lacking(self, *names: str) -> str:
        """Returns which of the settings are not given, in words."""
        missing = [f"plan.{name}" for name in names if getattr(self, name) is None]
        return f"{', '.join(missing)} not given" if missing else "nothing is declared"


def rate_names(answerer: str) -> tuple[str, str]:
    """Returns the settings that tell how fast a model is."""
    whose = _ANSWERERS[answerer]
    return f"{whose}prompt_tokens_per_second", f"{whose}output_tokens_per_second"
