"""The client path is the real one: the rule judge over HTTP rates as it does in process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.rubric.rule_judge import MODEL_NAME
from mira_megatron.stage import Resources

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
# What both ways must agree on; the rest says how the record was asked about.
JUDGED = [
    "record_id",
    "scores",
    "rationales",
    "overall",
    "training_recommendation",
    "domain_tag",
    "brief",
    "status",
    "reason",
    "raw",
]


@pytest.fixture(scope="module")
def judge_url() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mira_megatron.cli", "judge-server", "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert server.poll() is None, "the judge server died"
        try:
            with urlopen(url) as reply:
                assert reply.status == 200
            return
        except URLError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer in 20 s")


def rate(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    """Returns the ratings of the smoke recipe, 30 records per source."""
    small = [f"sources.{name}.max_records=30" for name in ("modules", "questions", "traces")]
    recipe = load_recipe(SMOKE, [*small, f"run_folder={folder}", *overrides])
    run_stages(recipe, ["ingest", "score"], Resources())
    parts = sorted(folder.glob("ratings/rule_judge/*/part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part, columns=JUDGED).to_pylist()]


def endpoint(*urls: str) -> list[str]:
    return [
        "score.engine=endpoint",
        f"score.endpoints=[{','.join(urls)}]",
        f"score.model={MODEL_NAME}",
        "score.temperature=0",
        "score.top_p=1",
        "score.max_tokens=2048",
    ]


def test_ratings_over_http_equal_those_in_process(tmp_path: Path, judge_url: str) -> None:
    in_process = rate(tmp_path / "in_process")
    over_http = rate(tmp_path / "over_http", *endpoint(judge_url))
    assert len(in_process) == 90
    assert over_http == in_process


def test_endpoint_that_is_dead_costs_no_record_while_another_lives(
    tmp_path: Path, judge_url: str
) -> None:
    ratings = rate(tmp_path, *endpoint("http://127.0.0.1:9/v1", judge_url))
    assert {row["status"] for row in ratings} <= {"ok", "partial"}


def test_only_endpoint_dead_stops_with_the_reason_and_the_next_run_asks_again(
    tmp_path: Path, judge_url: str
) -> None:
    with pytest.raises(ValueError, match=r"30 of 30 records .* got no rating.*failed, connection"):
        rate(tmp_path, *endpoint("http://127.0.0.1:9/v1"), "score.max_retries=0")
    assert not list(tmp_path.glob("ratings/rule_judge/*/part-*.parquet"))
    assert len(rate(tmp_path, *endpoint(judge_url))) == 90
