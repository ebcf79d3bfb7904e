from __future__ import annotations

from pathlib import Path

import pytest

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.distill.distill_config import distill_config
from mira_megatron.pipeline import recipe_units
from mira_megatron.rubric.prompt_form import FULL

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = ("sources", "ingest", "embedder", "group", "teacher", "discover", "anchor", "label")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The recipe, with stand-ins for what is on the user's machine."""
    (tmp_path / "tokenizer.json").write_text("{}")
    words = [f"teacher.tokenizer={tmp_path / 'tokenizer.json'}", f"distill.base={tmp_path}"]
    return load_recipe(RECIPES / "scorer_on_cluster.yaml", words)


def test_recipe_for_a_cluster_plans_every_stage_up_to_the_scores(recipe: Recipe) -> None:
    units = recipe_units(recipe)
    assert list(dict.fromkeys(unit.stage for unit in units)) == [
        *("ingest", "group", "discover", "anchor", "label"),
        *("sft-data", "distill", "reliability", "score", "aggregate"),
    ]
    (scored,) = [unit for unit in units if (unit.stage, unit.name) == ("score", "math")]
    assert any(folder.startswith("scorers/v1/") for folder in scored.upstream)


def test_recipe_for_a_cluster_teaches_in_full_what_the_teacher_was_shown(recipe: Recipe) -> None:
    config = distill_config(recipe)
    assert (config.trainer, config.form, config.sequence_length) == ("bridge", FULL, 65_536)
    assert config.max_record_tokens == recipe.values["teacher"]["max_record_tokens"]


def test_recipe_for_a_cluster_goes_on_where_the_labels_are() -> None:
    labels = load_recipe(RECIPES / "find_rubric.yaml")
    scorer = load_recipe(RECIPES / "scorer_on_cluster.yaml")
    assert (scorer.run_folder, scorer.seed, scorer.rubric) == (
        *(labels.run_folder, labels.seed, labels.rubric),
    )
    assert [scorer.values[name] == labels.values[name] for name in SHARED] == [True] * len(SHARED)
