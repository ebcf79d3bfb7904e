"""The whole chain with all nine arms, killed -9 at ten random moments: the same table and masks."""

from __future__ import annotations

import os
import random
import re
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


def ablate(recipe: Path, seconds: float | None = None) -> tuple[int, str]:
    """Runs the chain in a session of its own; after `seconds` all of it is killed."""
    log = recipe.with_name("log.txt")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mira_megatron.cli", "ablate", str(recipe), "--workers=2"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        try:
            process.wait(_TIMEOUT_SECONDS if seconds is None else seconds)
        except subprocess.TimeoutExpired:
            # Workers have sessions of their own; they end with who started them.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, log.read_text()


def seconds_of(recipe: Path) -> float:
    """Runs the chain to its end, and returns how long that took."""
    began = time.monotonic()
    code, said = ablate(recipe)
    assert code == 0, said
    return time.monotonic() - began


def test_killed_at_ten_random_moments_it_ends_with_the_same_table(
    finished_run: Path, tmp_path: Path
) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    recipes = []
    for folder in (calm, killed):
        folder.mkdir()
        recipes.append(write_recipe(folder, finished_run))
    took = seconds_of(recipes[0])
    starting = seconds_of(recipes[0]) / 2  # all is done: what every run needs before it goes on
    # Each goes on from where the one before was killed, so that all of the chain has its turn.
    source = random.Random(20)
    killed_in = []
    for _ in range(NUM_KILLS):
        code, said = ablate(recipes[1], starting + source.uniform(0.04, 0.12) * took)
        assert code == -signal.SIGKILL, said
        killed_in.append(re.findall(r"INFO (\S+) \S+: \d", said)[-1])
    assert len(set(killed_in)) > NUM_KILLS // 3, killed_in
    assert {"held-out", "instruct-sft", "eval"} & set(killed_in), killed_in
    code, said = ablate(recipes[1])
    assert code == 0, said
    assert leftovers(killed / "run") == []
    assert differences(calm / "run", killed / "run") == []
    table = (killed / "run" / layout.ABLATION / "table.md").read_text()
    for arm in ("base_sft", "raw", *SCORED, "mira_global", "mira_group", "mira_source"):
        assert f"| {arm.replace('_', chr(92) + '_')} |" in table or f"| {arm} |" in table, arm
