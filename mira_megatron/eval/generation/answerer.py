"""Who answers what an evaluation asks: endpoints, or a model that this process loads (local.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mira_megatron.eval.generation.asking import Asked, generate
from mira_megatron.eval.generation.generations import GenerationFile
from mira_megatron.eval.generation.planned import Planned
from mira_megatron.eval.generation.served import Served, served_models


class Answerer(Protocol):
    """One model, in one place or several."""

    @property
    def model(self) -> str:
        """Returns the name that suite.json has."""

    def served(self) -> list[Served]:
        """Returns where it answers, and how long its context is."""

    def generate(
        self, planned: Sequence[Planned], file: GenerationFile, *, title: str, num_done: int
    ) -> None:
        """Has every planned answer generated and written; `num_done` others were before.

        Raises ValueError, with what came kept, where some got none.
        """


@dataclass(frozen=True, slots=True)
class EndpointAnswerer:
    """A model behind OpenAI-compatible endpoints."""

    asked: Asked

    @property
    def model(self) -> str:
        """Returns the name that the endpoints know."""
        return self.asked.model

    def served(self) -> list[Served]:
        """Returns what each endpoint says of the model; ValueError where one serves another."""
        return served_models(self.asked)

    def generate(
        self, planned: Sequence[Planned], file: GenerationFile, *, title: str, num_done: int
    ) -> None:
        """Asks for the answers; NotGeneratedError where some are open."""
        generate(planned, self.asked, file, title=title, num_done=num_done)
