from __future__ import annotations

import shutil
from pathlib import Path

from small_run import HELD_OUT, SmallRecord, write_report, write_run
from small_scorers import with_masks, with_scorers, write_mask, write_reliability, write_scorer
from test_page import HOSTILE, Outline

from mira_megatron.config import Recipe
from mira_megatron.report import report
from mira_megatron.report.judge_names import judge_names
from mira_megatron.rubric.prompt_form import FULL, PromptForm

RECORDS = [HELD_OUT, SmallRecord(text="one", score=6.0), SmallRecord(text="two", score=3.0)]


def scored_run(folder: Path, *, form: PromptForm | None = None, model: str = "m") -> Recipe:
    recipe = with_scorers(write_run(folder, {"wiki": RECORDS}))
    if form is None:
        write_scorer(recipe.run_folder, "text-wiki")
    else:
        write_scorer(recipe.run_folder, "text-wiki", form=form, is_trained_here=False)
    write_reliability(recipe.run_folder, "wiki", model=model)
    return recipe


def page_text(recipe: Recipe) -> str:
    return " ".join(Outline(write_report(recipe)).text.split())


def test_page_says_of_a_scorer_what_it_is_and_how_training_went(tmp_path: Path) -> None:
    page = write_report(scored_run(tmp_path))
    for term, value in (
        ("Rates", "wiki"),
        ("Parameters", "1,384"),
        ("Reads", "the record alone, of a record up to 320 tokens"),
        ("Writes", "a score per anchor"),
        ("Taught", "8 steps, 4,321 tokens of answers"),
        ("Validation loss", "6.500 → 2.500"),
        ("Served as", "<code>mira-rule_judge-text-wiki</code>"),
    ):
        assert f"<dt>{term}</dt><dd>{value}</dd>" in page
    assert "Loss over 8 steps. Training: 2.25 at step 8, 2.25 at step 8. Validation: 6.50" in page


def test_page_of_a_scorer_trained_on_a_cluster_has_no_curve(tmp_path: Path) -> None:
    text = page_text(scored_run(tmp_path, form=FULL))
    assert "the instructions, the anchors with calibration references, and the record" in text
    assert "on a cluster; its curves are there" in text
    assert "Losses of the scorer" not in text


def test_page_marks_the_anchors_that_a_scorer_follows_in_words_too(tmp_path: Path) -> None:
    page = write_report(scored_run(tmp_path))
    outline = Outline(page)
    tiles = [attrs for tag, attrs in outline.tags if "tile" in str(attrs.get("class"))]
    assert ["keep" in str(attrs["class"]) for attrs in tiles[:4]] == [True, True, True, False]
    assert [attrs["style"] for attrs in tiles[4:7]] == [
        *("--rho: 25%; --mae: 42%", "--rho: 0%; --mae: 42%", "--rho: 0%; --mae: 42%"),
    ]
    shown = "A3 Anchor 3: Spearman 0.40 (0.30 to 0.50), error 1.25 (1.00 to 1.50), n 50"
    assert tiles[2]["title"] == shown
    text = " ".join(outline.text.split())
    assert "wiki 0.901.25 K 0.501.25 K 0.401.25 K 0.451.25 · 0.251.25 · n/a1.25 ·" in text
    error = "1.25 (1.00 to 1.50)"
    assert f"A3 Anchor 3 50 {error} 0.40 (0.30 to 0.50) 0.30 yes A4 Anchor 4 50 {error}" in text
    assert "0.45 (0.35 to 0.55) -0.60 no: not above" in text
    assert "n/a 0.10 no: the scorer gave every record the same score" in text
    assert "wiki: follows on 3 anchors with 2 names; 50 records, 96.0% of the answers read" in text


def test_decisions_are_those_of_the_score_table_that_masks(tmp_path: Path) -> None:
    recipe = scored_run(tmp_path)
    write_mask(recipe.run_folder, "wiki", ["keep"] * 15, [False] * 15, scoring="another")
    assert ">Masked</th>" not in write_report(
        recipe
    )  # nothing is masked by a recipe that does not ask
    decisions = ["masked", *["undecided"] * 14]
    write_mask(recipe.run_folder, "wiki", decisions, [True] * 3 + [False] * 12)
    page = write_report(with_masks(recipe))
    text = " ".join(Outline(page).text.split())
    assert "0.901.25 M 0.501.25 U" in text
    assert "3 of 15 3" in text  # followed, and masked: two of them undecided
    assert "n 50, undecided: masked" in page
    assert text.count("undecided: masked") == 2  # in the table in full


def test_page_names_who_answered_in_the_comparison(tmp_path: Path) -> None:
    assert "rated by the rule judge (measurable features, no model), anchor by anchor" in (
        page_text(scored_run(tmp_path, model="rule-judge-2"))
    )


def test_page_counts_the_recipe_s_own_scorers_and_names_other_models() -> None:
    own = ["mira-a", "mira-b"]
    assert judge_names(["mira-b", "mira-a"], own) == "the recipe’s own 2 scorers"
    assert judge_names(["org/judge", "mira-a"], own) == (
        "the recipe’s own scorer and the model org/judge"
    )
    assert judge_names(["mira-a"], []) == "the model mira-a"


def test_page_of_a_scored_run_says_whose_scorer_it_was(tmp_path: Path) -> None:
    text = page_text(scored_run(tmp_path, model="mira-rule_judge-text-wiki"))
    assert "no scorer was taught with, rated by the recipe’s own scorer, anchor by anchor" in text


def test_page_of_a_recipe_without_labels_and_scorers_says_nothing_of_them(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS})
    page = write_report(recipe)
    assert "Scorer" not in page
    assert "Reliability" not in page


def test_page_with_hostile_names_in_the_comparison_gets_no_markup(tmp_path: Path) -> None:
    recipe = scored_run(tmp_path)
    shutil.rmtree(recipe.run_folder / "reliability")
    write_reliability(recipe.run_folder, "wiki", names=[HOSTILE] * 15, model=HOSTILE)
    outline = Outline(write_report(recipe))
    assert (outline.unbalanced, outline.open) == ([], [])
    tags = [tag for tag, _ in outline.tags]
    assert (tags.count("script"), tags.count("img")) == (3, 0)
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]
    assert outline.text.count("<script>alert('x')</script>") == 16


def test_page_with_decisions_marks_them_by_letter_and_shows_intervals(tmp_path: Path) -> None:
    recipe = scored_run(tmp_path)
    decisions = ("keep", "masked", "undecided", "too_few", *["masked"] * 11)
    write_mask(recipe.run_folder, "wiki", decisions, [each == "masked" for each in decisions])
    outline = Outline(write_report(with_masks(recipe)))
    tiles = [attrs for tag, attrs in outline.tags if "tile" in str(attrs.get("class"))]
    assert [str(attrs["class"]).split()[1] for attrs in tiles[:4]] == list(decisions[:4])
    assert tiles[1]["title"] == (
        "A2 Anchor 1: Spearman 0.50 (0.40 to 0.60), error 1.25 (1.00 to 1.50), n 50, masked"
    )
    text = " ".join(outline.text.split())
    assert "0.901.25 K 0.501.25 M 0.401.25 U 0.451.25 F" in text
    assert "3 of 15 12" in text  # followed, and masked
    assert "50 1.25 (1.00 to 1.50) 0.45 (0.35 to 0.55) -0.60" in text


def test_page_with_scorers_is_balanced_and_described(tmp_path: Path) -> None:
    outline = Outline(write_report(scored_run(tmp_path)))
    assert (outline.unbalanced, outline.open) == ([], [])
    names = [tag for tag, _ in outline.tags]
    assert names.count("table") == names.count("caption")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in outline.tags if tag == "th")
    ids = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    assert {"#scorers", "#reliability"} <= {f"#{name}" for name in ids} & {
        str(attrs["href"]) for tag, attrs in outline.tags if tag == "a"
    }


def test_report_reads_scorers_and_reliability_where_the_recipe_makes_them(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS})
    (without,) = report.units(recipe)
    (with_both,) = report.units(with_scorers(recipe))
    assert set(with_both.upstream) - set(without.upstream) == {
        *("scorers/rule_judge/text-wiki", "reliability/rule_judge/wiki"),
    }
