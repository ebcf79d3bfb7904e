"""The client path is the real one: the rule judge over HTTP rates as it does in process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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
STAGES = ("ingest", "group", "discover", "anchor", "label", "score")
WITH_RELIABILITY = (*STAGES, "reliability")
RATED = [
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
# What both ways must agree on; the rest says how the record was asked about.
JUDGED = {
    "judgments/smoke/*/part-*.parquet": ["record_id", "part", "dimension", "score", "reason"],
    "judgments/smoke/*/answers-*.parquet": ["record_id", "num_judgments", "status", "raw"],
    "teacher_ratings/smoke/*/part-*.parquet": ["record_id", "scores", "status", "raw", "split"],
    "reliability/smoke/*/part-*.parquet": RATED,
    "reliability/smoke/*/cells.parquet": ["source", "anchor_id", "n", "mae", "rho", "reason"],
    "ratings/smoke/*/part-*.parquet": RATED,
}
RATINGS = "ratings/smoke/*/part-*.parquet"
CELLS = "reliability/smoke/*/cells.parquet"
RUNS = ("in_process", "over_http")


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


def judge(
    folder: Path, *overrides: str, stages: Sequence[str] = STAGES
) -> dict[str, list[dict[str, Any]]]:
    """Returns what was judged on the smoke recipe, 30 records per source, by kind of file."""
    small = [f"sources.{name}.max_records=30" for name in ("modules", "questions", "traces")]
    recipe = load_recipe(SMOKE, [*small, f"run_folder={folder}", *overrides])
    run_stages(recipe, stages, Resources())
    return {pattern: rows(folder, pattern, columns) for pattern, columns in JUDGED.items()}


def rows(folder: Path, pattern: str, columns: list[str]) -> list[dict[str, Any]]:
    parts = sorted(folder.glob(pattern))
    return [row for part in parts for row in pq.read_table(part, columns=columns).to_pylist()]


def endpoint(section: str, *urls: str) -> list[str]:
    return [
        f"{section}.engine=endpoint",
        f"{section}.endpoints=[{','.join(urls)}]",
        f"{section}.model={MODEL_NAME}",
        f"{section}.temperature=0",
        f"{section}.top_p=1",
        f"{section}.max_tokens=2048",
    ]


def test_judgments_anchors_and_ratings_over_http_equal_those_in_process(
    tmp_path: Path, judge_url: str
) -> None:
    in_process = judge(tmp_path / "in_process", stages=WITH_RELIABILITY)
    over_http = judge(
        tmp_path / "over_http",
        *endpoint("teacher", judge_url),
        *endpoint("score", judge_url),
        stages=WITH_RELIABILITY,
    )
    assert len(in_process[RATINGS]) == 90
    assert len(in_process[CELLS]) == 45
    assert over_http == in_process
    (found, again) = (sorted(tmp_path.glob(f"{run}/anchors/**/anchors.jsonl")) for run in RUNS)
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in again]


def test_endpoint_that_is_dead_costs_no_record_while_another_lives(
    tmp_path: Path, judge_url: str
) -> None:
    judged = judge(tmp_path, *endpoint("score", "http://127.0.0.1:9/v1", judge_url))
    assert {row["status"] for row in judged[RATINGS]} <= {"ok", "partial"}


def test_only_endpoint_dead_stops_with_the_reason_and_the_next_run_asks_again(
    tmp_path: Path, judge_url: str
) -> None:
    message = r"score \w+: \d+ of 30 records got no usable answer \(failed: connection \d+\)"
    with pytest.raises(ValueError, match=message):
        judge(tmp_path, *endpoint("score", "http://127.0.0.1:9/v1"), "score.max_retries=0")
    assert not list(tmp_path.glob(RATINGS))
    assert len(judge(tmp_path, *endpoint("score", judge_url))[RATINGS]) == 90
