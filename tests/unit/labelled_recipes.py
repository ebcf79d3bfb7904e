"""Recipes over labelled notes with a section `distill`, as a fixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from distill_settings import with_distill

from mira_megatron.config import Recipe

pytest_plugins = ("judged_recipes",)


@pytest.fixture
def labelled(judged_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Returns a recipe over 20 labelled notes in 4 parts, with a section `distill`."""

    def make(
        reliability_fraction: float = 0.3, records_per_source: int = 100, **distill: Any
    ) -> Recipe:
        label = {
            "records_per_source": records_per_source,
            "reliability_fraction": reliability_fraction,
        }
        recipe = judged_recipe(stages=("ingest", "anchor", "label"), label=label)
        return with_distill(recipe, **distill)

    return make
