"""What arms take by arithmetic that can be done by hand, and what is not known of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import SFT_CONFIG, finish, write_cluster_run
from rich.console import Console

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.baselines.dataman_prompt import dataman_messages
from mira_megatron.config import Recipe
from mira_megatron.manifest import Counts, read_manifest, write_manifest
from mira_megatron.planning.arm_costs import Cost, RunCosts, arm_costs, total
from mira_megatron.planning.arm_table import print_arms
from mira_megatron.planning.jobs import Missing
from mira_megatron.planning.operations import GpuHours
from mira_megatron.planning.plan import Plan, Quote
from mira_megatron.planning.price import Total
from mira_megatron.training.dense_models import QWEN25_CODER_1P5B

PARAMETERS = 14_770_033_664  # of the run's Qwen2.5-Coder-14B
PLAN = {"mfu": 0.5, "num_records": 3600, "tokens_per_record": 100}
HOUR = 989e12 * 0.5 * 3600  # operations
RANDOM = {"random": {"method": "random"}}
ARMS = {"half": {"score": "random", "scope": "source"}}


def costs_of(folder: Path, plan: dict[str, Any] | None = None, **sections: Any) -> RunCosts:
    costs = arm_costs(recipe_of(folder, plan, **sections), None)
    assert costs is not None
    return costs


def recipe_of(folder: Path, plan: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """Returns a recipe of one arm that ranks by chance, and of these sections."""
    recipe = write_cluster_run(folder)
    values = {
        **recipe.values,
        "baselines": RANDOM,
        "arms": ARMS,
        "select": {"budget_tokens": 1000},
        "tokenize": {"validation_fraction": 0.1, "validation_max_tokens": 50},
        "plan": {**PLAN, **(plan or {})},
        **sections,
    }
    # A run that has trained nothing: not even its tokens are counted.
    return replace(recipe, run_folder=folder / "fresh", values=values)


def only(costs: RunCosts) -> Cost:
    (table,) = costs.tables
    (cost,) = table.costs
    return cost


def own(costs: RunCosts, arm: str) -> dict[str, Cost]:
    (found,) = [each for each in costs.arms if each.arm == arm]
    return {cost.stage: cost for cost in found.own}


def test_random_and_dsir_take_no_gpu_and_cost_nothing(tmp_path: Path) -> None:
    cost = only(costs_of(tmp_path))
    assert (cost.gpu_hours, cost.money, cost.each.requests) == (0, 0, None)
    dsir = {"random": {"method": "dsir", "target_sources": ["notes"]}}
    cost = only(costs_of(tmp_path / "dsir", baselines=dsir))
    assert (cost.gpu_hours, cost.money) == (0, 0)
    assert cost.each.basis.startswith("CPU only")


def test_dataman_is_asked_once_per_record_for_29_tokens(tmp_path: Path) -> None:
    speeds = {"dataman_prompt_tokens_per_second": 100, "dataman_output_tokens_per_second": 29}
    around = sum(len(each["content"]) for each in dataman_messages("", None))
    plan = {**speeds, "bytes_per_token": around / 50, "price_per_gpu_hour": 3}
    dataman = {"random": {"method": "dataman", "engine": "endpoint", "model": "m"}}
    cost = only(costs_of(tmp_path, plan, baselines=dataman))
    assert cost.each.requests == 3600
    assert cost.each.prompt_tokens == pytest.approx(3600 * (100 + 50))
    assert cost.each.output_tokens == 3600 * 29
    assert cost.gpu_hours == pytest.approx(1.5 + 1)  # 3,600 x (1.5 s + 1 s)
    assert cost.money == pytest.approx(7.5)
    cut = only(costs_of(tmp_path / "long", {**plan, "tokens_per_record": 9000}, baselines=dataman))
    assert cut.each.prompt_tokens == pytest.approx(3600 * (1894 + 50))
    judge = {"random": {"method": "dataman", "engine": "rule_judge"}}
    assert only(costs_of(tmp_path / "judge", baselines=judge)).gpu_hours == 0


def test_tokens_of_a_vendor_are_paid_by_his_prices_and_not_by_the_hour(tmp_path: Path) -> None:
    prices = {"price_per_million_prompt_tokens": 2, "price_per_million_output_tokens": 10}
    dataman = {"random": {"method": "dataman", "engine": "endpoint", "model": "m", **prices}}
    costs = costs_of(tmp_path, {"price_per_gpu_hour": 3}, baselines=dataman)
    cost = only(costs)
    assert cost.gpu_hours is None
    assert "plan.dataman_prompt_tokens_per_second" in cost.each.basis
    assert cost.each.prompt_tokens is not None
    assert cost.money == pytest.approx((2 * cost.each.prompt_tokens + 10 * 3600 * 29) / 1e6)
    assert costs.whole.without == ("baseline",)
    assert costs.whole.unpriced == ()


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, 100),  # records are shorter than the window
        ({"window_tokens": 40}, 40),
        ({"window_tokens": 40, "stride_tokens": 10}, 400),
    ],
)
def test_perplexity_is_a_forward_pass_over_its_windows(
    tmp_path: Path, settings: dict[str, Any], tokens: int
) -> None:
    ppl = {"method": "perplexity", "model": "nowhere", **settings}
    plan = {"reference_parameters": {"random": 1e9}}
    cost = only(costs_of(tmp_path, plan, baselines={"random": ppl}))
    assert cost.each.prompt_tokens == 3600 * tokens
    assert cost.gpu_hours == pytest.approx(2 * 1e9 * 3600 * tokens / HOUR)


def test_parameters_of_a_reference_are_those_of_its_own_config(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    write_json(tmp_path / "reference" / "config.json", dict(QWEN25_CODER_1P5B.hf_config))
    ppl = {"random": {"method": "perplexity", "model": "reference"}}
    cost = only(costs_of(tmp_path, baselines=ppl))
    assert cost.gpu_hours == pytest.approx(2 * 1_543_714_304 * 360_000 / HOUR)
    unknown = only(costs_of(tmp_path / "b", baselines={"random": {**ppl["random"], "model": "x"}}))
    assert (unknown.gpu_hours, unknown.each.prompt_tokens) == (None, 360_000)
    assert "plan.reference_parameters.random not given" in unknown.each.basis


def test_an_arm_s_budget_is_its_own_or_the_selection_s(tmp_path: Path) -> None:
    arms = {**ARMS, "all": {**ARMS["half"], "budget_fraction": 1.0}}
    costs = costs_of(tmp_path, arms=arms)
    assert own(costs, "half")["midtrain"].gpu_hours == pytest.approx(6 * PARAMETERS * 1000 / HOUR)
    whole = own(costs, "all")["midtrain"]
    assert whole.gpu_hours == pytest.approx(6 * PARAMETERS * 360_000 / HOUR)
    assert "arms.all.budget_fraction=1 of 360k" in whole.each.basis
    lacking = costs_of(tmp_path / "b", {"tokens_per_record": None}, arms=arms)
    unknown = own(lacking, "all")["midtrain"]
    assert unknown.gpu_hours is None
    assert "plan.tokens_per_record not given" in unknown.each.basis


def test_seeds_multiply_what_is_an_arm_s_own_and_the_base_is_read_once(tmp_path: Path) -> None:
    sft = {"trainer": "bridge", "config": SFT_CONFIG, "data": ["a.jsonl"], "num_epochs": 3}
    ablation = {"seeds": [1, 2], "base_arm": "base_sft"}
    costs = costs_of(tmp_path, {"instruct_sft_tokens": 7}, instruct_sft=sft, ablation=ablation)
    numbers = {
        arm: {stage: cost.num_models for stage, cost in own(costs, arm).items()}
        for arm in ("half", "base_sft")
    }
    assert numbers == {
        "half": {"midtrain": 2, "held-out": 2, "instruct-sft": 2},
        "base_sft": {"held-out": 1, "instruct-sft": 2},
    }
    tuned = own(costs, "half")["instruct-sft"]
    assert tuned.gpu_hours == pytest.approx(2 * 6 * PARAMETERS * 21 / HOUR)
    # A tenth of 360,000 tokens is more than 50 of the one source; read twice, by two models.
    assert own(costs, "half")["held-out"].gpu_hours == pytest.approx(
        2 * 2 * PARAMETERS * 100 / HOUR
    )


def test_evaluation_is_priced_by_what_is_declared_of_one_model(tmp_path: Path) -> None:
    speeds = {"eval_prompt_tokens_per_second": 10, "eval_output_tokens_per_second": 5}
    sizes = {"eval_prompt_tokens": 36_000, "eval_output_tokens": 36_000}
    seeds = {"seeds": [1, 2], "base_arm": "base"}
    costs = costs_of(tmp_path, {**speeds, **sizes}, eval={}, ablation=seeds)
    assert own(costs, "half")["eval"].gpu_hours == pytest.approx(2 * (1 + 2))
    assert own(costs, "base")["eval"].gpu_hours == pytest.approx(1 + 2)  # it is not tuned
    lacking = costs_of(tmp_path / "b", speeds, eval={})
    unknown = own(lacking, "half")["eval"]
    assert unknown.gpu_hours is None
    assert "plan.eval_prompt_tokens, plan.eval_output_tokens not given" in unknown.each.basis


def test_what_is_counted_takes_the_place_of_what_is_declared(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, ablation={})
    for folder, counts in (
        (layout.records("notes"), Counts(num_in=9, num_out=8)),
        (
            layout.tokens("notes"),
            Counts(num_in=8, num_out=8, totals={"tokens": 4000, "validation_tokens": 30}),
        ),
    ):
        finish(recipe.run_folder / folder, {"a": "b"})
        manifest = read_manifest(recipe.run_folder / folder)
        assert manifest is not None
        write_manifest(recipe.run_folder / folder, replace(manifest, counts=counts))
    arms = {"all": {**ARMS["half"], "budget_fraction": 0.5}}
    costs = arm_costs(replace(recipe, values={**recipe.values, "arms": arms}), None)
    assert costs is not None
    assert own(costs, "all")["midtrain"].gpu_hours == pytest.approx(6 * PARAMETERS * 2000 / HOUR)
    assert own(costs, "all")["held-out"].gpu_hours == pytest.approx(2 * PARAMETERS * 60 / HOUR)


def test_mira_s_scores_take_every_stage_before_them_and_are_made_once(tmp_path: Path) -> None:
    asked = {"engine": "endpoint", "model": "m"}
    sections: dict[str, Any] = {
        "group": {},
        "embedder": {"engine": "tfidf_svd"},
        "teacher": {"engine": "rule_judge"},
        "discover": {"records_per_source": 10},
        "anchor": {},
        "label": {"records_per_source": 360, "reliability_fraction": 0.5},
        "score": asked,
        "aggregate": {"scoring": "v1"},
        "arms": {name: {"score": "v1", "scope": name} for name in ("global", "group")},
    }
    plan = {"prompt_tokens_per_record": 10, "output_tokens_per_record": 10}
    plan |= {"prompt_tokens_per_second": 10, "output_tokens_per_second": 10}
    costs = costs_of(tmp_path, plan, **sections)
    (table,) = costs.tables
    assert (table.method, table.arms) == ("mira", ("global", "group"))
    hours = {cost.stage: cost.gpu_hours for cost in table.costs}
    assert hours == {
        **dict.fromkeys(("group", "discover", "anchor", "label"), 0),
        "reliability": pytest.approx(0.1),  # 180 held back x 2 s
        "score": pytest.approx(2),  # 3,600 x 2 s
    }
    trained = 2 * 6 * PARAMETERS * 1000 / HOUR
    assert costs.whole.gpu_hours == pytest.approx(2.1 + trained)
    embedded = costs_of(tmp_path / "b", plan, **sections | {"embedder": asked})
    assert embedded.whole.without == ("group", "anchor")


@pytest.mark.parametrize("is_whole", [True, False])
def test_scores_are_told_by_their_sample_where_every_group_has_one(
    tmp_path: Path, is_whole: bool
) -> None:
    recipe = recipe_of(
        tmp_path,
        {"price_per_gpu_hour": 2},
        arms={"group": {"score": "v1", "scope": "group"}},
        score={"engine": "endpoint", "model": "m"},
        aggregate={"scoring": "v1"},
    )
    quote = Quote(
        stage="score",
        group="all",
        part=None,
        model="m",
        num_records=3,
        num_sampled=3,
        requests=Total(value=3),
        prompt_tokens=Total(value=30),
        output_tokens=Total(value=20),
        shared_tokens_per_prompt=None,
        gpu_hours=Total(value=5),
        money=None,
        prompt_basis=None,
        output_basis=None,
    )
    gone = Missing(stage="score", group="qa", folder="records/qa", command="mira ingest r.yaml")
    sampled = Plan(quotes=(quote,), totals=(quote,), missing=() if is_whole else (gone,))
    costs = arm_costs(recipe, sampled)
    assert costs is not None
    cost = only(costs)
    if is_whole:
        assert (cost.gpu_hours, cost.money, cost.each.output_tokens) == (5, 10, 20)
    else:
        assert cost.gpu_hours is None
        assert cost.each.basis.startswith("not known before ingest: ")


def test_sum_names_what_it_leaves_out() -> None:
    known = Cost(stage="a", num_models=2, each=GpuHours(value=3, basis=""), price=5)
    unknown = Cost(stage="b", each=GpuHours(value=None, basis="why"))
    together = total([known, unknown, unknown])
    assert (together.gpu_hours, together.money) == (6, 10)
    assert (together.without, together.unpriced) == (("b",), ("b",))


def test_table_says_what_is_not_known_and_hours_on_all_gpus(tmp_path: Path) -> None:
    sft = {"trainer": "bridge", "config": SFT_CONFIG, "data": ["a.jsonl"]}
    costs = costs_of(
        tmp_path / "run", {"num_gpus": 4}, instruct_sft=sft, select={"budget_tokens": 1e9}
    )
    console = Console(file=io.StringIO(), width=110)
    print_arms(console, costs)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    hours = 6 * PARAMETERS * 1e9 / HOUR
    assert f"{hours:.1f} GPU-hours, {hours / 4:.1f} hours on 4 GPUs, without instruct-sft." in text
    assert "instruct-sft of half: not known: plan.instruct_sft_tokens is not given." in text
    assert f"{hours:.1f}+?" in text


def test_recipe_without_arms_has_no_costs_of_arms(tmp_path: Path) -> None:
    assert arm_costs(recipe_of(tmp_path, arms={}), None) is None


@pytest.mark.parametrize(
    "plan",
    [
        {"num_gpus": 0},
        {"price_per_gpu_hour": -1},
        {"reference_parameters": {"random": 0}},
        {"eval_prompt_tokens_per_second": 5},
        {"tokens_per_record": -1},
    ],
)
def test_setting_that_cannot_be_is_refused(tmp_path: Path, plan: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(plan))):
        costs_of(tmp_path, plan)
