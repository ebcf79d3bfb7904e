from __future__ import annotations

from typing import Any

import pytest

from mira_megatron.config import fingerprinted, typed
from mira_megatron.scoring.judge_config import JudgeConfig

_ENDPOINT = {
    "engine": "endpoint",
    "model": "m",
    "temperature": 0,
    "top_p": 1,
    "max_tokens": 64,
    "endpoints": ["http://127.0.0.1:8000/v1"],
}


def _judge(**settings: Any) -> JudgeConfig:
    return typed(JudgeConfig, {**_ENDPOINT, **settings}, where="recipe.yaml: teacher")


def test_judge_config_prices_and_ceiling_are_taken() -> None:
    judge = _judge(price_per_million_prompt_tokens=0.5, spend_ceiling=10)
    assert (judge.spend_ceiling, judge.price_per_million_output_tokens) == (10, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spend_ceiling": 5}, "spend_ceiling=5.0 needs prices"),
        ({"spend_ceiling": -1, "price_per_million_output_tokens": 1}, "spend_ceiling=-1.0"),
        ({"price_per_million_output_tokens": -1}, "price_per_million_output_tokens=-1.0"),
        ({"price_per_million_prompt_tokens": float("inf")}, "prompt_tokens=inf"),
        ({"max_attempts": 0}, "max_attempts=0"),
        ({"max_in_flight": 0}, "max_in_flight=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds=nan"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"endpoints": ["localhost:8000"]}, "expected a base URL"),
        ({"max_record_tokens": 100}, "max_record_tokens and tokenizer"),
        ({"engine": "rule_judge"}, "model is for engine=endpoint"),
    ],
)
def test_judge_config_setting_that_does_not_fit_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"recipe\.yaml: teacher: .*{message}"):
        _judge(**settings)


def test_judge_config_key_in_the_place_of_its_name_is_refused_unseen() -> None:
    with pytest.raises(ValueError, match="not the name of an environment variable") as caught:
        _judge(api_key_env="sk-live-0123456789")
    assert "sk-live" not in str(caught.value)


def test_judge_config_max_attempts_may_be_raised_for_a_run_that_goes_on() -> None:
    assert fingerprinted(_judge(max_attempts=1)) == fingerprinted(_judge(max_attempts=3))


@pytest.mark.parametrize(
    "name", ["model", "messages", "temperature", "max_tokens", "seed", "n", "best_of"]
)
def test_judge_config_request_field_with_a_setting_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"request_fields.{name}"):
        _judge(request_fields={name: 1})


def test_judge_config_request_field_may_replace_max_tokens_by_its_other_name() -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 64, "reasoning_effort": "low"}
    assert _judge(request_fields=fields).request_fields == fields


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": None, "max_completion_tokens": 9000},
        {"max_tokens": None, "max_completion_tokens": None},
        {"max_completion_tokens": 9000},
        {"max_tokens": None},
    ],
)
def test_judge_config_answer_without_the_bound_of_its_cost_is_refused(
    fields: dict[str, int | None],
) -> None:
    with pytest.raises(ValueError, match="must equal max_tokens=64"):
        _judge(request_fields=fields)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "sglang"}, "engine='sglang' must be one of rule_judge, endpoint, transf"),
        ({"answer_mode": "mean"}, "answer_mode='mean' must be one of full, scores_only, expected"),
        ({"answer_mode": "scores_only", "max_tokens": None}, "engine=endpoint needs max_tokens"),
        ({"answer_mode": "scores_only", "max_tokens": 44}, "max_tokens=44 must be at least 45"),
        ({"min_mode_agreement": 1.5}, "min_mode_agreement=1.5 must be in"),
        ({"mode_agreement_records": 0}, "mode_agreement_records=0 must be a number above 0"),
        ({"retest_records": -1}, "retest_records=-1 must be a number of at least 0"),
        ({"answer_mode": "expected", "temperature": 0.5}, "temperature=0.5: answer_mode=expected"),
        ({"dtype": "float32"}, "dtype is for engine=transformers or vllm"),
        ({"engine": "vllm"}, "endpoints is for engine=endpoint"),
        ({"max_tokens": None}, "engine=endpoint needs max_tokens"),
    ],
)
def test_judge_config_engine_or_mode_that_does_not_fit_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _judge(**settings)


def test_judge_config_local_engine_is_greedy_only_where_it_is_transformers() -> None:
    local = {"engine": "vllm", "endpoints": [], "temperature": 0.5, "model": None}
    assert _judge(**local).temperature == 0.5
    with pytest.raises(ValueError, match="engine=transformers answers greedily"):
        _judge(**{**local, "engine": "transformers"})


@pytest.mark.parametrize("mode", ["expected", "scores_only"])
def test_judge_config_rule_judge_gives_full_answers_only(mode: str) -> None:
    with pytest.raises(ValueError, match=f"answer_mode={mode} needs a model"):
        typed(JudgeConfig, {"engine": "rule_judge", "answer_mode": mode}, where="r")


def test_judge_config_scores_only_is_for_engines_with_guided_decoding() -> None:
    assert _judge(answer_mode="scores_only", temperature=0.7).temperature == 0.7
    local: dict[str, Any] = {"answer_mode": "scores_only", "endpoints": [], "model": None}
    assert _judge(**local, engine="vllm").engine == "vllm"
    with pytest.raises(ValueError, match="guided decoding, which engine=endpoint or vllm has and"):
        _judge(**local, engine="transformers")


def test_judge_config_gate_of_a_mode_does_not_change_what_ratings_are() -> None:
    measured = {"min_mode_agreement": 0.9, "mode_agreement_records": 50, "retest_records": 50}
    gated = _judge(answer_mode="scores_only", **measured)
    assert fingerprinted(gated) == fingerprinted(_judge(answer_mode="scores_only"))
