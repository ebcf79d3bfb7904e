"""What undecided anchors would change, on the page and on the terminal."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from masked_runs import ARM as MASKED_ARM
from masked_runs import COUNTS, MASKED, OPEN_COUNTS, OPEN_MASKED, Rated, RatedSource, flipped, made
from rich.console import Console
from small_run import ANCHORS, ARM, HELD_OUT, SmallRecord, write_report, write_run
from small_scorers import with_masks, with_scorers, write_mask, write_reliability, write_scorer
from test_page import HOSTILE, Outline

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.report import report
from mira_megatron.report.selection_words import selection_sentences
from mira_megatron.report.sensitivity_section import masked_arms, read_sensitivities
from mira_megatron.report.summary import print_summary

# By A2 to A6 the second is better, with A1 the first one.
RECORDS = [
    HELD_OUT,
    SmallRecord(text="one", score=5.0, ratings=(10.0, *[5.0] * 14)),
    SmallRecord(text="two", score=5.5, ratings=(5.5,) * 15),
]
DECISIONS = ["undecided", *["keep"] * 5, *["masked"] * 9]
IS_MASKED = [True, *[False] * 5, *[True] * 9]


def run_of(
    folder: Path,
    decisions: list[str] = DECISIONS,
    names: tuple[str, ...] = ANCHORS,
) -> Recipe:
    recipe = with_scorers(write_run(folder, {"wiki": RECORDS}, budget_tokens=10))
    write_scorer(recipe.run_folder, "text-wiki")
    write_reliability(recipe.run_folder, "wiki", names=names)
    write_mask(recipe.run_folder, "wiki", decisions, IS_MASKED)
    return with_masks(recipe)


def text_of(page: str) -> str:
    return " ".join(Outline(page).text.split())


def test_page_tells_what_an_undecided_anchor_would_change(tmp_path: Path) -> None:
    text = text_of(write_report(run_of(tmp_path)))
    assert f"Undecided anchors of arm {ARM}" in text
    changed = "1 record (10 tokens) 1 record (10 tokens) 100.0% wiki +1 −1"
    estimates = "1.25 (1.00 to 1.50) 0.90 (0.80 to 1.00)"
    assert f"wiki A1 Anchor 1 {estimates} masked {changed}" in text
    assert f"all of them at once {changed}" in text


def test_undecided_anchors_that_change_most_are_told_first(tmp_path: Path) -> None:
    documents = (
        Rated(num_tokens=1, ratings=(5, 5, 5, 7)),
        Rated(num_tokens=2, ratings=(5, 5, 1, 4)),
        Rated(num_tokens=4, ratings=(6, 6, 2, 0)),
    )
    cells = (COUNTS, COUNTS, OPEN_MASKED, OPEN_COUNTS)
    wiki = RatedSource(group="text-prose", cells=cells, documents=documents)
    recipe = made(tmp_path, {"wiki": wiki}, {"budget_tokens": 4})
    flipped(recipe)
    (found,) = read_sensitivities(recipe.run_folder, [MASKED_ARM])
    assert [(row["anchor_id"], row["changed_fraction"]) for row in found.cells] == [
        ("A4", 1.0),
        ("A3", 0.0),
    ]
    assert found.joint is not None
    assert found.joint["changed_fraction"] == 2 / 3


def test_masked_arms_are_those_of_the_score_table_that_is_masked() -> None:
    tables = {"own": "s", "adopted": "given"}
    assert masked_arms(tables, "s") == ("own",)
    assert masked_arms(tables, None) == ()


def test_page_without_an_undecided_anchor_says_so(tmp_path: Path) -> None:
    text = text_of(write_report(run_of(tmp_path, ["masked", *DECISIONS[1:]])))
    assert f"Undecided anchors of arm {ARM} No anchor of a source that the arm ranks is" in text


def test_page_of_a_recipe_without_masks_says_nothing_of_undecided_anchors(tmp_path: Path) -> None:
    recipe = with_scorers(write_run(tmp_path, {"wiki": RECORDS}))
    write_scorer(recipe.run_folder, "text-wiki")
    write_reliability(recipe.run_folder, "wiki")
    assert "Undecided anchors" not in write_report(recipe)
    (unit,) = report.units(recipe)
    assert layout.sensitivity(ARM) not in unit.upstream


def test_page_gets_no_markup_from_the_names_of_undecided_anchors(tmp_path: Path) -> None:
    page = write_report(run_of(tmp_path, names=(HOSTILE,) * 15))
    outline = Outline(page)
    assert (outline.unbalanced, outline.open) == ([], [])
    assert "img" not in [tag for tag, _ in outline.tags]
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]


@pytest.mark.parametrize(
    ("decisions", "line"),
    [
        (
            DECISIONS,
            "Undecided anchors: 1; the other way round one changes at most 100.0% of the kept "
            "tokens, all at once 100.0%",
        ),
        (["masked", *DECISIONS[1:]], "Undecided anchors: none"),
    ],
)
def test_summary_has_a_line_about_undecided_anchors(
    tmp_path: Path, decisions: list[str], line: str
) -> None:
    recipe = run_of(tmp_path, decisions)
    console = Console(width=100, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    print_summary(console, recipe)
    assert line in console.export_text()


def test_summary_before_the_stage_is_run_says_so(tmp_path: Path) -> None:
    recipe = run_of(tmp_path)
    (recipe.run_folder / layout.sensitivity(ARM) / "manifest.json").unlink()
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    print_summary(console, recipe)
    assert "Undecided anchors: not flipped yet" in console.export_text()


def test_selection_is_told_with_masks_that_are_not_alike(tmp_path: Path) -> None:
    documents = tuple(Rated(num_tokens=10, ratings=(score, score)) for score in (9, 5))
    sources = {
        name: RatedSource(group="text-prose", cells=cells, documents=documents)
        for name, cells in {"books": (COUNTS, COUNTS), "wiki": (COUNTS, MASKED)}.items()
    }
    recipe = made(tmp_path, sources, {"budget_fraction": 0.5})
    path = recipe.run_folder / layout.keep(MASKED_ARM) / layout.CERTIFICATE
    told = selection_sentences(orjson.loads(path.read_bytes()))
    assert told[-1].startswith("Sources of text-prose are ranked together under unlike reliability")
    assert "wiki A2, A3" in told[-1]
