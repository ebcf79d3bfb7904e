from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mira_megatron.cli import main
from mira_megatron.config import Recipe
from mira_megatron.planning.jobs import planned_jobs
from mira_megatron.planning.plan import Plan, Quote, make_plan
from mira_megatron.planning.plan_table import plan_values, print_plan
from mira_megatron.records import RATING_SCHEMA
from mira_megatron.rubric.anchor_files import read_anchors
from mira_megatron.rubric.prompts import score_messages

pytest_plugins = ("labelled_recipes",)

Make = Callable[..., Recipe]

ENDPOINT = {
    "engine": "endpoint",
    "model": "m",
    "temperature": 0,
    "top_p": 1,
    "max_tokens": 100,
    "endpoints": ["http://127.0.0.1:9/v1"],
}
PRICES = {"price_per_million_prompt_tokens": 2.0, "price_per_million_output_tokens": 8.0}


def only(plan: Plan, stage: str = "score") -> Quote:
    (quote,) = [quote for quote in plan.quotes if quote.stage == stage]
    return quote


def notes(recipe: Recipe) -> list[str]:
    lines = (recipe.path.parent / "notes.jsonl").read_bytes().splitlines()
    return [orjson.loads(line)["text"] for line in lines]


def prompt_bytes(recipe: Recipe) -> list[int]:
    anchors = read_anchors(recipe.run_folder / "anchors/mira/text-notes/anchors.jsonl")
    prompts = [score_messages("text", anchors, note) for note in notes(recipe)]
    return [sum(len(message["content"].encode()) for message in prompt) for prompt in prompts]


def write_ratings(
    recipe: Recipe, lengths: list[int | None], *, model: str = "m", mode: str = "full"
) -> None:
    folder = recipe.run_folder / "ratings/mira/notes"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            **{field.name: None if field.nullable else "x" for field in RATING_SCHEMA},
            "model": model,
            "answer_mode": mode,
            "status": "ok" if length else "failed",
            "scores": [None] * 15,
            "rationales": [None] * 15,
            "num_attempts": 1,
            "num_output_tokens": length,
        }
        for length in lengths
    ]
    number = len(list(folder.iterdir()))
    table = pa.Table.from_pylist(rows, schema=RATING_SCHEMA)
    pq.write_table(table, folder / f"part-{number:05d}.parquet")


def test_plan_of_a_whole_small_group_is_exact(judged_recipe: Make) -> None:
    recipe = judged_recipe(score={**ENDPOINT, **PRICES}, plan={"bytes_per_token": 1})
    quote = only(make_plan(recipe))
    assert (quote.num_records, quote.num_sampled, quote.requests.value) == (20, 20, 20)
    assert quote.prompt_tokens.value == pytest.approx(sum(prompt_bytes(recipe)))
    assert quote.prompt_tokens.half_width == 0
    assert (quote.output_tokens.value, quote.output_tokens.is_most) == (20 * 100, True)
    assert quote.money is not None
    assert quote.money.value == pytest.approx((2 * sum(prompt_bytes(recipe)) + 8 * 2000) / 1e6)
    assert quote.money.is_most
    assert quote.gpu_hours is None


def test_plan_from_a_sample_holds_the_truth_in_its_interval(judged_recipe: Make) -> None:
    plan = {"records_per_group": 10, "bytes_per_token": 1}
    recipe = judged_recipe(score=ENDPOINT, plan=plan)
    quote = only(make_plan(recipe))
    assert (quote.num_records, quote.num_sampled) == (20, 10)
    low, high = quote.prompt_tokens.low, quote.prompt_tokens.high
    assert low is not None
    assert high is not None
    assert low < sum(prompt_bytes(recipe)) < high
    assert low < high


def test_plan_is_the_same_whatever_the_number_of_workers(judged_recipe: Make) -> None:
    recipe = judged_recipe(score=ENDPOINT, plan={"records_per_group": 7})
    assert make_plan(recipe, workers=1) == make_plan(recipe, workers=3)


def test_another_seed_looks_at_other_records(judged_recipe: Make) -> None:
    recipe = judged_recipe(score=ENDPOINT, plan={"records_per_group": 5})
    plans = {make_plan(replace(recipe, seed=seed)).quotes[0].prompt_tokens for seed in range(4)}
    assert len(plans) > 1


def test_prompts_share_all_that_comes_before_the_record(judged_recipe: Make) -> None:
    recipe = judged_recipe(score=ENDPOINT, plan={"bytes_per_token": 1})
    shared = only(make_plan(recipe)).shared_tokens_per_prompt
    assert shared is not None
    shortest = min(prompt_bytes(recipe))
    assert 0.8 * shortest < shared < shortest


def test_output_is_priced_by_answers_of_this_judge_alone(judged_recipe: Make) -> None:
    recipe = judged_recipe(score=ENDPOINT)
    write_ratings(recipe, [30, 50, None])
    write_ratings(recipe, [9000], model="another")
    write_ratings(recipe, [9000], mode="expected")
    quote = only(make_plan(recipe))
    assert (quote.output_tokens.value, quote.output_tokens.is_most) == (20 * 40, False)
    assert quote.output_basis == "2 answers of this judge"


def test_a_tokenizer_counts_the_prompts_where_one_is_configured(
    judged_recipe: Make, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # What a server adds once must not be counted for every message.
    tokenizer.post_processor = processors.TemplateProcessing("[UNK] $A", None, [("[UNK]", 0)])
    tokenizer.save(str(path))
    limit = {"tokenizer": str(path), "max_record_tokens": 1000}
    recipe = judged_recipe(score={**ENDPOINT, **limit})
    anchors = read_anchors(recipe.run_folder / "anchors/mira/text-notes/anchors.jsonl")
    words = sum(
        len(message["content"].split())
        for note in notes(recipe)
        for message in score_messages("text", anchors, note)
    )
    quote = only(make_plan(recipe))
    assert quote.prompt_tokens.value == words
    assert quote.prompt_basis == "the judge's tokenizer"


def test_gpu_hours_need_both_speeds_of_the_model_that_is_asked(judged_recipe: Make) -> None:
    speeds = {"prompt_tokens_per_second": 1000.0, "output_tokens_per_second": 10.0}
    recipe = judged_recipe(score=ENDPOINT, plan={**speeds, "bytes_per_token": 1})
    hours = only(make_plan(recipe)).gpu_hours
    assert hours is not None
    assert hours.value == pytest.approx((sum(prompt_bytes(recipe)) / 1000 + 2000 / 10) / 3600)


def test_one_speed_without_the_other_is_refused(judged_recipe: Make) -> None:
    recipe = judged_recipe(stages=(), plan={"output_tokens_per_second": 10})
    with pytest.raises(
        ValueError, match="prompt_tokens_per_second and output_tokens_per_second go"
    ):
        make_plan(recipe)


def test_labelling_is_priced_for_the_records_that_label_draws(judged_recipe: Make) -> None:
    label = {"records_per_source": 8, "reliability_fraction": 0.5}
    recipe = judged_recipe(teacher=ENDPOINT, label=label)
    del recipe.values["score"]  # type: ignore[attr-defined]
    plan = make_plan(recipe)
    assert (only(plan, "label").num_records, only(plan, "label").num_sampled) == (8, 8)
    assert [total.stage for total in plan.totals] == ["label"]


def test_the_rule_judge_asks_for_nothing(judged_recipe: Make) -> None:
    quote = only(make_plan(judged_recipe()))
    assert (quote.num_records, quote.requests.value, quote.prompt_tokens.value) == (20, 0, 0)


def test_expected_scores_are_an_upper_bound_on_an_endpoint(judged_recipe: Make) -> None:
    plan = {"bytes_per_token": 1}
    recipe = judged_recipe(score={**ENDPOINT, "answer_mode": "expected"}, plan=plan)
    quote = only(make_plan(recipe))
    assert quote.requests.value == 16 * 20
    assert quote.requests.is_most
    assert quote.prompt_tokens.value == pytest.approx(16 * sum(prompt_bytes(recipe)) + 15 * 2000)
    assert quote.output_tokens.value == 2000 + 15 * 20


def test_what_is_asked_to_know_the_answers_worth_is_priced_beside_the_corpus(
    judged_recipe: Make,
) -> None:
    measured = {"answer_mode": "scores_only", "temperature": 0.7, "min_mode_agreement": 0.5}
    sizes = {"mode_agreement_records": 8, "retest_records": 4}
    recipe = judged_recipe(score={**ENDPOINT, **measured, **sizes}, plan={"bytes_per_token": 1})
    plan = make_plan(recipe)
    assert [(quote.part, quote.requests.value) for quote in plan.quotes] == [
        *((None, 20), ("in full, to compare", 8), ("retest", 4)),
    ]
    (total,) = plan.totals
    assert total.requests.value == 32
    assert total.prompt_tokens.value == sum(quote.prompt_tokens.value for quote in plan.quotes)
    # Prompts in full are longer than those for digits, and price their own.
    whole, full, again = (quote.prompt_tokens.value / quote.num_records for quote in plan.quotes)
    assert full > again
    assert again == pytest.approx(whole, rel=0.05)
    text = printed(plan)
    assert "text-notes, in full, to compare: m, 8 records looked at." in text
    (_, in_full, _) = plan_values(plan)["jobs"]
    assert (in_full["group"], in_full["part"]) == ("text-notes", "in full, to compare")


def test_a_model_in_process_is_priced_as_an_endpoint_is(
    judged_recipe: Make, tmp_path: Path
) -> None:
    local = {"engine": "vllm", "model_path": str(tmp_path), "max_tokens": 100, "top_p": 1}
    recipe = judged_recipe(score={**local, "temperature": 0.7, "retest_records": 4})
    (job, again) = planned_jobs(recipe)
    assert (job.part, job.records_per_source) == (None, None)
    assert (again.part, again.records_per_source) == ("retest", 4)


def test_what_several_jobs_of_a_group_lack_is_named_once(labelled: Make) -> None:
    recipe = labelled()
    score = {**ENDPOINT, "temperature": 0.7}
    del score["model"]
    recipe = replace(recipe, values={**recipe.values, "teacher": ENDPOINT, "score": score})
    assert len(make_plan(recipe).missing) == 1


def test_what_is_not_there_yet_is_named_with_its_command(judged_recipe: Make) -> None:
    recipe = judged_recipe(stages=("ingest",), score=ENDPOINT)
    with pytest.raises(ValueError, match=r"anchors/mira/text-notes: .* Run `mira anchor .*` first"):
        make_plan(recipe)


def test_a_part_that_is_gone_is_named(judged_recipe: Make) -> None:
    recipe = judged_recipe(score=ENDPOINT)
    (recipe.run_folder / "records/notes/part-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"part-00001.parquet: this part is missing"):
        make_plan(recipe)


def test_a_group_that_cannot_be_priced_leaves_the_others(labelled: Make, tmp_path: Path) -> None:
    recipe = labelled()  # its scorer is to be distilled yet
    recipe = replace(recipe, values={**recipe.values, "teacher": ENDPOINT, "score": SCORE})
    plan = make_plan(recipe)
    assert [quote.stage for quote in plan.quotes] == ["label"]
    assert [each.folder for each in plan.missing] == ["scorers/mira/text-notes"]
    text = printed(plan)
    assert "Not priced: score of text-notes, scorers/mira/text-notes is not there." in text
    assert f"Run `mira distill {recipe.path}` first." in text


SCORE: dict[str, Any] = {"engine": "transformers", "max_tokens": 64}


def printed(plan: Plan, width: int = 80) -> str:
    file = io.StringIO()
    print_plan(Console(file=file, width=width), plan)
    return file.getvalue()


def test_table_shows_figures_with_half_widths_and_their_basis(judged_recipe: Make) -> None:
    plan = {"records_per_group": 10, "bytes_per_token": 3.07}
    text = printed(make_plan(judged_recipe(score={**ENDPOINT, **PRICES}, plan=plan)))
    assert "±" in text
    assert "≤2,000" in text
    assert "text-notes: m, 10 records looked at. Prompts by 3.07 bytes per token" in text
    assert "Output by max_tokens=100: it has not answered yet." in text
    assert max(map(len, text.split("text-notes: m")[0].splitlines())) <= 80


def test_command_prints_json_that_adds_up(
    judged_recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = judged_recipe(score={**ENDPOINT, **PRICES})
    words = ["plan", str(recipe.path), "--json", "plan.records_per_group=10", "--workers", "1"]
    assert main(words) == 0
    content = orjson.loads(capsys.readouterr().out)
    (job,), (total,) = content["jobs"], content["totals"]
    assert (job["num_records"], job["num_sampled"]) == (20, 10)
    assert total["prompt_tokens"] == job["prompt_tokens"]
    assert job["prompt_tokens"]["low"] < job["prompt_tokens"]["value"]
    assert job["gpu_hours"] is None


def test_command_without_anchors_is_a_user_error(judged_recipe: Make) -> None:
    recipe = judged_recipe(stages=("ingest",), score=ENDPOINT)
    assert main(["plan", str(recipe.path)]) == 2


def test_plan_json_of_unknown_intervals_has_nulls(judged_recipe: Make) -> None:
    recipe = judged_recipe(score=ENDPOINT, plan={"records_per_group": 1})
    (job,) = plan_values(make_plan(recipe))["jobs"]
    assert (job["prompt_tokens"]["low"], job["prompt_tokens"]["high"]) == (None, None)
