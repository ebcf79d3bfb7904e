from __future__ import annotations

from pathlib import Path

from mira_megatron.eval.evaluate_table import Outcome, category_means
from mira_megatron.eval.scores import Score
from mira_megatron.eval.suite import load_suite

SUITE = Path(__file__).parents[3] / "eval/suites/mira9.yaml"


def score(name: str, percent: float) -> Score:
    return Score(
        benchmark=name,
        num_tasks=1,
        num_samples=1,
        pass_at_1=percent,
        counts={},
        reasons={},
        num_unknown=0,
    )


def test_category_takes_the_headline_rule_and_is_missing_without_all_its_benchmarks() -> None:
    suite = load_suite(SUITE)
    spider = [score("spider", 40), score("spider_strict", 0), score("spider_bird", 100)]
    outcomes = [
        Outcome(entry=suite.entry("spider"), scores=spider),
        Outcome(entry=suite.entry("bird"), scores=[score("bird", 60), score("bird_strict", 0)]),
        Outcome(entry=suite.entry("mbpp"), scores=[score("mbpp", 80), score("mbpp_plus", 60)]),
    ]
    means = category_means(suite, outcomes)
    assert means == {"code_generation": None, "multipl_e": None, "sql": 50.0}
