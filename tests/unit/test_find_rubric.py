from __future__ import annotations

from pathlib import Path

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import recipe_units

RECIPE = Path(__file__).parents[2] / "recipes" / "find_rubric.yaml"


def test_recipe_that_ends_with_the_labels_plans_every_stage_up_to_them(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"  # the recipe's is on the user's machine
    tokenizer.write_text("{}")
    units = recipe_units(load_recipe(RECIPE, [f"teacher.tokenizer={tokenizer}"]))
    assert list(dict.fromkeys(unit.stage for unit in units)) == [
        *("ingest", "group", "discover", "anchor", "label"),
    ]
    families = {unit.name for unit in units if unit.stage == "group"}
    assert families == {"text", "qa", "qa_with_think", "agent"}


def test_recipe_names_its_key_and_holds_none() -> None:
    teacher = load_recipe(RECIPE).values["teacher"]
    assert teacher["api_key_env"] == "TEACHER_KEY"
    assert "api_key" not in teacher
