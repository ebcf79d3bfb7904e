"""A distilled scorer gives the same ratings however it is run: transformers, a vLLM server, vLLM.

The server is started by the words of `mira serve`, and every run scores by `mira score`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from distilled_runs import (
    GROUP,
    NUM_RECORDS,
    distilled,
    over,
    ratings,
    scored,
    write_distilling_recipe,
)
from vllm_server import VLLM_SETTINGS, VllmServer, free_port, running, vllm_python

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
# Seen over 2,879 slots: 0.00001. The rest is room for sums of float32 in another order.
TOLERANCE = 0.001
FULL = {"answer_mode": "full", "temperature": 0.0, "top_p": 1.0}
# Columns that say what the scorer answered; `scores` is compared apart.
ANSWERED = ("record_id", "status", "reason", "raw", "num_prompt_tokens", "num_output_tokens")

Ratings = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose scorer is distilled."""
    path = write_distilling_recipe(tmp_path_factory.mktemp("distilled") / "run.yaml")
    distilled(path)
    return path


@pytest.fixture(scope="module")
def expected_here(recipe: Path) -> Ratings:
    """The ratings by the transformers engine, with expected scores."""
    return scored(over(recipe, "here_expected", {}))


@pytest.fixture(scope="module")
def server(recipe: Path) -> Iterator[VllmServer]:
    """The scorer behind the server that `mira serve --run` runs, which ends with it."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mira_megatron.cli", *serve_words(recipe, url)]
    served = VllmServer(url=url, model=f"mira-smoke-{GROUP}")
    with running(command, served, recipe.parent / "vllm.log") as process:
        of_vllm = descendants(process.pid)
        yield served
        process.terminate()
        assert process.wait(90) == 128 + signal.SIGTERM
    assert any("EngineCore" in name for name in of_vllm.values())
    assert {pid: name for pid, name in of_vllm.items() if is_running(pid)} == {}


def serve_words(recipe: Path, url: str) -> list[str]:
    """Returns the words after `mira` that serve the group's scorer from vLLM's environment."""
    more = "--dtype float32 --enforce-eager"  # compiling takes longer than all that is asked
    place = ["--gpus", "0", "--port", url.rpartition(":")[2], "--python", str(vllm_python())]
    return ["serve", str(recipe), "--group", GROUP, *place, "--vllm", more, "--run"]


def descendants(pid: int) -> dict[int, str]:
    """Returns the processes that a process has started, and those that they have, by their ids."""
    found: dict[int, str] = {}
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            found |= descendants(child)
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_same(found: Ratings, by_transformers: Ratings) -> None:
    """Fails unless all answers are equal, word for word, and all scores within the tolerance."""
    assert len(found) == NUM_RECORDS
    for one, other in zip(found, by_transformers, strict=True):
        assert {name: one[name] for name in ANSWERED} == {name: other[name] for name in ANSWERED}
        assert one["scores"] == pytest.approx(other["scores"], abs=TOLERANCE)


def test_scorer_has_learned_enough_for_the_comparison_to_mean_something(
    expected_here: Ratings,
) -> None:
    raw = [row["raw"] or "" for row in expected_here]
    readable = [row for row in expected_here if row["status"] in ("ok", "partial")]
    assert len(readable) >= 0.95 * NUM_RECORDS
    assert len(set(raw)) > 10
    for what in (": 10/10", ": 1/10", ": n/a"):
        assert any(what in answer for answer in raw), what
    assert any(score is None for row in readable for score in row["scores"])


def test_expected_scores_of_a_server_are_those_of_transformers(
    recipe: Path, server: VllmServer, expected_here: Ratings
) -> None:
    endpoint = {"engine": "endpoint", "endpoints": [server.endpoint]}
    found = scored(over(recipe, "served_expected", endpoint))
    assert {row["answer_mode"] for row in found} == {"expected"}
    assert {row["model"] for row in found} == {server.model}
    assert_same(found, expected_here)


def test_greedy_answers_of_a_server_are_those_of_transformers(
    recipe: Path, server: VllmServer
) -> None:
    by_transformers = scored(over(recipe, "here_full", FULL))
    endpoint = {"engine": "endpoint", "endpoints": [server.endpoint], **FULL}
    assert_same(scored(over(recipe, "served_full", endpoint)), by_transformers)


def test_expected_scores_of_vllm_in_process_are_those_of_transformers(
    recipe: Path, expected_here: Ratings
) -> None:
    offline = over(recipe, "offline", {"engine": "vllm", "dtype": "float32"})
    outcome = subprocess.run(
        [str(vllm_python()), "-m", "mira_megatron.cli", "score", str(offline)],
        env={**os.environ, **VLLM_SETTINGS, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert outcome.returncode == 0, outcome.stderr[-4000:]
    assert_same(ratings(offline), expected_here)
