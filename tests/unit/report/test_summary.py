from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_run import ARM, HELD_OUT, SmallRecord, write_recipe, write_report, write_run

from mira_megatron.config import Recipe
from mira_megatron.report.summary import print_status, print_summary
from mira_megatron.stage import Unit

RECORDS = [
    HELD_OUT,
    *(SmallRecord(text=f"text {number}", score=float(number)) for number in range(1, 8)),
]


def printed_summary(recipe: Recipe, *, width: int = 80, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_summary(Console(file=file, width=width), recipe)
    file.seek(0)
    return file.read()


def printed_status(recipe: Recipe, states: list[tuple[Unit, str]], *, width: int = 80) -> str:
    file = io.StringIO()
    print_status(Console(file=file, width=width), recipe, states)
    return file.getvalue()


def unit_of(folder: str, *, stage: str = "ingest", name: str = "wiki") -> Unit:
    return Unit(stage=stage, name=name, folder=folder, version=1, config={})


def row_of(text: str, first_word: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [first_word]]
    return line.split()


def test_summary_of_a_finished_run_shows_sources_training_and_paths(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS, "qa": RECORDS[:2]}, budget_tokens=45)
    write_report(recipe)
    text = printed_summary(recipe)
    assert row_of(text, "wiki") == ["wiki", "text-wiki", "8", "80", "30", "37.5%", "4.12"]
    assert row_of(text, "all") == ["all", "10", "100", "30", "30.0%", "3.90"]
    assert "Training: 10 steps, loss 7.25 -> 5.12, validation loss 5.50 (nats per token)" in text
    assert f"Report: {recipe.run_folder}/report/index.html\n" in text
    assert f"Blend: {recipe.run_folder}/blends/{ARM}/blend.json\n" in text


def test_recipe_that_ends_with_selections_has_a_page_of_them(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS}, budget_tokens=45)
    values = {name: of for name, of in recipe.values.items() if name not in ("blend", "midtrain")}
    recipe = replace(recipe, values=values)
    shutil.rmtree(recipe.run_folder / "blends")
    write_report(recipe)
    text = printed_summary(recipe)
    assert f"Selection: {recipe.run_folder}/keep/{ARM}/selection.json\n" in text
    assert f"Report: {recipe.run_folder}/report/index.html\n" in text
    assert "Blend" not in text


def test_summary_of_a_run_not_started_says_what_is_missing(tmp_path: Path) -> None:
    text = printed_summary(write_recipe(tmp_path, ["wiki"]))
    assert row_of(text, "wiki") == ["wiki", "text-wiki", "n/a", "n/a", "n/a", "n/a", "n/a"]
    assert "Training: not done yet" in text
    assert "Report: not written yet" in text


def test_summary_of_scores_that_are_all_zero_has_a_mean(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": [SmallRecord(text="x", score=0.0, is_validation=True)]})
    assert row_of(printed_summary(recipe), "wiki")[-1] == "0.00"


@pytest.mark.parametrize("width", [50, 80])
def test_summary_on_a_narrow_terminal_keeps_numbers_whole(tmp_path: Path, width: int) -> None:
    long_name = "a_source_with_a_long_name_that_must_fold_somewhere"
    recipe = write_run(tmp_path, {long_name: RECORDS}, budget_tokens=20)
    lines = printed_summary(recipe, width=width).splitlines()
    in_table = [
        line for line in lines if not line.startswith(("Training", "Blend", "Report", "Rubric"))
    ]
    assert max(len(line) for line in in_table) <= width
    assert any({"8", "80", "20", "25.0%", "4.12"} <= set(line.split()) for line in lines)


def test_summary_can_be_printed_where_only_ascii_can(tmp_path: Path) -> None:
    assert "wiki" in printed_summary(write_recipe(tmp_path, ["wiki"]), encoding="ascii")


def test_status_shows_counts_sizes_and_times_of_finished_units(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS})
    done, waiting = unit_of("records/wiki"), unit_of("records/none", name="none")
    text = printed_status(recipe, [(done, "done"), (waiting, "waiting")])
    first, second = [line.split() for line in text.splitlines() if "ingest" in line]
    assert first[:5] == ["ingest", "wiki", "done", "8", "8"]
    assert first[-2:] == ["kB", "1.5"]
    assert second == ["ingest", "none", "waiting"]


def test_status_explains_states_that_need_a_decision(tmp_path: Path) -> None:
    text = printed_status(write_recipe(tmp_path, ["wiki"]), [(unit_of("x"), "different")])
    assert "1 different: made with other settings" in text


def test_names_in_square_brackets_are_not_markup(tmp_path: Path) -> None:
    name = "[red]a[/red][/]"
    text = printed_status(write_recipe(tmp_path, ["wiki"]), [(unit_of("x", name=name), "waiting")])
    assert name in text
