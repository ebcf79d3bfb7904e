"""What arms took, of runs whose manifests all say 1.5 seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ablation_runs import compared, evaluated
from small_run import ARM, TABLE, finish

from mira_megatron import layout
from mira_megatron.ablation.cost import Cost, StageCost, cost_of
from mira_megatron.ablation.cost_written import cost_markdown, write_cost
from mira_megatron.config import Recipe
from mira_megatron.launchers.job_file import job_folder
from mira_megatron.launchers.job_graph import job_name
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Unit

SEEDS = 3


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return evaluated(compared(tmp_path))


def cost(recipe: Recipe) -> Cost:
    """Returns what the run took, whose units are those that its folders are of."""
    sources = ("books", "code")
    made = [
        *(unit("ingest", source, layout.records(source)) for source in sources),
        *(
            unit("score", source, layout.ratings(TABLE, source), layout.records(source))
            for source in sources
        ),
        *(
            unit("aggregate", source, layout.record_scores(TABLE, source), ratings)
            for source in sources
            for ratings in [layout.ratings(TABLE, source)]
        ),
        *(unit("tokenize", source, layout.tokens(source)) for source in sources),
    ]
    scores = [layout.record_scores(TABLE, source) for source in sources]
    tokens = [layout.tokens(source) for source in sources]
    for arm in (ARM, "other", "random"):
        made.append(unit("select", arm, layout.keep(arm), *scores, *tokens))
        for model in models(arm):
            made.append(unit("midtrain", model, layout.checkpoints(model), layout.keep(arm)))
    for model in (*models(ARM), *models("other"), *models("random"), "base"):
        base = [] if model == "base" else [layout.checkpoints(model)]
        made.append(unit("held-out", model, layout.held_out(model), *base, *tokens))
        made.append(unit("eval", model, layout.evaluation(model), *base))
    return cost_of(recipe, made)


def unit(stage: str, name: str, folder: str, *upstream: str) -> Unit:
    return Unit(stage=stage, name=name, folder=folder, version=1, config={}, upstream=upstream)


def models(arm: str) -> list[str]:
    return [arm, f"{arm}.seed8", f"{arm}.seed9"]


def arm_stages(cost: Cost, arm: str) -> dict[str, StageCost]:
    (found,) = [each for each in cost.arms if each.arm == arm]
    return {each.stage: each for each in found.stages}


def score_stages(cost: Cost) -> dict[str, StageCost]:
    (found,) = cost.scores
    assert (found.score, found.arms) == (TABLE, (ARM, "other", "random"))
    return {each.stage: each for each in found.stages}


def write_ratings(run_folder: Path, *tokens: tuple[int | None, int | None]) -> None:
    for source in ("books", "code"):
        folder = run_folder / layout.ratings(TABLE, source)
        rows = [{"num_prompt_tokens": each[0], "num_output_tokens": each[1]} for each in tokens]
        schema = pa.schema([("num_prompt_tokens", pa.int64()), ("num_output_tokens", pa.int64())])
        shutil.rmtree(folder)
        write_parquet(folder / "part-00000.parquet", pa.Table.from_pylist(rows, schema))
        finish(folder, "score", source)


def test_arm_has_its_own_stages_and_its_score_is_told_once(recipe: Recipe) -> None:
    found = cost(recipe)
    own = arm_stages(found, ARM)
    assert own["held-out"].num_units == own["midtrain"].num_units == SEEDS
    assert own["held-out"].seconds == pytest.approx(SEEDS * 1.5)
    assert own["select"].num_units == 1
    assert "aggregate" not in own
    assert set(arm_stages(found, "base")) == {"held-out", "eval"}
    assert score_stages(found)["aggregate"].num_units == 2
    assert {each.stage for each in found.of_all} == {"ingest", "tokenize"}


def test_unit_that_is_not_finished_makes_its_stage_unknown_and_is_said(recipe: Recipe) -> None:
    shutil.rmtree(recipe.run_folder / layout.held_out(f"{ARM}.seed8"))
    found = arm_stages(cost(recipe), ARM)["held-out"]
    assert (found.seconds, found.reasons) == (None, ("not finished",))
    markdown = cost_markdown(cost(recipe))
    assert "held-out: not finished" in markdown


def test_training_on_a_cluster_has_no_time_here(recipe: Recipe) -> None:
    for seed in ("", ".seed8", ".seed9"):
        folder = recipe.run_folder / layout.checkpoints(f"other{seed}")
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / layout.TRAINING).write_text("{}")
        finish(folder, "midtrain", f"other{seed}")
    found = arm_stages(cost(recipe), "other")["midtrain"]
    assert found.seconds is None
    assert "SLURM's accounting" in found.reasons[0]
    assert arm_stages(cost(recipe), ARM)["midtrain"].seconds is not None


def test_answers_and_their_tokens_are_added_up(recipe: Recipe) -> None:
    write_ratings(recipe.run_folder, (100, 7), (50, None))
    found = score_stages(cost(recipe))["score"]
    assert (found.num_answers, found.prompt_tokens, found.output_tokens) == (4, 300, 14)


def test_answers_without_tokens_are_counted_and_their_tokens_unknown(recipe: Recipe) -> None:
    write_ratings(recipe.run_folder, (None, None))
    found = score_stages(cost(recipe))["score"]
    assert (found.num_answers, found.prompt_tokens, found.output_tokens) == (2, None, None)
    assert score_stages(cost(recipe))["aggregate"].num_answers is None


def test_gpu_hours_are_those_of_the_jobs_script(recipe: Recipe) -> None:
    write_script(recipe, f"midtrain-{ARM}", "--nodes=2", "--gpus-per-node=8")
    found = arm_stages(cost(recipe), ARM)["midtrain"]
    assert found.gpu_hours is None  # the other seeds' jobs say nothing
    for seed in (8, 9):
        job = job_name("midtrain", f"{ARM}.seed{seed}")
        write_script(recipe, job, "--nodes=2", "--gpus-per-node=8")
    found = arm_stages(cost(recipe), ARM)["midtrain"]
    assert found.gpu_hours == pytest.approx(SEEDS * 1.5 * 16 / 3600)


def test_elements_of_an_array_have_no_gpu_hours(recipe: Recipe) -> None:
    write_script(recipe, "score", "--nodes=1", "--gpus-per-node=8", "--array=0-7")
    assert score_stages(cost(recipe))["score"].gpu_hours is None


def write_script(recipe: Recipe, job: str, *options: str) -> None:
    folder = job_folder(recipe.run_folder, job)
    folder.mkdir(parents=True)
    (folder / "script.sh").write_text("".join(f"#SBATCH {each}\n" for each in options))


def test_cost_is_written_beside_the_units_and_no_part_of_one(recipe: Recipe) -> None:
    made = cost(recipe)
    markdown = write_cost(recipe, made)
    folder = recipe.run_folder / "cost"
    assert (folder / "cost.md").read_text() == markdown
    content: dict[str, Any] = json.loads((folder / "cost.json").read_bytes())
    (arm,) = [each for each in content["arms"] if each["arm"] == ARM]
    # The selection is the one unit here that was really made.
    (select,) = [each["seconds"] for each in arm["stages"] if each["stage"] == "select"]
    assert arm["seconds"] == pytest.approx(select + 3 * SEEDS * 1.5)
    name = ARM.replace("_", "\\_")
    assert (
        f"| {name} | {TABLE.replace('_', chr(92) + '_')} | 0 s | 4 s | 4 s | 4 s | 14 s |"
        in markdown
    )
    assert not (folder / "manifest.json").exists()
