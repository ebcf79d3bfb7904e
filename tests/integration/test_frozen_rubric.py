"""Anchors that a person edited: frozen, given to a finished run, and taken out of it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # OmegaConf brings it
from smoke_runs import (
    SMOKE,
    STAGES,
    assert_done,
    assert_refused,
    before,
    content,
    copy_stages,
    files,
    leftovers,
    mira_rubric,
    smoke,
    stamps,
)

from mira_megatron.rubric.rule_judge import dimension_names

GROUP = "text-modules"
ANCHORS = f"anchors/smoke/{GROUP}"
DESCRIPTION = "What the module says about itself, and for whom."
# The units whose bytes rest on the group's anchors, as far as the tests here run.
OF_THE_GROUP = (
    *(ANCHORS, "teacher_ratings/smoke/modules", f"sft/smoke/{GROUP}", f"scorers/smoke/{GROUP}"),
    *("reliability/smoke/modules", "ratings/smoke/modules", "record_scores/smoke/modules"),
    *("reliability_masks/smoke/modules", "keep/mira_group", "sensitivity/mira_group"),
    "blends/mira_group",
)
FROM_ANCHORS_ON = tuple(stage for stage in before("midtrain") if stage not in before("anchor"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def other_name(rows: list[dict[str, Any]]) -> str:
    """Returns a name that the rule judge knows and the anchors do not have."""
    taken = {row["name"] for row in rows}
    return next(name for name in dimension_names("text") if name not in taken)


@pytest.fixture(scope="module")
def edited(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the group's anchors with another name and a description, as an editor leaves it."""
    rows = lines(finished_run / ANCHORS / "anchors.jsonl")
    rows[0]["description"] = DESCRIPTION
    rows[2]["name"] = other_name(rows)
    return write_lines(tmp_path_factory.mktemp("edited") / "mine.jsonl", rows)


@pytest.fixture(scope="module")
def frozen(edited: Path) -> Path:
    """The edited anchors under a version of their own."""
    path = edited.with_name("frozen.jsonl")
    assert_done(mira_rubric("freeze", edited, "--output", path))
    return path


def run_from_anchors(run: Path, *overrides: str) -> str:
    """Runs the stages that the group's anchors decide about; returns what they said."""
    output = ""
    for stage in FROM_ANCHORS_ON:
        done = smoke(stage, run, *overrides)
        assert_done(done)
        output += done.output
    return output


@pytest.fixture(scope="module")
def edited_run(finished_run: Path, frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run up to its blend, after the group was given the frozen anchors."""
    run = tmp_path_factory.mktemp("edited_run") / "run"
    copy_stages(finished_run, run, before("midtrain"))
    run_from_anchors(run, given(frozen))
    return run


def given(path: Path) -> str:
    return f"scorers.{GROUP}.anchors_path={path}"


def set_aside(run: Path) -> set[str]:
    """Returns the units of which an older result is kept."""
    names = (path.parent.relative_to(run).as_posix() for path in run.rglob("manifest.json"))
    return {name.split(".superseded-")[0] for name in names if ".superseded-" in name}


def test_edited_anchors_that_are_not_frozen_are_refused_with_the_way_out(
    finished_run: Path, edited: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("midtrain"))
    made = stamps(run)
    for command in ("anchor", "run"):
        refused = smoke(command, run, given(edited))
        assert_refused(refused, f"{edited}: its rubric_version", f"`mira rubric freeze {edited}")
    assert stamps(run) == made


def test_frozen_anchors_have_a_version_that_fits_what_they_say(
    finished_run: Path, edited: Path, frozen: Path
) -> None:
    found = {row["rubric_version"] for row in lines(finished_run / ANCHORS / "anchors.jsonl")}
    versions = {row["rubric_version"] for row in lines(frozen)}
    assert len(versions) == 1
    assert versions.isdisjoint(found)
    said = [{**row, "rubric_version": None} for row in lines(frozen)]
    assert said == [{**row, "rubric_version": None} for row in lines(edited)]


def never_edited(run: Path, frozen: Path) -> tuple[Path, ...]:
    return (frozen,)


def already_there(run: Path, frozen: Path) -> tuple[object, ...]:
    return (run / ANCHORS / "anchors.jsonl", "--output", frozen)


def one_line_short(run: Path, frozen: Path) -> tuple[Path, ...]:
    return (write_lines(frozen.with_name("short.jsonl"), lines(frozen)[:14]),)


def part_of_a_run(run: Path, frozen: Path) -> tuple[object, ...]:
    edited = frozen.with_name("mine.jsonl")
    return (edited, "--output", run / ANCHORS / "mine.jsonl")


def not_there(run: Path, frozen: Path) -> tuple[Path, ...]:
    return (frozen.with_name("none.jsonl"),)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (never_edited, "nothing was edited"),
        (already_there, "nothing was edited"),
        (one_line_short, "14 anchors; expected 15"),
        (part_of_a_run, "scorers.<group>.anchors_path"),
        (not_there, "none.jsonl: No such file"),
    ],
)
def test_file_that_cannot_be_frozen_is_refused(
    finished_run: Path,
    frozen: Path,
    words: Callable[[Path, Path], tuple[object, ...]],
    named: str,
) -> None:
    made = stamps(finished_run)
    assert_refused(mira_rubric("freeze", *words(finished_run, frozen)), named)
    assert stamps(finished_run) == made


def test_frozen_anchors_take_the_place_of_those_found(edited_run: Path, frozen: Path) -> None:
    rows = lines(edited_run / ANCHORS / "anchors.jsonl")
    assert rows == lines(frozen)
    assert rows[0]["description"] == DESCRIPTION
    assert set_aside(edited_run) == set(OF_THE_GROUP)
    assert leftovers(edited_run) == []


def test_frozen_anchors_leave_other_groups_and_all_judgments_untouched(
    finished_run: Path, edited_run: Path
) -> None:
    made = {
        name: stamp
        for name, stamp in stamps(finished_run).items()
        if not name.startswith((*OF_THE_GROUP, "checkpoints/", "instruct", "report/"))
    }
    assert any(name.startswith("judgments/smoke/modules/") for name in made)
    assert any(name.startswith("ratings/smoke/questions/") for name in made)
    assert made.items() <= stamps(edited_run).items()


@pytest.mark.parametrize("folder", OF_THE_GROUP)
def test_what_rested_on_the_found_anchors_is_kept_aside(
    finished_run: Path, edited_run: Path, folder: str
) -> None:
    (aside,) = (edited_run / folder).parent.glob(f"{Path(folder).name}.superseded-*")
    assert stamps(aside) == stamps(finished_run / folder)
    assert (edited_run / folder / "manifest.json").is_file()


def test_frozen_anchors_are_what_the_records_are_rated_on(
    finished_run: Path, edited_run: Path
) -> None:
    for folder in ("teacher_ratings/smoke/modules", "ratings/smoke/modules"):
        was, now = finished_run / folder, edited_run / folder
        assert files(was).keys() == files(now).keys()
        assert (was / "part-00000.parquet").read_bytes() != (
            now / "part-00000.parquet"
        ).read_bytes()


def test_setting_taken_out_brings_the_found_anchors_back_without_computing(
    finished_run: Path, edited_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(edited_run, tmp_path / "run", STAGES)
    output = run_from_anchors(run)
    for folder in OF_THE_GROUP:
        was, now = files(finished_run / folder), files(run / folder)
        assert was.keys() == now.keys()
        assert [name for name in was if content(was[name]) != content(now[name])] == []
        manifest = json.loads((run / folder / "manifest.json").read_bytes())
        assert ".superseded-" in str(manifest["reused_from"])
    assert output.count(": reused from ") == len(OF_THE_GROUP)
    assert leftovers(run) == []


def test_found_and_frozen_anchors_change_places_as_often_as_one_likes(
    edited_run: Path, frozen: Path, tmp_path: Path
) -> None:
    run = copy_stages(edited_run, tmp_path / "run", STAGES)
    expected = {name: content(path) for name, path in files(edited_run / ANCHORS).items()}
    for overrides in ((), (given(frozen),)):
        assert_done(smoke("anchor", run, *overrides))
    assert {name: content(path) for name, path in files(run / ANCHORS).items()} == expected


@pytest.fixture
def recipe(finished_run: Path, tmp_path: Path) -> Path:
    """The smoke recipe, its run folder the finished run."""
    path = tmp_path / "recipe.yaml"
    values = {**yaml.safe_load(SMOKE.read_text()), "run_folder": str(finished_run)}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.mark.parametrize("what", ["recipe", "finished_run"])
def test_rubric_of_a_run_is_shown_group_by_group(
    finished_run: Path, what: str, request: pytest.FixtureRequest
) -> None:
    shown = mira_rubric("show", request.getfixturevalue(what), "--markdown")
    assert_done(shown)
    headings = [line for line in shown.output.splitlines() if line.startswith("# ")]
    assert headings == ["# agent-python", "# qa-questions", f"# {GROUP}"]
    for path in finished_run.glob("anchors/smoke/*/anchors.jsonl"):
        for row in lines(path):
            assert f"| {row['anchor_id']} | {row['name'].replace('&', '&amp;')} |" in shown.output


def test_rubric_with_anchors_set_aside_is_shown_as_it_stands(edited_run: Path) -> None:
    shown = mira_rubric("show", edited_run, "--markdown")
    assert_done(shown)
    assert shown.output.count("| A15 |") == 3
    assert DESCRIPTION in shown.output


def test_rubric_is_shown_as_a_table_on_the_terminal(finished_run: Path) -> None:
    shown = mira_rubric("show", finished_run / ANCHORS)
    assert_done(shown)
    slots = [line.split()[0] for line in shown.output.splitlines() if line.startswith(" A")]
    assert slots == [f"A{slot}" for slot in range(1, 16)]


def test_published_table_is_shown() -> None:
    shown = mira_rubric("show", "text-group3", "--markdown")
    assert_done(shown)
    assert shown.output.startswith("# text-group3\n")
    assert "| A15 |" in shown.output


@pytest.mark.parametrize(
    ("name", "named"),
    [("text-group33", "Did you mean 'text-group3'?"), ("no/such/folder", "no folder with anchors")],
)
def test_rubric_that_is_not_there_is_refused(name: str, named: str) -> None:
    assert_refused(mira_rubric("show", name), f"{name}: ", named)


def test_edit_is_shown_as_a_difference(finished_run: Path, frozen: Path) -> None:
    shown = mira_rubric("diff", finished_run / ANCHORS, frozen, "--markdown")
    assert_done(shown)
    old, new = lines(finished_run / ANCHORS / "anchors.jsonl"), lines(frozen)
    assert f"{old[0]['rubric_version']} → {new[0]['rubric_version']}" in shown.output
    renamed = f"| renamed | {old[2]['name']} → {new[2]['name']} |".replace("&", "&amp;")
    assert renamed in shown.output
    assert shown.output.count("| description |") == 1
    assert shown.output.count("| same |") == 13


def test_difference_of_a_whole_run_asks_for_one_group(finished_run: Path, frozen: Path) -> None:
    refused = mira_rubric("diff", finished_run, frozen)
    assert_refused(refused, "agent-python, qa-questions", GROUP)


def test_anchors_given_to_a_group_that_is_not_there_are_warned_of(
    finished_run: Path, frozen: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("midtrain"))
    made = stamps(run)
    done = smoke("anchor", run, f"scorers.text-modulse.anchors_path={frozen}")
    assert_done(done)
    (warning,) = [line for line in done.output.splitlines() if " WARNING " in line]
    assert "scorers.text-modulse" in warning
    assert GROUP in warning
    assert stamps(run) == made
