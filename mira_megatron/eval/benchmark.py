"""What every benchmark can do; grading, resuming and caching are the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.verdicts import Extraction, Judgment, Sample, Verdict


class Style(StrEnum):
    """How a model is asked."""

    COMPLETION = "completion"  # a base model goes on with a text
    CHAT = "chat"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What a model is asked for one task: `text` for a completion, `messages` for a chat."""

    template: str  # name and version: another wording is another number
    text: str = ""
    messages: tuple[Mapping[str, str], ...] = ()  # a last one of the assistant is to be continued
    stop: tuple[str, ...] = ()  # the likeliest first: endpoints are told four, texts cut at all
    max_tokens: int  # of the answer; the published default unless the suite's profile has another


class Benchmark(Protocol):
    """One data file and how its programs are judged."""

    name: str
    grader: str  # name and version; a verdict of another is another verdict

    @property
    def verdict_names(self) -> tuple[str, ...]:
        """The benchmarks that a program gets a verdict of."""

    @property
    def task_ids(self) -> Sequence[str]:
        """The tasks in the order of the file."""

    def prompt(self, task_id: str, style: Style) -> Prompt:
        """Returns what a model is asked. Raises ValueError for a style that has no template."""

    def extract(self, sample: Sample) -> Extraction:
        """Returns the program in a sample, or why there is none."""

    def task_digest(self, task_id: str) -> str:
        """Returns what a kept verdict depends on beside the program and the grader."""

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        """Returns what running a program showed."""

    def gold(self, task_id: str) -> str | None:
        """Returns a program that must pass; None: the benchmark has none."""

    def cluster(self, task_id: str) -> str:
        """Returns what tasks that are no independent draws have in common."""


@runtime_checkable
class HasPredictionFormat(Protocol):
    """A benchmark whose predictions come in a format of its own."""

    def read_predictions(self, path: Path) -> list[Sample]:
        """Returns the samples of a file. Raises ValueError with file and place."""


@runtime_checkable
class HasBadPrograms(Protocol):
    """A benchmark whose known-bad programs come closer to passing than an empty one."""

    def bad(self, task_id: str) -> str:
        """Returns a program that runs and must not pass."""


@runtime_checkable
class HasFacts(Protocol):
    """A benchmark whose scores need more said about them."""

    def facts(self, verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
        """Returns what results.json holds under `facts`, as JSON has it."""


@runtime_checkable
class HasSubset(Protocol):
    """A benchmark with a verdict name that only some of its tasks have."""

    def verdict_names_of(self, task_id: str) -> tuple[str, ...]:
        """Returns the benchmarks that the task belongs to."""


def verdict_names_of(benchmark: Benchmark, task_id: str) -> tuple[str, ...]:
    """Returns the benchmarks that a program for the task gets a verdict of."""
    if isinstance(benchmark, HasSubset):
        return benchmark.verdict_names_of(task_id)
    return benchmark.verdict_names
