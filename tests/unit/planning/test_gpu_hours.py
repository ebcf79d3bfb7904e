from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.launchers.cluster import Cluster, load_cluster
from mira_megatron.launchers.job_graph import job_graph
from mira_megatron.manifest import Counts, Manifest, write_manifest
from mira_megatron.planning.gpu_hours import gpu_hours
from mira_megatron.planning.operations import GpuHours, training_gpu_hours

ROOT = Path(__file__).parents[3]
RATES = (
    "plan.prompt_tokens_per_second=1000",
    "plan.output_tokens_per_second=100",
    "plan.teacher_prompt_tokens_per_second=500",
    "plan.teacher_output_tokens_per_second=50",
)

MANIFEST = Manifest(
    stage="select",
    unit="mira_group",
    stage_version=1,
    config={},
    inputs={},
    fingerprint="f",
    output_digest="d",
    parts=(),
    counts=Counts(num_in=1, num_out=1),
    seconds=1.0,
    code={},
    packages={},
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return load_cluster(ROOT / "launchers" / "clusters" / "example.yaml")


def recipe_for(tmp_path: Path, *words: str) -> Recipe:
    """Returns recipes/code50b.yaml with stand-ins for what is on the user's machine."""
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    stand_ins = [f"teacher.tokenizer={tokenizer}", f"tokenize.tokenizer={tokenizer}"]
    stand_ins += [f"distill.base={tmp_path}", f"run_folder={tmp_path / 'run'}"]
    return load_recipe(ROOT / "recipes" / "code50b.yaml", [*stand_ins, *words])


def hours_of(recipe: Recipe, cluster: Cluster) -> dict[str, GpuHours]:
    return gpu_hours(job_graph(recipe, cluster), recipe, cluster.gpu)


def known(hours: GpuHours) -> float:
    assert hours.value is not None, hours.basis
    return hours.value


def test_training_takes_six_operations_per_parameter_and_token() -> None:
    # 6 x 1e9 x 1e9 operations at a peak of 989e12, half of it used, are 12,133 seconds.
    assert training_gpu_hours(1e9, 1e9, "h100", 0.5) == pytest.approx(12_133 / 3600, rel=1e-3)


@given(st.floats(1e6, 1e12), st.floats(1e6, 1e13), st.floats(0.05, 1))
def test_training_hours_are_linear_in_work_and_fall_with_utilisation(
    parameters: float, tokens: float, mfu: float
) -> None:
    hours = training_gpu_hours(parameters, tokens, "h200", mfu)
    assert training_gpu_hours(parameters, 2 * tokens, "h200", mfu) == pytest.approx(2 * hours)
    assert training_gpu_hours(2 * parameters, tokens, "h200", mfu) == pytest.approx(2 * hours)
    assert training_gpu_hours(parameters, tokens, "h200", mfu / 2) == pytest.approx(2 * hours)


def test_midtraining_is_priced_by_the_budget_and_then_by_what_was_kept(
    tmp_path: Path, cluster: Cluster
) -> None:
    recipe = recipe_for(tmp_path)
    before = hours_of(recipe, cluster)["midtrain-mira_group"]
    # 14.77 billion parameters x 25 billion tokens.
    assert known(before) == pytest.approx(6 * 14.77e9 * 25e9 / (989e12 * 0.4) / 3600, rel=1e-3)
    assert "select.budget_tokens" in before.basis
    jobs = [job for job in job_graph(recipe, cluster) if job.stage == "midtrain"]
    folder = recipe.run_folder / layout.keep("mira_group")
    folder.mkdir(parents=True)
    (folder / layout.CERTIFICATE).write_bytes(orjson.dumps({"tokens_kept": 12_500_000_000}))
    write_manifest(folder, MANIFEST)
    after = gpu_hours(jobs, recipe, cluster.gpu)["midtrain-mira_group"]
    assert known(after) == pytest.approx(known(before) / 2)
    assert "kept by the selection" in after.basis


def test_labels_and_scores_are_priced_by_what_is_declared(tmp_path: Path, cluster: Cluster) -> None:
    sizes = "plan.num_records=3600", "plan.prompt_tokens_per_record=1000"
    words = (*sizes, "plan.output_tokens_per_record=100", "label.records_per_source=600")
    hours = hours_of(recipe_for(tmp_path, *RATES, *words), cluster)
    assert known(hours["score"]) == pytest.approx(2.0)  # 3,600 x (1 s + 1 s)
    assert known(hours["label"]) == pytest.approx(4.0)  # 6 sources x 600 x (2 s + 2 s)
    assert "declared" in hours["score"].basis
    assert "score-rest" not in hours


def test_discovery_and_reliability_are_priced_by_what_is_declared(
    tmp_path: Path, cluster: Cluster
) -> None:
    words = ("plan.prompt_tokens_per_record=1000", "plan.output_tokens_per_record=100")
    drawn = ("discover.records_per_source=300", "label.records_per_source=6000")
    recipe = recipe_for(tmp_path, *RATES, *words, *drawn)
    hours = hours_of(recipe, cluster)
    assert known(hours["discover"]) == pytest.approx(2.0)  # 6 sources x 300 x (2 s + 2 s)
    assert known(hours["reliability"]) == pytest.approx(2.0)  # 6 x 6,000 x 0.1 x (1 s + 1 s)


@pytest.mark.parametrize(
    ("missing", "job"),
    [
        ("plan.num_records", "score"),
        ("plan.output_tokens_per_record", "score"),
        ("plan.teacher_prompt_tokens_per_second", "label"),
        ("plan.teacher_prompt_tokens_per_second", "discover"),
        ("plan.prompt_tokens_per_record", "reliability"),
    ],
)
def test_what_is_not_declared_is_named_and_nothing_is_invented(
    tmp_path: Path, cluster: Cluster, missing: str, job: str
) -> None:
    also = missing.replace("prompt", "output") if "second" in missing else missing
    recipe = recipe_for(tmp_path, *RATES, f"{missing}=null", f"{also}=null")
    told = hours_of(recipe, cluster)[job]
    assert told.value is None
    assert told.basis.startswith(("not known before ingest: ", "not known: "))
    assert missing in told.basis


def test_experts_that_a_token_does_not_meet_cost_nothing(tmp_path: Path, cluster: Cluster) -> None:
    told = hours_of(recipe_for(tmp_path), cluster)["distill"]
    assert "3.35G parameters" in told.basis  # of 30.5 billion: Qwen3-30B-A3B
    twice = recipe_for(tmp_path, "distill.num_steps=1000", "plan.mixture_of_experts_mfu=0.4")
    assert known(hours_of(twice, cluster)["distill"]) == pytest.approx(known(told))


def test_jobs_without_gpus_have_no_hours(tmp_path: Path, cluster: Cluster) -> None:
    recipe = recipe_for(tmp_path)
    assert "tokenize" not in hours_of(recipe, cluster)
    none = replace(cluster, stages={}, servers={})
    assert "label" not in hours_of(recipe, none)  # an endpoint elsewhere is asked


@pytest.mark.parametrize("word", ["plan.mfu=0", "plan.mfu=1.2", "plan.num_records=-1"])
def test_setting_that_cannot_be_is_refused(tmp_path: Path, cluster: Cluster, word: str) -> None:
    with pytest.raises(ValueError, match=word.partition("=")[0].removeprefix("plan.")):
        hours_of(recipe_for(tmp_path, word), cluster)
