"""The course of a training run, as it is logged and as trainer_state.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mira_megatron.atomic_files import write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainEntry:
    """Training since the previous entry; losses are means per token with a loss, in nats."""

    step: int
    loss: float
    learning_rate: float  # of this step
    grad_norm: float  # of this step, before clipping
    # Mixtures of experts only: mean over steps and layers, before its coefficient; 1 is balance.
    load_balancing_loss: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalEntry:
    """One pass over the validation dataset after `step` steps."""

    step: int
    eval_loss: float  # mean per token with a loss, in nats
    eval_tokens: int  # tokens with a loss


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEntry:
    """What `on_log` is told: an entry of the log, and what must stay out of reproducible files."""

    entry: TrainEntry | EvalEntry
    max_steps: int
    tokens_per_second: float  # of this entry's own work, all processes together


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerState:
    """The course of a run, without times: the same run gives the same state."""

    global_step: int
    max_steps: int
    num_train_tokens: int  # tokens with a loss, over all steps
    log_history: tuple[TrainEntry | EvalEntry, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the layout of Hugging Face's trainer_state.json."""
        return {**asdict(self), "log_history": [entry_to_json(e) for e in self.log_history]}

    def save(self, path: Path) -> None:
        """Writes trainer_state.json atomically."""
        write_json(path, self.to_json())


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Tokens that went through the model, over all processes."""

    loss_sum: float = 0.0
    num_tokens: int = 0  # with a loss
    seconds: float = 0.0
    num_steps: int = 0
    # Over the steps, each the mean over layers and micro-batches; None for a dense model.
    load_balancing_sum: float | None = None

    def __add__(self, other: Work) -> Work:
        return Work(
            loss_sum=self.loss_sum + other.loss_sum,
            num_tokens=self.num_tokens + other.num_tokens,
            seconds=self.seconds + other.seconds,
            num_steps=self.num_steps + other.num_steps,
            load_balancing_sum=_sum_of_known(self.load_balancing_sum, other.load_balancing_sum),
        )

    @property
    def mean_loss(self) -> float:
        """Returns nats per token with a loss."""
        return self.loss_sum / self.num_tokens

    @property
    def mean_load_balancing_loss(self) -> float | None:
        """Returns the mean over steps; None for a dense model."""
        if self.load_balancing_sum is None:
            return None
        return self.load_balancing_sum / self.num_steps

    @property
    def tokens_per_second(self) -> float:
        """Returns tokens with a loss per second."""
        return self.num_tokens / self.seconds


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a run has come: what a checkpoint holds beside tensors."""

    step: int = 0
    trained: Work = Work()
    since_entry: Work = Work()  # steps that no entry of the log tells of yet
    log_history: tuple[TrainEntry | EvalEntry, ...] = ()

    def count(self, step_work: Work, seconds: float) -> None:
        """Adds one step."""
        work = replace(step_work, seconds=seconds)
        self.step += 1
        self.trained += work
        self.since_entry += work

    def state(self, max_steps: int) -> TrainerState:
        """Returns what trainer_state.json holds at this step."""
        return TrainerState(
            global_step=self.step,
            max_steps=max_steps,
            num_train_tokens=self.trained.num_tokens,
            log_history=self.log_history,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain values from which `progress_from_json` makes an equal Progress."""
        return {**asdict(self), "log_history": [entry_to_json(e) for e in self.log_history]}


def progress_from_json(values: Mapping[str, Any]) -> Progress:
    """Returns what `Progress.to_json` gave, to the last bit."""
    return Progress(
        step=values["step"],
        trained=Work(**values["trained"]),
        since_entry=Work(**values["since_entry"]),
        log_history=tuple(
            EvalEntry(**entry) if "eval_loss" in entry else TrainEntry(**entry)
            for entry in values["log_history"]
        ),
    )


def entry_to_json(entry: TrainEntry | EvalEntry) -> dict[str, Any]:
    """Returns an entry's values; a loss that the model does not have is left out."""
    return {name: value for name, value in asdict(entry).items() if value is not None}


def _sum_of_known(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return sum(known) if known else None
