"""The whole chain with all nine arms, killed -9 at ten random moments: the same table and masks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from smoke_runs import ARM, SMOKE, differences, leftovers

from mira_megatron import layout
from mira_megatron.manifest import MANIFEST

pytestmark = [pytest.mark.megatron, pytest.mark.integration]  # minutes

NUM_KILLS = 10
ROOT = Path(__file__).parents[2]
SCORED = {"dataman": "source", "dsir": "global", "ppl": "source", "random": "source"}
_TIMEOUT_SECONDS = 1800


def write_recipe(folder: Path, finished_run: Path) -> Path:
    """Writes the smoke recipe with the nine arms, started from what the smoke run mid-trained."""
    base = str(finished_run / layout.checkpoints(ARM) / layout.HF_EXPORT)
    values: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    tokenize = {name: of for name, of in values["tokenize"].items() if "train" not in name}
    training = {**values["midtrain"]["training"], "train_iters": 3, "warmup_iters": 1}
    tuning = values["instruct_sft"]["training"]
    threads = {"num_threads": 1}
    values |= {
        "run_folder": str(folder / "run"),
        "tokenize": {**tokenize, "tokenizer": base},
        "baselines": {
            "random": {"method": "random"},
            "dsir": {"method": "dsir", "target_sources": ["questions"], "min_words": 5},
            "dataman": {"method": "dataman", "engine": "rule_judge"},
            "ppl": {"method": "perplexity", "model": base, "window_tokens": 128},
        },
        "arms": {
            "raw": {"score": "random", "scope": "source", "budget_fraction": 1.0},
            **{name: {"score": name, "scope": scope} for name, scope in SCORED.items()},
            **{
                f"mira_{scope}": {"score": "smoke", "scope": scope}
                for scope in ("global", "group", "source")
            },
        },
        "midtrain": {"base": base, "training": {**training, **threads}},
        "instruct_sft": {**values["instruct_sft"], "training": {**tuning, **threads}},
        "eval": {
            "suite": str(ROOT / "eval/suites/mini.yaml"),
            "data_folder": str(ROOT / "eval/mini"),
            "style": "chat",
            "engine": "transformers",
            "limit": 3,
            **threads,
        },
        "ablation": {"seeds": [values["seed"]], "base_arm": "base_sft", "resamples": 100},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def num_done(recipe: Path) -> int:
    """Returns how many units are finished."""
    return sum(MANIFEST in files for _, _, files in os.walk(recipe.parent / "run"))


def ablate(recipe: Path, num_units: int | None = None, delay: float = 0) -> tuple[int, str]:
    """Runs the chain in a session of its own; once so many units are done, all of it is killed."""
    log = recipe.with_name("log.txt")
    until = time.monotonic() + _TIMEOUT_SECONDS
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mira_megatron.cli", "ablate", str(recipe), "--workers=2"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        while process.poll() is None and time.monotonic() < until:
            if num_units is not None and num_done(recipe) >= num_units:
                break
            time.sleep(0.05)
        time.sleep(delay)
        if process.poll() is None:
            # Workers have sessions of their own; they end with who started them.
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait(), log.read_text()


def test_killed_at_ten_random_moments_it_ends_with_the_same_table(
    finished_run: Path, tmp_path: Path
) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    recipes = []
    for folder in (calm, killed):
        folder.mkdir()
        recipes.append(write_recipe(folder, finished_run))
    code, said = ablate(recipes[0])
    assert code == 0, said
    # Moments told by progress: the clock's would depend on what else the machine does.
    source = random.Random(20)
    for num_units in sorted(source.sample(range(num_done(recipes[0]) - 1), NUM_KILLS)):
        code, said = ablate(recipes[1], num_units, delay=source.uniform(0, 2))
        assert code == -signal.SIGKILL, said
    code, said = ablate(recipes[1])
    assert code == 0, said
    assert leftovers(killed / "run") == []
    assert differences(calm / "run", killed / "run") == []
    table = (killed / "run" / layout.ABLATION / "table.md").read_text()
    for arm in ("base_sft", "raw", *SCORED, "mira_global", "mira_group", "mira_source"):
        assert f"| {arm.replace('_', chr(92) + '_')} |" in table or f"| {arm} |" in table, arm
