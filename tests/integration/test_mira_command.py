"""The command line: what a user does wrong is named in one message; what is done stays done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from jsonl_corpora import text_source, write_jsonl, write_recipe
from smoke_runs import (
    ARM,
    SMOKE,
    STAGES,
    assert_done,
    assert_refused,
    before,
    copy_stages,
    ended,
    mira,
    smoke,
    stamps,
)

GOOD_ROWS = [{"text": f"This is the text of line {number}."} for number in range(1, 31)]
BAD_ROWS = {4: "{not json", 9: '{"no_text": 1}', 17: '{"text": 5}', 23: "[1]"}


@pytest.fixture
def damaged_recipe(tmp_path: Path) -> Path:
    """A recipe over one jsonl file, four of whose thirty lines are no records."""
    rows = [BAD_ROWS.get(line, row) for line, row in enumerate(GOOD_ROWS, start=1)]
    source = text_source(write_jsonl(tmp_path / "raw" / "notes.jsonl", rows))
    return write_recipe(tmp_path / "damaged.yaml", {"notes": source}, ["notes"])


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["tokenise.eod_token=x"], ["unknown section 'tokenise'", "Did you mean 'tokenize'?"]),
        (["blend.sequence_lenght=64"], ["'sequence_lenght'", "Did you mean 'sequence_length'?"]),
        (["sources.modules.max_record=3"], ["'max_record'", "Did you mean 'max_records'?"]),
        (["midtrain.training.lr=1"], ["midtrain.training", "unknown key 'lr'"]),
        (["distill.training.lr=1"], ["distill.training", "unknown key 'lr'"]),
        (["distill.anwsers=full"], ["distill", "Did you mean 'answers'?"]),
        ([f"arms.{ARM}.scop=group"], [f"arms.{ARM}", "Did you mean 'scope'?"]),
        (["ingest.records_per_part=many"], ["records_per_part", "many"]),
        (["ingest.records_per_part=2.5"], ["records_per_part=2.5", "whole number"]),
        (["seed=high"], ["seed='high'", "whole number"]),
        (["blend"], ["'blend': expected key=value"]),
        (["sources.modlues.max_records=3"], ["sources.modlues"]),
        (["sources=null"], ["no sources"]),
        (["tokenize.train_on=[wiki]"], ["tokenize.train_on names wiki", "modules, questions"]),
        (["arms.bad/name={score: smoke, scope: group}"], ["arms", "'bad/name'"]),
        (
            ["arms.two={score: smoke, scope: group, budget_tokens: 5, budget_fraction: 0.5}"],
            ["exactly one of"],
        ),
    ],
)
def test_setting_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, overrides: list[str], named: list[str]
) -> None:
    refused = mira("run", SMOKE, f"run_folder={tmp_path / 'run'}", *overrides)
    assert_refused(refused, *named)
    assert not (tmp_path / "run" / "records").exists()


def test_source_given_on_the_command_line_is_read_from_the_working_directory(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path / "notes.jsonl", GOOD_ROWS)
    run = tmp_path / "run"
    source = "{format: jsonl, family: text, paths: [notes.jsonl], fields: {text: text}}"
    words = ["ingest", SMOKE, f"run_folder={run}", f"sources={{notes: {source}}}"]
    only_notes = ["tokenize.train_on=[notes]", "--workers=1"]
    code = f"import os, sys; os.chdir({str(tmp_path)!r}); from mira_megatron.cli import main; "
    command = [sys.executable, "-c", f"{code}sys.exit(main(sys.argv[1:]))"]
    assert_done(ended([*command, *words, *only_notes]))
    assert json.loads((run / "records/notes/manifest.json").read_text())["counts"]["num_out"] == 30


def test_recipe_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert_refused(mira("run", tmp_path / "none.yaml"), f"{tmp_path / 'none.yaml'}: no such file")


def test_recipe_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("sources: [unclosed\n")
    assert_refused(mira("run", path), f"{path}: not YAML")


def test_raw_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    source = text_source(tmp_path / "gone.jsonl")
    recipe = write_recipe(tmp_path / "recipe.yaml", {"notes": source}, ["notes"])
    assert_refused(mira("run", recipe), f"{tmp_path / 'gone.jsonl'}")


def test_source_with_too_many_malformed_rows_is_refused_with_file_and_line(
    damaged_recipe: Path, tmp_path: Path
) -> None:
    refused = mira("ingest", damaged_recipe)
    assert_refused(refused, "4 of 30 rows are malformed", "notes.jsonl:4: invalid_json")
    assert_refused(refused, "ingest.max_bad_fraction=0.01")
    listed = (tmp_path / "damaged/records/notes/dropped.jsonl").read_text().splitlines()
    origins = [json.loads(line)["origin"] for line in listed]
    assert origins == [f"notes.jsonl:{line}" for line in BAD_ROWS]


def test_source_with_malformed_rows_is_ingested_when_they_are_allowed(
    damaged_recipe: Path, tmp_path: Path
) -> None:
    assert_refused(mira("ingest", damaged_recipe))
    assert_done(mira("ingest", damaged_recipe, "ingest.max_bad_fraction=0.2"))
    manifest = json.loads((tmp_path / "damaged/records/notes/manifest.json").read_text())
    assert manifest["counts"]["num_in"] == 30
    assert manifest["counts"]["num_out"] == 26
    reasons = {"invalid_json": 1, "missing_field": 1, "wrong_type": 1, "not_an_object": 1}
    assert manifest["counts"]["dropped"] == reasons


def test_raw_file_that_changed_after_the_run_is_read_again(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", GOOD_ROWS)
    recipe = write_recipe(tmp_path / "run.yaml", {"notes": text_source(path)}, ["notes"])
    assert_done(mira("ingest", recipe))
    assert_done(mira("group", recipe))
    write_jsonl(path, GOOD_ROWS[:-1])
    # Later stages work from the records: a node that trains need not see the raw files.
    assert_done(mira("discover", recipe))
    assert_done(mira("ingest", recipe))
    records = tmp_path / "run/records"
    assert json.loads((records / "notes/manifest.json").read_text())["counts"]["num_out"] == 29
    assert len(list(records.glob("notes.superseded-*"))) == 1


def test_stage_before_its_inputs_says_what_to_run_first(tmp_path: Path) -> None:
    assert_refused(smoke("group", tmp_path / "run"), "not finished", "mira run")
    assert_refused(smoke("anchor", tmp_path / "run"), "no source groups yet", "`mira group ")
    assert_refused(smoke("distill", tmp_path / "run"), "no source groups yet", "`mira group ")
    assert_refused(smoke("select", tmp_path / "run"), "no source groups yet", "`mira group ")


def test_scorer_stage_before_its_inputs_names_the_folder_that_is_not_finished(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("label"))
    made = stamps(run)
    for stage, folder in (
        ("sft-data", "teacher_ratings/smoke/traces"),
        ("distill", "sft/smoke/agent-python"),
        ("reliability", "teacher_ratings/smoke/traces"),
    ):
        assert_refused(smoke(stage, run), f"{run / folder}, which is not finished", "`mira run`")
    assert stamps(run) == made


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["ingest", "--help"]]
)
def test_help_is_given(words: list[str]) -> None:
    helped = ended([sys.executable, "-m", "mira_megatron.cli", *words])
    assert_done(helped)
    assert "mira" in helped.output


@pytest.mark.parametrize("words", [[], ["ingset"], ["ingest"]])
def test_words_that_are_no_command_are_refused(words: list[str]) -> None:
    assert_refused(ended([sys.executable, "-m", "mira_megatron.cli", *words]), "usage: mira")


def test_run_repeated_says_already_done_and_changes_no_byte(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", STAGES)
    made = stamps(run)
    again = smoke("run", run)
    assert_done(again)
    assert again.output.count("already done") == sum(
        name.endswith("manifest.json") for name in made
    )
    assert stamps(run) == made


@pytest.mark.parametrize("words", [["status"], ["run", "--dry-run"]])
def test_looking_changes_nothing(finished_run: Path, tmp_path: Path, words: list[str]) -> None:
    run = copy_stages(finished_run, tmp_path / "run", STAGES[:3])
    made = stamps(run)
    assert_done(smoke(words[0], run, *words[1:]))
    assert stamps(run) == made


@pytest.mark.parametrize(
    ("stage", "section"),
    [("group", "`group`"), ("midtrain", "`midtrain`"), ("report", "`arms` or `select`")],
)
def test_stage_without_its_section_says_that_it_has_nothing_to_do(
    tmp_path: Path, stage: str, section: str
) -> None:
    source = text_source(write_jsonl(tmp_path / "notes.jsonl", GOOD_ROWS))
    recipe = tmp_path / "recipe.yaml"
    ingest = {"records_per_part": 10, "max_bad_fraction": 0.01}
    sections = {"run_folder": str(tmp_path / "run"), "sources": {"notes": source}, "ingest": ingest}
    recipe.write_text(json.dumps(sections))
    done = mira(stage, recipe)
    assert_done(done)
    assert f"{stage} has nothing to do without a section {section}" in done.output


def test_stage_with_work_does_not_say_that_it_has_nothing_to_do(damaged_recipe: Path) -> None:
    assert "nothing to do" not in mira("ingest", damaged_recipe).output
