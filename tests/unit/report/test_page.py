from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_run import ARM, HELD_OUT, SmallRecord, finish, write_report, write_run

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.records import NUM_SLOTS
from mira_megatron.report import report
from mira_megatron.report.judge_names import judge_name
from mira_megatron.stage import Run, unit_state

VOID = {"meta", "link", "br", "line", "rect", "circle", "polyline", "input"}
RECORDS = [
    HELD_OUT,
    *(SmallRecord(text=f"text {number}", score=float(number)) for number in range(1, 8)),
]
HOSTILE = (
    "</pre></style></details><script>alert('x')</script><img src=x onerror=alert(1)>"
    "\" onmouseover='alert(2)' {{ 7*7 }} \x00\x1b[31m\u202egnp.exe\u2066 &lt;b&gt;"
)


class Outline(HTMLParser):
    """The tags of a page, its text, and every tag that is not closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th") else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_page(folder: Path) -> str:
    kept = SmallRecord(
        text=HOSTILE, score=9.0, origin=HOSTILE, meta=HOSTILE, rationale=HOSTILE, model=HOSTILE
    )
    failed = SmallRecord(text=HOSTILE, score=None, reason="failed", rationale=HOSTILE)
    bad_row = {"origin": HOSTILE, "reason": "not_json", "detail": HOSTILE}
    sources = {"wiki": [kept, HELD_OUT, failed]}
    return write_report(write_run(folder, sources, bad_rows=[bad_row]))


def test_page_is_balanced_html_with_described_figures_and_tables(tmp_path: Path) -> None:
    outline = Outline(write_report(write_run(tmp_path, {"wiki": RECORDS, "qa": RECORDS})))
    assert (outline.unbalanced, outline.open) == ([], [])
    names = [tag for tag, _ in outline.tags]
    assert names.count("table") == names.count("caption") > 0
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in outline.tags if tag == "th")
    assert all(
        attrs.get("aria-label") if attrs.get("role") == "img" else attrs.get("aria-hidden")
        for tag, attrs in outline.tags
        if tag == "svg"
    )
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a"]
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} >= set(links)


def test_page_with_hostile_records_gets_no_markup_from_them(tmp_path: Path) -> None:
    outline = Outline(hostile_page(tmp_path))
    assert (outline.unbalanced, outline.open) == ([], [])
    scripts = [attrs for tag, attrs in outline.tags if tag == "script"]
    assert [attrs.get("id") for attrs in scripts] == ["what-if-data", "records-data", None]
    assert "img" not in [tag for tag, _ in outline.tags]
    attributes = {name for _, attrs in outline.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on")]
    assert outline.text.count("<script>alert('x')</script>") >= 5
    assert "{{ 7*7 }}" in outline.text


def test_page_shows_control_and_direction_characters_as_signs(tmp_path: Path) -> None:
    page = hostile_page(tmp_path)
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page) == []
    assert "\u2400\u241b[31m[U+202E]gnp.exe[U+2066]" in page


def test_page_of_a_recipe_that_trains_nothing_has_no_training(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS})
    shutil.rmtree(recipe.run_folder / "checkpoints")
    values = {name: value for name, value in recipe.values.items() if name != "midtrain"}
    page = write_report(replace(recipe, values=values))
    assert f"Arm {ARM} keeps" in page
    assert "Training" not in page
    assert "loss" not in page


def test_page_shows_the_instruction_tuning_of_a_recipe_that_has_one(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS})
    assert "Instruction tuning" not in write_report(recipe)
    values = {**recipe.values, "instruct_sft": {}}
    folder = recipe.run_folder / layout.instruct(ARM)
    log = [{"step": 0, "eval_loss": 4.5}, {"step": 3, "loss": 3.375}]
    state = {"global_step": 3, "max_steps": 3, "num_train_tokens": 88, "log_history": log}
    write_json(folder / "trainer_state.json", state)
    finish(folder, "instruct-sft", ARM)
    page = Outline(write_report(replace(recipe, values=values))).text
    text = " ".join(page.split())
    assert "on what every arm is tuned on: 3 steps, 88 tokens of answers." in text
    assert "conversations kept out of it. Step Loss Nats per token 3 training 3.3750" in text
    assert "0 validation 4.5000" in text


def test_page_shows_the_anchors_of_every_group(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, {"wiki": RECORDS, "qa": RECORDS}))
    assert "Group text-wiki" in page
    assert page.count("half of it") == 2 * NUM_SLOTS  # the example of every anchor


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, {"wiki": RECORDS}))
    outline = Outline(page)
    targets = [
        value or ""
        for _, attrs in outline.tags
        for name, value in attrs.items()
        if name in ("src", "href", "action", "data", "xlink:href")
    ]
    assert [target for target in targets if not target.startswith("#")] == ["data:,"]
    assert re.findall(r"@import|url\((?!#)", page) == []
    assert "default-src 'none'" in page


def test_page_is_the_same_in_another_folder(tmp_path: Path) -> None:
    first, second = (
        write_report(write_run(tmp_path / name, {"wiki": RECORDS})) for name in ("a", "b")
    )
    assert first == second
    assert str(tmp_path) not in first


def test_page_says_who_judged_what_was_kept_and_how_training_went(tmp_path: Path) -> None:
    outline = Outline(write_report(write_run(tmp_path, {"wiki": RECORDS})))
    text = " ".join(outline.text.split())
    assert (
        "8 records (80 tokens) from 1 source were judged by the rule judge (measurable features, "
        "no model). Arm mira_group keeps 25.0% of the tokens: 20 tokens in 2 records. Training on "
        "them for 10 steps took the loss from 7.25 to 5.12 nats per token; the validation loss "
        "ended at 5.50."
    ) in text
    assert "tiny-valid-0000aaaa 0 0 5" in text


def test_page_of_an_arm_that_keeps_nothing_is_written(tmp_path: Path) -> None:
    text = Outline(write_report(write_run(tmp_path, {"wiki": RECORDS}, budget_tokens=1))).text
    assert "0 records of 0, highest score first" in " ".join(text.split())
    assert "the budget of group text-wiki holds no document" in text


def test_page_names_malformed_rows_and_failed_ratings(tmp_path: Path) -> None:
    records = [*RECORDS, SmallRecord(text="x", score=None, reason="failed")]
    bad_row = {"origin": "a.jsonl:12", "reason": "not_json", "detail": "unexpected end"}
    recipe = write_run(tmp_path, {"wiki": records}, bad_rows=[bad_row])
    text = " ".join(Outline(write_report(recipe)).text.split())
    assert "wiki 10 9 not_json 1 a.jsonl:12: not_json (unexpected end)" in text
    assert "wiki failed 1 timed out" in text


def test_page_is_remade_when_training_went_on(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS})
    first = write_report(recipe)
    (unit,) = report.units(recipe)
    assert unit_state(unit, Run(folder=recipe.run_folder)) == "done"
    checkpoints = recipe.run_folder / layout.checkpoints(ARM)
    log = [{"step": 20, "loss": 3.0}]
    state = {"global_step": 20, "max_steps": 20, "num_train_tokens": 1, "log_history": log}
    write_json(checkpoints / "trainer_state.json", state)
    finish(checkpoints, "midtrain", ARM)
    assert unit_state(unit, Run(folder=recipe.run_folder)) == "outdated"
    assert write_report(recipe) != first


def test_sources_csv_has_one_row_per_arm_and_source(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS, "qa": RECORDS[:2]})
    write_report(recipe)
    text = (recipe.run_folder / "report" / "sources.csv").read_text()
    qa, wiki = csv.DictReader(io.StringIO(text))
    assert (wiki["arm"], wiki["source"], qa["source"]) == (ARM, "wiki", "qa")
    assert (wiki["num_records"], wiki["tokens_kept"], wiki["mean_score"]) == ("8", "10", "4.125000")
    assert wiki["kept_token_fraction"] == "0.125000"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("rule-judge-1", "the rule judge (measurable features, no model)"),
        ("org/judge-8b", "the model org/judge-8b"),
    ],
)
def test_judge_is_named_as_what_it_is(model: str, name: str) -> None:
    assert judge_name(model) == name
