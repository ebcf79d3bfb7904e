"""Arms that start from one base, with two seeds each, and the base as an arm of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from smoke_runs import ARM, SMOKE, assert_done, mira

from mira_megatron import layout

pytestmark = pytest.mark.megatron

NAMES = (ARM, f"{ARM}.seed8", "base_sft", "base_sft.seed8")


@pytest.fixture(scope="module")
def recipe(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe, started from what its own run mid-trained, and run to its end."""
    folder = tmp_path_factory.mktemp("based")
    base = finished_run / layout.checkpoints(ARM) / layout.HF_EXPORT
    values = yaml.safe_load(SMOKE.read_text())
    values |= {
        "run_folder": str(folder / "run"),
        "reuse": [str(finished_run)],
        "midtrain": {"base": str(base), "training": values["midtrain"]["training"]},
        "ablation": {"seeds": [values["seed"], 8], "base_arm": "base_sft"},
    }
    tokenize = {
        name: values["tokenize"][name] for name in values["tokenize"] if "train" not in name
    }
    values["tokenize"] = {**tokenize, "tokenizer": str(base)}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    assert_done(mira("run", str(path)))
    return path


def log_of(recipe: Path, folder: str) -> list[dict[str, Any]]:
    """Returns the log of a training."""
    state = json.loads((recipe.parent / "run" / folder / "trainer_state.json").read_bytes())
    log: list[dict[str, Any]] = state["log_history"]
    return log


def first_loss(recipe: Path, folder: str) -> float:
    """Returns the validation loss before the first step."""
    return next(
        float(entry["eval_loss"]) for entry in log_of(recipe, folder) if "eval_loss" in entry
    )


def test_every_arm_is_trained_with_every_seed_from_the_same_weights(recipe: Path) -> None:
    midtrained = [layout.checkpoints(name) for name in NAMES[:2]]
    # Another seed cuts the held-out tokens at other places.
    starts = [first_loss(recipe, folder) for folder in midtrained]
    assert starts[0] == pytest.approx(starts[1], rel=1e-3)
    courses = [log_of(recipe, folder) for folder in midtrained]
    assert courses[0] != courses[1]
    tuned = [first_loss(recipe, layout.instruct(name)) for name in NAMES]
    # The same weights; another seed packs the validation samples in another order.
    assert tuned[2] == pytest.approx(tuned[3], rel=1e-5)
    assert tuned[2] not in tuned[:2]
    assert tuned[0] != tuned[1]
    run = recipe.parent / "run"
    assert sorted(path.name for path in (run / "checkpoints").glob("[!.]*")) == sorted(NAMES[:2])
    assert sorted(path.name for path in (run / "instruct").glob("[!.]*")) == sorted(NAMES)


def test_training_goes_on_where_the_base_ended(recipe: Path, finished_run: Path) -> None:
    earlier = json.loads(
        (finished_run / layout.checkpoints(ARM) / "trainer_state.json").read_bytes()
    )
    losses = [entry["eval_loss"] for entry in earlier["log_history"] if "eval_loss" in entry]
    start = first_loss(recipe, layout.checkpoints(ARM))
    # The same tokenizer and held-out documents; the base was seen as the end of its own training.
    assert start == pytest.approx(losses[-1], rel=0.02)
    assert start < losses[0]


def test_seed_added_later_leaves_the_others_as_they_are(recipe: Path) -> None:
    values = yaml.safe_load(recipe.read_text())
    values["ablation"]["seeds"].append(9)
    recipe.write_text(yaml.safe_dump(values))
    status = mira("status", str(recipe)).output
    waiting = [line for line in status.splitlines() if "seed9" in line]
    assert len(waiting) == 4  # mid-trained, its held-out loss, and both arms tuned
    assert not any("done" in line for line in waiting)
    assert all("done" in line for line in status.splitlines() if "seed8" in line)


def test_base_with_another_tokenizer_is_refused(recipe: Path, finished_run: Path) -> None:
    values = yaml.safe_load(recipe.read_text())
    other = json.loads((finished_run / layout.TOKENIZER / layout.TOKENIZER_FILE).read_bytes())
    (recipe.parent / layout.TOKENIZER_FILE).write_text(json.dumps(other))  # other bytes are enough
    values["tokenize"]["tokenizer"] = str(recipe.parent)
    values["run_folder"] = str(recipe.parent / "other")
    (recipe.parent / "other.yaml").write_text(yaml.safe_dump(values))
    refused = mira("run", str(recipe.parent / "other.yaml"))
    assert refused.exit_code == 2
    assert "another tokenizer" in refused.output
    assert "tokenize.tokenizer" in refused.output
