"""`answer_mode: scores_only` on a real vLLM, behind its server and in process.

The model's weights are random: that its answers are 15 scores is guided decoding's doing alone.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml  # OmegaConf brings it
from smoke_runs import SMOKE, assert_done, mira
from tiny_chat_model import write_tiny_chat_model
from vllm_server import VLLM_SETTINGS, VllmServer, running_vllm, vllm_python

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.records import NUM_SLOTS
from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.stage import Resources

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
NUM_RECORDS = 20
GROUP = "text-code"
MAX_MODEL_LEN = 8192
# Sections of the smoke recipe that a run needs up to its ratings, with anchors that are given.
KEPT = ("seed", "rubric", "ingest", "embedder", "group", "teacher")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny-chat")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[VllmServer]:
    log_path = model.parent / "vllm.log"
    with running_vllm(model, max_model_len=MAX_MODEL_LEN, log_path=log_path) as running:
        yield running


def write_recipe(path: Path, *, num_records: int = NUM_RECORDS, **score: Any) -> Path:
    """Writes a recipe of one small source, and runs it up to its anchors, which are given."""
    smoke = yaml.safe_load(SMOKE.read_text())
    modules = {**smoke["sources"]["modules"], "group": GROUP}
    recipe = {
        **{name: smoke[name] for name in KEPT if name in smoke},
        "run_folder": str(path.with_suffix("")),
        "sources": {"modules": {**modules, "max_chars": 8000, "max_records": num_records}},
        "score": {"answer_mode": "scores_only", "top_p": 1.0, "max_tokens": 64, **score},
        "scorers": {GROUP: {"published": "text-group3"}},
    }
    path.write_text(yaml.safe_dump(recipe))
    run_stages(load_recipe(path), ("ingest", "group", "anchor"), Resources())
    return path


def assert_well_formed(recipe: Path) -> None:
    parts = sorted(recipe.with_suffix("").glob("ratings/*/modules/part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert [row["status"] for row in rows] == ["ok"] * NUM_RECORDS
    for row in rows:
        assert re.fullmatch(SCORES_REGEX, row["raw"])
        assert row["scores"] == [float(word) for word in row["raw"].split()]
        assert row["rationales"] == [None] * NUM_SLOTS
        assert row["answer_mode"] == "scores_only"
        assert row["num_output_tokens"] <= 3 * NUM_SLOTS  # no word but scores, and an end
    assert len({row["raw"] for row in rows}) > 1


def test_digits_of_a_server_are_well_formed(server: VllmServer, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "served.yaml",
        engine="endpoint",
        endpoints=[server.endpoint],
        model=server.model,
        temperature=0.7,
    )
    assert_done(mira("score", recipe))
    assert_well_formed(recipe)


def test_digits_of_vllm_in_process_are_well_formed(model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "offline.yaml",
        engine="vllm",
        model_path=str(model),
        max_model_len=MAX_MODEL_LEN,
        dtype="float32",
    )
    outcome = subprocess.run(
        [str(vllm_python()), "-m", "mira_megatron.cli", "score", str(recipe)],
        env={**os.environ, **VLLM_SETTINGS, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert outcome.returncode == 0, outcome.stderr[-4000:]
    assert_well_formed(recipe)
