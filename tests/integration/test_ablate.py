"""`mira ablate` on the smoke recipe's records: two arms and the base, two seeds, one that fails."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from smoke_runs import (
    ARM,
    SMOKE,
    assert_done,
    assert_refused,
    differences,
    killed_at,
    leftovers,
    mira,
    stamps,
)

from mira_megatron import layout
from mira_megatron.written_tables import printed_markdown

pytestmark = pytest.mark.megatron

MODELS = ("base", ARM, f"{ARM}.seed8", "random", "random.seed8")
# So few tokens that nothing fits: the arm's blend cannot be read.
BROKEN = {"score": "random", "scope": "source", "budget_tokens": 1}


def write_recipe(folder: Path, finished_run: Path, **changes: Any) -> Path:
    """Writes the tiny recipe, started from what the smoke run mid-trained."""
    base = finished_run / layout.checkpoints(ARM) / layout.HF_EXPORT
    values = yaml.safe_load(SMOKE.read_text())
    without = ("instruct_sft", "distill", "reliability")
    values = {name: value for name, value in values.items() if name not in without}
    training = {**values["midtrain"]["training"], "train_iters": 3, "warmup_iters": 1}
    values |= {
        "run_folder": str(folder / "run"),
        "reuse": [str(finished_run)],
        "baselines": {"random": {"method": "random"}},
        "arms": {ARM: values["arms"][ARM], "random": {"score": "random", "scope": "source"}},
        "midtrain": {"base": str(base), "training": training},
        "ablation": {"seeds": [values["seed"], 8], "base_arm": "base", "resamples": 500},
    }
    tokenize = {name: of for name, of in values["tokenize"].items() if "train" not in name}
    values["tokenize"] = {**tokenize, "tokenizer": str(base), "validation_max_tokens": 20_000}
    for section, content in changes.items():
        values[section] = {**values[section], **content}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def table_in(said: str) -> str:
    """Returns the table of arms; behind it stands what every arm cost, whole or not."""
    table, cost, _ = said.partition("# Cost")
    assert cost
    return table


@pytest.fixture(scope="module")
def compared(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The recipe, run to its end, and what was said."""
    path = write_recipe(tmp_path_factory.mktemp("ablate"), finished_run)
    said = mira("ablate", path)
    assert_done(said)
    return path, said.output


def test_every_model_is_measured_and_the_table_is_printed(compared: tuple[Path, str]) -> None:
    path, said = compared
    run = path.parent / "run"
    assert tuple(sorted(each.name for each in (run / "held_out").iterdir())) == MODELS
    assert printed_markdown((run / "ablation/table.md").read_text()) in said
    assert printed_markdown((run / "cost/cost.md").read_text()) in said
    rows = list(csv.DictReader((run / "ablation/table.csv").open()))
    bits = {
        row["arm"]: float(row["bits_per_byte"])
        for row in rows
        if row["measure"] == "mean over groups"
    }
    assert set(bits) == {"base", ARM, "random"}
    assert all(1 < value < 8 for value in bits.values())
    # A few steps at a small rate: better than what they started from, and hardly apart.
    assert bits["base"] > max(bits[ARM], bits["random"])
    losses = json.loads((run / "held_out" / ARM / "held_out.json").read_bytes())
    assert losses["all"]["documents"] == sum(
        each["documents"] for each in losses["sources"].values()
    )


def test_second_run_makes_nothing_and_says_so(compared: tuple[Path, str]) -> None:
    path, _ = compared
    before = stamps(path.parent / "run")
    again = mira("ablate", path)
    assert_done(again)
    assert " 0 units made." in again.output
    assert stamps(path.parent / "run") == before


def test_arm_that_fails_leaves_the_others_and_is_named(
    finished_run: Path, tmp_path: Path, compared: tuple[Path, str]
) -> None:
    path = write_recipe(tmp_path, finished_run, arms={"broken": BROKEN})
    run = tmp_path / "run"
    shutil.copytree(compared[0].parent / "run", run, symlinks=True)
    for name in (layout.checkpoints("random.seed8"), layout.held_out("random.seed8")):
        shutil.rmtree(run / name)
    failed = mira("ablate", path)
    assert_refused(failed, "failed: blend broken", "left out: midtrain broken", "ablation table")
    assert (run / layout.held_out("random.seed8") / "manifest.json").is_file()
    assert not (run / layout.checkpoints("broken")).exists()
    assert "\nrandom " in table_in(failed.output)
    assert "\nbroken " not in table_in(failed.output)
    assert printed_markdown((run / "ablation/table.md").read_text()) in compared[1]
    # As the last job of a submitted recipe does, which waits for the end of all arms.
    told = mira("ablation", path)
    assert_refused(told, "Not finished: ", "midtrain broken", "Of the arms that are whole")
    assert "\nrandom " in table_in(told.output)
    assert "\nbroken " not in table_in(told.output)
    mended = write_recipe(
        tmp_path, finished_run, arms={"broken": {**BROKEN, "budget_tokens": 80_000}}
    )
    for name in (layout.keep("broken"), layout.blend("broken")):
        shutil.rmtree(run / name, ignore_errors=True)
    again = mira("ablate", mended)
    assert_done(again)
    assert "\nbroken " in table_in(again.output)


def test_worker_whose_arm_cannot_be_trained_goes_on_with_the_next(
    finished_run: Path, tmp_path: Path, compared: tuple[Path, str]
) -> None:
    short = {"score": "random", "scope": "global", "budget_tokens": 2_200}
    path = write_recipe(tmp_path, finished_run, arms={"a_short_one": short})
    values = yaml.safe_load(path.read_text())
    values["midtrain"]["training"]["num_threads"] = 1
    path.write_text(yaml.safe_dump(values))
    run = tmp_path / "run"
    shutil.copytree(compared[0].parent / "run", run, symlinks=True)
    shutil.rmtree(run / "checkpoints")
    for stage in ("select", "blend"):
        assert_done(mira(stage, path))
    failed = mira("midtrain", path, "--share")
    assert_refused(failed, "midtrain a_short_one failed; going on with the rest: the train dataset")
    for model in set(MODELS) - {"base"}:
        assert (run / layout.checkpoints(model) / "manifest.json").is_file()


def test_killed_at_any_file_it_writes_it_goes_on_to_the_same_table(
    finished_run: Path, tmp_path: Path, compared: tuple[Path, str]
) -> None:
    expected = compared[0].parent / "run"
    path = write_recipe(tmp_path, finished_run)
    run = tmp_path / "run"
    shutil.copytree(expected, run, symlinks=True)
    shutil.rmtree(run / layout.ABLATION)
    for model in MODELS:
        shutil.rmtree(run / layout.held_out(model))
    for call in (1, 3, 8):
        killed = killed_at("before", call, "ablate", path)
        assert killed.exit_code == -signal.SIGKILL, killed.output
    assert_done(mira("ablate", path))
    assert leftovers(run) == []
    assert differences(expected, run) == []


def test_recipe_without_arms_to_compare_is_refused(tmp_path: Path) -> None:
    assert_refused(mira("ablate", SMOKE, f"run_folder={tmp_path}"), "no section `ablation`")
