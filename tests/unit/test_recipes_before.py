"""Recipes that come before another one: one makes the tokenizer that the next one reads."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path
from typing import Any

import pytest

from mira_megatron.cli import main
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import run_stages
from mira_megatron.recipes_before import (
    all_before,
    command_for,
    refuse_unfinished,
    run_before,
    unfinished_before,
)
from mira_megatron.stage import Resources

TOKENIZE = {"eod_token": "<|endoftext|>", "validation_fraction": 0.2, "validation_max_tokens": 100}
MADE_HERE = {**TOKENIZE, "tokenizer": None, "train_vocab_size": 300, "train_on": ["wiki"]}
READ = {**TOKENIZE, "tokenizer": "${before.first.run_folder}/tokenizer"}


def write_recipe(folder: Path, name: str, **sections: Any) -> Path:
    """Writes a recipe of ten records, with a run folder named after it."""
    rows = [{"text": f"Document {number} says {number * number}."} for number in range(10)]
    (folder / "wiki.jsonl").write_text("\n".join(map(json.dumps, rows)))
    wiki = {"format": "jsonl", "family": "text", "paths": ["wiki.jsonl"]}
    content = {
        "run_folder": str(folder / "runs" / name),
        "sources": {"wiki": {**wiki, "fields": {"text": "text"}}},
        "ingest": {"records_per_part": 5, "max_bad_fraction": 0},
        **sections,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The second of two recipes: what it is to tokenise with, the first one trains."""
    made = {**MADE_HERE, "train_chars": 1000}
    write_recipe(tmp_path, "first", tokenize=made)
    return write_recipe(tmp_path, "second", before=["first.yaml"], tokenize=READ)


def run_all(recipe: Recipe) -> None:
    run_before(recipe, Resources())
    run_stages(recipe, ["ingest", "tokenize"], Resources())


def is_done(folder: Path) -> bool:
    return read_manifest(folder) is not None


def test_run_makes_what_comes_before_first(pair: Path, tmp_path: Path) -> None:
    assert main(["run", str(pair), "--workers=1"]) == 0
    assert is_done(tmp_path / "runs/first/tokenizer")
    assert is_done(tmp_path / "runs/second/tokens/wiki")


def test_second_run_makes_nothing_anew(pair: Path, tmp_path: Path) -> None:
    run_all(load_recipe(pair))
    first = tmp_path / "runs/first/tokenizer/manifest.json"
    stamp = first.stat().st_mtime_ns
    run_all(load_recipe(pair))
    assert first.stat().st_mtime_ns == stamp
    assert unfinished_before(load_recipe(pair)) == []


def test_run_folder_given_for_the_first_is_where_the_second_looks(
    pair: Path, tmp_path: Path
) -> None:
    run_all(load_recipe(pair, [f"before.first.run_folder={tmp_path}/elsewhere"]))
    assert is_done(tmp_path / "elsewhere/tokenizer")
    assert not (tmp_path / "runs/first").exists()


def test_overrides_are_for_the_main_recipe_alone(pair: Path) -> None:
    recipe = load_recipe(pair, ["seed=5"])
    assert (recipe.seed, recipe.before[0].seed) == (5, 0)


def test_what_is_unfinished_is_told_with_the_command_for_it(pair: Path, tmp_path: Path) -> None:
    recipe = load_recipe(pair, [f"before.first.run_folder={tmp_path}/a b"])
    (left,) = unfinished_before(recipe)
    assert str(left) == f"{tmp_path}/first.yaml in {tmp_path}/a b: 3 of 3 units are not done"
    words = shlex.split(command_for(left.recipe, "run"))
    assert words[:2] == ["mira", "run"]
    same = load_recipe(Path(words[2]), words[3:])
    assert same.run_folder == tmp_path / "a b"
    run_stages(same, ["ingest"], Resources())
    assert "2 of 3 units" in str(unfinished_before(recipe)[0])


def test_submit_is_refused_before_the_first_is_done(pair: Path) -> None:
    with pytest.raises(ValueError, match=r"First `mira submit \S+first.yaml --cluster=c.yaml`"):
        refuse_unfinished(load_recipe(pair), "submit", "--cluster=c.yaml")
    run_all(load_recipe(pair))
    refuse_unfinished(load_recipe(pair), "submit", "--cluster=c.yaml")


@pytest.mark.parametrize("words", [["tokenize"], ["status"], ["run", "--dry-run"]])
def test_other_commands_name_what_is_missing_and_make_nothing(
    pair: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = words
    assert main([command, str(pair), *options]) == 2
    said = capsys.readouterr().err
    assert f"before second.yaml comes {tmp_path}/first.yaml" in said
    assert f"{tmp_path}/runs/first/tokenizer: no such file" in said
    assert not (tmp_path / "runs").exists()


def test_doctor_tells_what_comes_before_in_place_of_what_it_would_make(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(pair)]) == 0
    said = capsys.readouterr().out
    assert f"before this recipe comes {tmp_path}/first.yaml" in said
    assert "no such file" not in said
    run_before(load_recipe(pair), Resources())
    assert main(["doctor", str(pair)]) == 0
    assert "before this recipe" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"tokenize": {**READ, "eod_token": 3, "eod_tokenn": "x"}}, "eod_tokenn"),
        ({"select": {"budget": 1}, "arms": {"a": {"score": "s", "scope": "group"}}}, "budget"),
    ],
)
def test_what_is_wrong_with_the_second_is_said_before_the_first_is_run(
    pair: Path, tmp_path: Path, wrong: dict[str, Any], named: str
) -> None:
    sections = {"tokenize": READ, **wrong}
    path = write_recipe(tmp_path, "second", before=["first.yaml"], **sections)
    with pytest.raises(ValueError, match=named):
        run_before(load_recipe(path), Resources())
    assert not (tmp_path / "runs").exists()


def test_recipe_that_two_others_need_is_run_once(pair: Path, tmp_path: Path) -> None:
    third = write_recipe(tmp_path, "third", before=["second.yaml", "first.yaml"])
    names = [each.path.stem for each in all_before(load_recipe(third))]
    assert names == ["first", "second"]


def test_circle_is_refused_with_its_files(pair: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path, "first", before=["second.yaml"])
    with pytest.raises(ValueError, match=r"second.yaml needs \S+first.yaml needs \S+second.yaml"):
        load_recipe(pair)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (3, "must map names to recipes, or list their paths, got 3"),
        ([{"recipe": "first.yaml"}], "must map names to recipes"),
        (["first.yaml", "x/first.yaml"], "names two files alike"),
        ({"first": {"recip": "first.yaml"}}, r"before.first: unknown key 'recip'.*'recipe'"),
        ({"first": {"recipe": "first.yaml", "set": {"sed": 1}}}, "unknown section 'sed'"),
        ({"a b": "first.yaml"}, "'a b' is no name"),
    ],
)
def test_entry_that_does_not_fit_is_refused(
    pair: Path, tmp_path: Path, before: Any, message: str
) -> None:
    path = write_recipe(tmp_path, "second", before=before)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_two_recipes_share_a_run_folder_and_what_is_equal_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_recipe(tmp_path, "first", tokenize={**MADE_HERE, "train_chars": 1000})
    entry = {"recipe": "first.yaml", "run_folder": "${run_folder}"}
    path = write_recipe(tmp_path, "second", before={"first": entry})
    caplog.set_level(logging.INFO, logger="mira_megatron")
    run_all(load_recipe(path))
    assert is_done(tmp_path / "runs/second/tokenizer")
    assert "ingest wiki: already done" in caplog.text


@pytest.mark.parametrize(
    "other", [{"seed": 3, "tokenize": {"train_chars": 900}}, {"ingest": {"records_per_part": 4}}]
)
def test_two_that_would_make_one_folder_of_different_things_are_refused(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    made = {**MADE_HERE, "train_chars": 1000}
    write_recipe(tmp_path, "first", tokenize=made)
    entry = {"recipe": "first.yaml", "run_folder": "${run_folder}", "set": other}
    path = write_recipe(tmp_path, "second", before={"first": entry}, tokenize=made)
    with pytest.raises(ValueError, match=r"both make .* each of something else"):
        run_before(load_recipe(path), Resources())
    assert not (tmp_path / "runs").exists()
