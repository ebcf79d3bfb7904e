"""Three rubrics and a base model, made by recipes that come before the one that compares arms."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from smoke_runs import SMALL, SMOKE, assert_done, assert_refused, differences, leftovers, mira

from mira_megatron import layout

pytestmark = [pytest.mark.megatron, pytest.mark.integration]  # minutes

RUBRIC = ("ingest", "embedder", "group", "teacher", "discover", "anchor", "score", "aggregate")
ARMS = {
    "mira_global": {"score": "global", "scope": "global"},
    "mira_group": {"score": "group", "scope": "group"},
    "mira_source": {"score": "source", "scope": "source"},
}
TRAINED = ("checkpoints", "held_out", "ablation", "report")


def write_recipes(folder: Path) -> Path:
    """Writes base.yaml, rubric.yaml and main.yaml, which comes after them; returns its path."""
    small = OmegaConf.merge(OmegaConf.load(SMOKE), OmegaConf.from_dotlist(list(SMALL)))
    values: Any = OmegaConf.to_container(small)
    modules = values["sources"].pop("modules")
    for name, pattern in (("early", "{stdlib}/[a-f]*.py"), ("late", "{stdlib}/[p-z]*.py")):
        values["sources"][name] = {**modules, "paths": [pattern], "max_records": 12}
    shared = {name: values[name] for name in ("sources", "seed", "ingest")}
    judged = {**shared, **{name: values[name] for name in RUBRIC}}
    trained = {name: values[name] for name in ("select", "blend")}
    values["tokenize"]["train_on"] = sorted(values["sources"])
    base = {
        **shared,
        **trained,
        "run_folder": str(folder / "base"),
        "baselines": {"random": {"method": "random"}},
        "tokenize": values["tokenize"],
        "arms": {"raw": {"score": "random", "scope": "global"}},
        "midtrain": values["midtrain"],
    }
    training = {**values["midtrain"]["training"], "train_iters": 3, "num_threads": 1}
    hf = "${before.base.run_folder}/checkpoints/raw/hf"
    tokenize = {name: of for name, of in values["tokenize"].items() if "train" not in name}
    main = {
        **judged,
        **trained,
        "run_folder": str(folder / "run"),
        "before": {
            "base": "base.yaml",
            "global": _rubric("global", "family"),
            "source": _rubric("source", "source"),
        },
        "rubric": "group",
        "group": {**values["group"], "num_groups": {"text": 1}},
        "aggregate": {**values["aggregate"], "scoring": "group"},
        "tokenize": {**tokenize, "tokenizer": hf, "validation_max_tokens": 20_000},
        "arms": ARMS,
        "midtrain": {"base": hf, "training": training},
        "ablation": {"seeds": [values["seed"]], "base_arm": "base_sft", "resamples": 100},
    }
    written = {"base": base, "rubric": {**judged, "rubric": "mira"}, "main": main}
    for name, content in written.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "main.yaml"


def _rubric(name: str, by: str) -> dict[str, Any]:
    settings = {"rubric": name, "group": {"by": by}, "aggregate": {"scoring": name}}
    return {"recipe": "rubric.yaml", "run_folder": "${run_folder}", "set": settings}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """All of it, run to its end with one command, and what was said."""
    path = write_recipes(tmp_path_factory.mktemp("before"))
    said = mira("ablate", path)
    assert_done(said)
    return path, said.output


def test_arms_are_ranked_by_three_rubrics(compared: tuple[Path, str]) -> None:
    path, said = compared
    run = path.parent / "run"
    groups = {
        rubric: {
            group: entry["sources"]
            for group, entry in json.loads(
                (run / layout.groups(rubric, "text") / layout.SOURCE_GROUPS).read_bytes()
            )["groups"].items()
        }
        for rubric in ("global", "source")
    }
    assert list(groups["global"].values()) == [["early", "late"]]
    assert sorted(groups["source"].values()) == [["early"], ["late"]]
    for arm, entry in ARMS.items():
        certificate = json.loads((run / layout.keep(arm) / layout.CERTIFICATE).read_bytes())
        assert certificate["score"] == entry["score"]
        assert f"\n{arm} " in said
    scores = [run / layout.record_scores(name, "late") for name in ("global", "source")]
    assert differences(*scores) != []


def test_second_run_makes_nothing(compared: tuple[Path, str]) -> None:
    again = mira("ablate", compared[0])
    assert_done(again)
    assert " 0 units made." in again.output


def test_score_that_no_recipe_made_is_refused_with_those_that_are_there(
    compared: tuple[Path, str],
) -> None:
    refused = mira("select", compared[0], "arms.mira_global.score=globl")
    assert_refused(refused, "'globl'", "under `before`", "Made here: global, group, source.")


def test_two_at_once_give_the_bytes_of_one_at_a_time_killed_or_not(
    compared: tuple[Path, str], tmp_path: Path
) -> None:
    path, _ = compared
    run = tmp_path / "run"
    shutil.copytree(path.parent / "run", run, symlinks=True)
    for name in TRAINED:
        shutil.rmtree(run / name)
    words = ["ablate", str(path), f"run_folder={run}", "--units-at-once=2", "--workers=2"]
    command = [sys.executable, "-m", "mira_megatron.cli", *words]
    stopped = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert stopped.stderr is not None
    said = ""
    for line in stopped.stderr:
        said += line
        if "step 3 of 3" in line and line.startswith("["):
            break
    stopped.send_signal(signal.SIGTERM)
    said += stopped.stderr.read()  # until the last process that holds it has ended
    assert stopped.wait(60) == 143, said
    assert "midtrain: 3 units, 2 at once" in said
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert ended.returncode == 0, ended.stderr
    assert leftovers(run) == []
    report = f"{layout.REPORT}/"
    assert [
        name for name in differences(path.parent / "run", run) if not name.startswith(report)
    ] == []


def test_models_beside_each_other_without_a_number_of_threads_are_refused(
    compared: tuple[Path, str],
) -> None:
    words = ("midtrain.training.num_threads=null", "--units-at-once=2")
    assert_refused(mira("ablate", compared[0], *words), "midtrain.training.num_threads is not set")
