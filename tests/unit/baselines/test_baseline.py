from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from baseline_runs import recipe_over, run_baselines, scores_of

TEXTS = [f"text {number}" for number in range(30)]


def test_random_scores_belong_to_records_not_to_their_order(tmp_path: Path) -> None:
    found = []
    for name, texts in (("one", TEXTS), ("two", [*TEXTS[::-1], "one more"])):
        folder = tmp_path / name
        folder.mkdir()
        recipe = recipe_over(folder, {"s": texts}, {"random": {"method": "random"}})
        run_baselines(recipe)
        found.append(scores_of(recipe, "random", "s"))
    assert {text: found[1][text] for text in TEXTS} == found[0]
    scores = [score for score, _ in found[0].values() if score is not None]
    assert len(set(scores)) == len(TEXTS)
    assert 0.3 < sum(scores) / len(scores) < 0.7  # uniform: the mean is 0.5, its error 0.05


def test_random_orders_of_two_names_and_two_seeds_differ(tmp_path: Path) -> None:
    baselines = {name: {"method": "random"} for name in ("a", "b")}
    recipe = recipe_over(tmp_path, {"s": TEXTS}, baselines)
    run_baselines(recipe)
    other = replace(recipe, seed=8, run_folder=tmp_path / "other")
    run_baselines(other)
    orders = [scores_of(recipe, name, "s") for name in ("a", "b")] + [scores_of(other, "a", "s")]
    assert (
        len({tuple(sorted(order, key=lambda text: order[text][0] or 0)) for order in orders}) == 3
    )


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        ({"b": {"method": "dsri"}}, "method='dsri' must be one of random, dsir"),
        ({"b": {"target": "x"}}, "method=None must be one of"),
        ({"b": "random"}, "method='random' must be one of"),
        ({"b": {"method": "random", "seed": 3}}, "unknown key 'seed'"),
        ({"b": {"method": "dataman", "engine": "endpoint"}}, "needs"),
    ],
)
def test_baseline_that_is_wrong_is_named(
    tmp_path: Path, baselines: dict[str, Any], message: str
) -> None:
    recipe = recipe_over(tmp_path, {"s": TEXTS}, baselines)
    with pytest.raises(ValueError, match=r"baselines\.b") as refused:
        run_baselines(recipe)
    assert message in str(refused.value)


def test_name_of_the_aggregated_scores_is_refused(tmp_path: Path) -> None:
    recipe = recipe_over(tmp_path, {"s": TEXTS}, {"mine": {"method": "random"}})
    values = {
        **recipe.values,
        "aggregate": {"scoring": "mine", "trim_fraction": 0.1, "min_slots": 5},
    }
    with pytest.raises(ValueError, match="makes a score table of this name"):
        run_baselines(replace(recipe, values=values))
