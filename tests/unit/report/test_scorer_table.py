from __future__ import annotations

from pathlib import Path

from small_run import write_recipe
from small_scorers import with_scorers, write_reliability
from test_summary import printed_summary, row_of


def test_summary_shows_how_far_each_scorer_follows_the_teacher(tmp_path: Path) -> None:
    recipe = with_scorers(write_recipe(tmp_path, ["answers", "chats"]))
    write_reliability(recipe.run_folder, "chats")
    scorers = printed_summary(recipe).partition("Scorers")[2]
    # 3 anchors of 2 names; medians over 15, of -0.10 and of sizes; 48 and 8 of 50 answers
    assert row_of(scorers, "chats") == [
        *("chats", "3", "(2)", "-0.10", "0.30", "96.0%", "16.0%", "expected", "50"),
    ]
    assert row_of(scorers, "answers") == ["answers", *["n/a"] * 7]


def test_scorer_table_fits_a_terminal(tmp_path: Path) -> None:
    recipe = with_scorers(write_recipe(tmp_path, ["docstring_qa", "doctest_traces"]))
    write_reliability(recipe.run_folder, "doctest_traces", rhos=[0.9] * 15)
    table = printed_summary(recipe, width=80).partition("Scorers")[2].partition("Follows:")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert row_of(table, "doctest_traces")[1:3] == ["15", "(14)"]


def test_summary_says_where_the_scorer_is_the_rule_judge(tmp_path: Path) -> None:
    recipe = with_scorers(write_recipe(tmp_path, ["answers", "chats"]))
    write_reliability(recipe.run_folder, "answers")
    assert "rule judge" not in printed_summary(recipe)
    write_reliability(recipe.run_folder, "chats", model="rule-judge-2")
    assert "Answered by the rule judge, no model: chats\n" in printed_summary(recipe)


def test_summary_of_a_recipe_without_labels_has_no_scorers(tmp_path: Path) -> None:
    assert "Scorers" not in printed_summary(write_recipe(tmp_path, ["wiki"]))
