from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.training.trained_arms import trained_arms


def recipe_with(folder: Path, ablation: dict[str, Any] | None, **midtrain: Any) -> Recipe:
    values: dict[str, Any] = {"seed": 7, "arms": {"b": {}, "a": {}}, "midtrain": midtrain}
    if ablation is not None:
        values["ablation"] = ablation
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_recipe(path)


def test_arms_without_the_section_are_trained_once_with_the_recipes_seed(tmp_path: Path) -> None:
    found = trained_arms(recipe_with(tmp_path, None))
    assert [(each.name, each.arm, each.seed) for each in found] == [("a", "a", 7), ("b", "b", 7)]


def test_first_seed_has_the_arms_own_name(tmp_path: Path) -> None:
    found = trained_arms(recipe_with(tmp_path, {"seeds": [3, 1]}))
    assert [(each.name, each.seed) for each in found] == [
        ("a", 3),
        ("a.seed1", 1),
        ("b", 3),
        ("b.seed1", 1),
    ]


def test_base_arm_is_tuned_with_every_seed_and_not_mid_trained(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, {"seeds": [3, 1], "base_arm": "z"}, base="model")
    found = [each for each in trained_arms(recipe) if not each.has_midtraining]
    assert [each.name for each in found] == ["z", "z.seed1"]


@pytest.mark.parametrize(
    ("ablation", "message"),
    [
        ({"seeds": [1, 1]}, "names one twice"),
        ({"seeds": [-1]}, "must not be negative"),
        ({"base_arm": "a"}, "'a' is the name of an arm"),
        ({"base_arm": "z"}, "needs midtrain.base"),
        ({"base_arm": "z/.."}, "is no name"),
        ({"seed": [1]}, "unknown key 'seed'. Did you mean 'seeds'?"),
    ],
)
def test_section_that_is_wrong_is_named(
    tmp_path: Path, ablation: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="ablation") as refused:
        trained_arms(recipe_with(tmp_path, ablation))
    assert message in str(refused.value)
