"""What a job runs for every arm and group, and that nothing of it is made up."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import CONFIG, SFT_CONFIG, write_cluster_run

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.distill.distill_config import distill_config
from mira_megatron.launchers.job_graph import job_name
from mira_megatron.pipeline import stage_units
from mira_megatron.training.training_commands import training_commands

RECIPES = Path(__file__).parents[3] / "recipes"


def with_section(recipe: Recipe, name: str, **section: Any) -> Recipe:
    return replace(recipe, values={**recipe.values, name: section})


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_cluster_run(tmp_path, learning_rate=2e-5)


def test_midtrain_imports_trains_and_exports_every_arm_with_the_same_words(recipe: Recipe) -> None:
    early, late = training_commands(recipe, "midtrain")
    assert [early.name, late.name] == ["early", "late"]
    assert (early.num_nodes, early.gpus_per_node) == (8, 8)
    script = str(RECIPES / "midtrain.py")
    words = early.train[2:]
    assert early.train[:2] == (script, "train")
    assert early.prepare == ((sys.executable, script, "import", *words),)
    assert early.finish == ((sys.executable, script, "export", *words),)
    base = str(recipe.path.parent / "base")
    assert words == (
        *("--config", CONFIG, "--run-folder", str(recipe.run_folder), "--arm", "early"),
        *("--base", base, "--seed", "7", "--learning-rate", "2e-05"),
    )


def test_instruct_sft_starts_from_what_each_arm_s_midtrain_left(recipe: Recipe) -> None:
    recipe = with_section(
        recipe, "instruct_sft", trainer="bridge", config=SFT_CONFIG, data=["a b.jsonl", "$(c)"]
    )
    (late,) = training_commands(recipe, "instruct-sft", "late")
    assert late.num_nodes == 1
    assert [command[2] for command in late.prepare] == ["data", "import"]
    words = list(late.train)
    assert words[words.index("--base") + 1] == str(recipe.run_folder / "checkpoints/late/hf")
    data = [words[at + 1] for at, word in enumerate(words) if word == "--data"]
    assert data == [str(recipe.path.parent / name) for name in ("a b.jsonl", "$(c)")]
    assert words[words.index("--num-epochs") + 1] == "2"


def test_instruct_sft_without_midtrain_needs_a_base(recipe: Recipe) -> None:
    values = {name: value for name, value in recipe.values.items() if name != "midtrain"}
    section = {"trainer": "bridge", "config": SFT_CONFIG, "data": ["a.jsonl"]}
    recipe = with_section(replace(recipe, values=values), "instruct_sft", **section)
    with pytest.raises(ValueError, match=r"instruct_sft\.base: needed where nothing was mid-tr"):
        training_commands(recipe, "instruct-sft")
    recipe = with_section(recipe, "instruct_sft", **section, base="base")
    early, _ = training_commands(recipe, "instruct-sft")
    assert early.train[early.train.index("--base") + 1] == str(recipe.path.parent / "base")


def test_distill_has_one_training_for_each_source_group() -> None:
    words = ["distill.config=qwen3_30b_a3b_scorer_sft_64gpu_h200_bf16_config"]
    words += ["distill.num_steps=900"]
    recipe = load_recipe(RECIPES / "scorer_on_cluster.yaml", words)
    made = training_commands(replace(recipe, is_provisional=True), "distill")
    assert [each.name for each in made] == ["agent", "qa", "qa-with-think", "text"]
    assert made[0].num_nodes == 8
    assert made[0].train[-8:] == (
        *("--rubric", "v1", "--group", "agent", "--base", "/models/Qwen3-30B-A3B"),
        *("--num-steps", "900"),
    )


def test_distill_without_config_says_what_a_job_needs() -> None:
    recipe = replace(load_recipe(RECIPES / "scorer_on_cluster.yaml"), is_provisional=True)
    with pytest.raises(ValueError, match=r"distill: needs config .*num_steps to be trained by a"):
        training_commands(recipe, "distill")


def test_stages_that_train_in_process_have_no_commands() -> None:
    recipe = load_recipe(RECIPES / "demo.yaml")
    for stage in ("distill", "midtrain", "instruct-sft"):
        assert training_commands(recipe, stage) == []


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"config": CONFIG.replace("14b", "15b")}, f"no midtrain recipe .*Did you mean '{CONFIG}'"),
        ({"config": SFT_CONFIG}, "there is no midtrain recipe"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
        ({"trainer": "bridges"}, r"midtrain\.trainer='bridges' must be one of megatron_core, br"),
        ({"modle": 1}, "unknown key 'modle'"),
    ],
)
def test_wrong_midtrain_section_is_named(
    recipe: Recipe, section: dict[str, Any], message: str
) -> None:
    changed = {**recipe.values["midtrain"], **section}
    with pytest.raises(ValueError, match=message):
        training_commands(with_section(recipe, "midtrain", **changed), "midtrain")


def test_unknown_arm_and_stage_are_refused_with_the_nearest(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"midtrain has no 'lat'\. Did you mean 'late'"):
        training_commands(recipe, "midtrain", "lat")
    with pytest.raises(ValueError, match="stage 'score' trains nothing"):
        training_commands(recipe, "score")


def test_commands_are_made_without_torch() -> None:
    code = (
        "import sys, mira_megatron.training.training_commands, mira_megatron.training.midtrain; "
        "sys.exit(int('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_config_and_steps_of_a_job_are_not_for_a_scorer_trained_here() -> None:
    recipe = load_recipe(RECIPES / "demo.yaml", ["distill.num_steps=5"])
    with pytest.raises(ValueError, match="config and num_steps are for trainer=bridge"):
        distill_config(recipe)


def test_every_seed_is_a_training_of_its_own_on_the_arm_s_one_blend(recipe: Recipe) -> None:
    recipe = with_section(recipe, "ablation", seeds=[3, 11])
    made = training_commands(recipe, "midtrain")
    assert [each.name for each in made] == ["early", "early.seed11", "late", "late.seed11"]
    words = [list(each.train) for each in made]
    assert [each[each.index("--arm") + 1] for each in words] == ["early", "early", "late", "late"]
    assert [each[each.index("--seed") + 1] for each in words] == ["3", "11", "3", "11"]


def test_base_arm_is_tuned_from_the_base_and_mid_trained_by_nobody(recipe: Recipe) -> None:
    recipe = with_section(recipe, "ablation", seeds=[3, 11], base_arm="base_sft")
    section = {"trainer": "bridge", "config": SFT_CONFIG, "data": ["a.jsonl"]}
    recipe = with_section(recipe, "instruct_sft", **section)
    assert not [each for each in training_commands(recipe, "midtrain") if "base" in each.name]
    made = {each.name: list(each.train) for each in training_commands(recipe, "instruct-sft")}
    starts = {name: words[words.index("--base") + 1] for name, words in made.items()}
    base, run = str(recipe.path.parent / "base"), recipe.run_folder
    assert starts == {
        **{name: str(run / "checkpoints" / name / "hf") for name in ("early", "early.seed11")},
        **{name: str(run / "checkpoints" / name / "hf") for name in ("late", "late.seed11")},
        **dict.fromkeys(("base_sft", "base_sft.seed11"), base),
    }
    words = made["base_sft.seed11"]
    assert words[words.index("--arm") + 1] == "base_sft.seed11"
    assert words[words.index("--seed") + 1] == "11"


def test_seeds_of_a_cluster_s_arms_have_units_and_jobs_of_their_own(recipe: Recipe) -> None:
    section = {"trainer": "bridge", "config": SFT_CONFIG, "data": ["a.jsonl"]}
    recipe = with_section(recipe, "instruct_sft", **section)
    recipe = with_section(recipe, "ablation", seeds=[7, 11], base_arm="base_sft")
    trained = {unit.name: unit for unit in stage_units(recipe, "midtrain")}
    assert list(trained) == ["early", "early.seed11", "late", "late.seed11"]
    seeds = [unit.config["training"]["seed"] for unit in trained.values()]
    assert seeds == [7, 11, 7, 11]
    assert trained["early.seed11"].folder == "checkpoints/early.seed11"
    assert "blends/early" in trained["early.seed11"].upstream
    tuned = {unit.name: unit.upstream for unit in stage_units(recipe, "instruct-sft")}
    assert tuned["late.seed11"] == ("checkpoints/late.seed11",)
    assert tuned["base_sft"] == tuned["base_sft.seed11"] == ()
    held_out = [unit.name for unit in stage_units(recipe, "held-out")]
    assert held_out == [*trained, "base_sft"]  # no seed changes the base
    names = [job_name("midtrain", name) for name in ("earlySeed11", "early.seed11")]
    assert names == ["midtrain-early.seed11", "midtrain-early..seed11"]
