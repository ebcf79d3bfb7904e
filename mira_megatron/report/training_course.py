"""How a training went, read from checkpoints/<arm>/ or scorers/<rubric>/<group>/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mira_megatron import layout


@dataclass(frozen=True, kw_only=True, slots=True)
class LossPoint:
    """A mean loss per token, in nats, as logged at a step."""

    step: int
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCourse:
    """The logged losses of one run, in order of steps."""

    num_steps: int
    num_train_tokens: int  # with a loss
    training: tuple[LossPoint, ...]
    validation: tuple[LossPoint, ...]

    @property
    def first_loss(self) -> float | None:
        """Returns the first training loss logged."""
        return self.training[0].loss if self.training else None

    @property
    def last_loss(self) -> float | None:
        """Returns the last training loss logged."""
        return self.training[-1].loss if self.training else None

    @property
    def first_validation_loss(self) -> float | None:
        """Returns the first validation loss."""
        return self.validation[0].loss if self.validation else None

    @property
    def last_validation_loss(self) -> float | None:
        """Returns the last validation loss."""
        return self.validation[-1].loss if self.validation else None


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageRow:
    """What one pass over a prefix reads, and what it leaves out."""

    split: str  # train | valid
    prefix: str
    num_samples: int
    tokens_seen: int
    tail_tokens: int


def read_course(folder: Path) -> TrainingCourse | None:
    """Returns the course of the training that wrote a folder, or None where there is none yet."""
    try:
        content = (folder / "trainer_state.json").read_bytes()
    except FileNotFoundError:
        return None
    return training_course(orjson.loads(content))


def training_course(state: dict[str, Any]) -> TrainingCourse:
    """Returns the course written in the content of a trainer_state.json."""
    log = state["log_history"]
    return TrainingCourse(
        num_steps=state["global_step"],
        num_train_tokens=state["num_train_tokens"],
        training=tuple(
            LossPoint(step=entry["step"], loss=entry["loss"]) for entry in log if "loss" in entry
        ),
        validation=tuple(
            LossPoint(step=entry["step"], loss=entry["eval_loss"])
            for entry in log
            if "eval_loss" in entry
        ),
    )


def read_coverage(run_folder: Path, arm: str) -> tuple[CoverageRow, ...]:
    """Returns what one pass reads: the prefixes of coverage.json, then those left out whole.

    A prefix that fills no sample is not handed to Megatron at all; blend.json lists it.
    """
    coverage = (run_folder / layout.checkpoints(arm) / "coverage.json").read_bytes()
    blend = orjson.loads((run_folder / layout.blend(arm) / layout.BLEND).read_bytes())
    left_out = [
        CoverageRow(
            split=entry["split"],
            prefix=Path(entry["prefix"]).name,
            num_samples=0,
            tokens_seen=0,
            tail_tokens=entry["num_tokens"],
        )
        for entry in blend["left_out"]
    ]
    return (*(CoverageRow(**row) for row in orjson.loads(coverage)), *left_out)
