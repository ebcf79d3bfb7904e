"""A real vLLM server killed in mid-run and started again: `mira score` waits for it, and ends well.

What the server was asked is counted by the server itself, in its logs: a line for every request
that it received, written before it is worked on, and one for every reply that it has begun to send.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_vllm_modes import MAX_MODEL_LEN, write_recipe
from tiny_chat_model import write_tiny_chat_model
from vllm_server import VllmServer, free_port, running, vllm_command

from mira_megatron.scoring.answer_store import AnswerStore

pytestmark = pytest.mark.integration

NUM_RECORDS = 48
IN_FLIGHT = 16
KILLED_AFTER = 16  # replies
RECEIVED = "Received request chatcmpl-"
REPLIED = '"POST /v1/chat/completions HTTP/1.1" 200'
_TIMEOUT_SECONDS = 900


def test_server_killed_and_started_again_in_mid_run_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    model = write_tiny_chat_model(tmp_path / "tiny-chat")
    server = VllmServer(url=f"http://127.0.0.1:{free_port()}", model=model.name)
    command = [*vllm_command(model, server, max_model_len=MAX_MODEL_LEN), "--enable-log-requests"]
    recipe = write_recipe(
        tmp_path / "run.yaml",
        num_records=NUM_RECORDS,
        engine="endpoint",
        endpoints=[server.endpoint],
        model=server.model,
        temperature=0.0,
        max_in_flight=IN_FLIGHT,
    )
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with running(command, server, first) as process, scoring(recipe) as (score, output):
        wait_until(lambda: is_in_mid_run(first), score, output)
        os.killpg(process.pid, signal.SIGKILL)  # the server, and the engine that it has started
        process.wait()
        with running(command, server, second):
            assert score.poll() is None, output.read_text()
            assert score.wait(_TIMEOUT_SECONDS) == 0, output.read_text()
    asked, asked_later = count(first, RECEIVED), count(second, RECEIVED)
    assert asked < NUM_RECORDS
    assert 0 < asked + asked_later - NUM_RECORDS <= IN_FLIGHT  # what was in flight, once more
    folder = recipe.with_suffix("")
    rows = [
        row
        for path in sorted(folder.glob("ratings/*/modules/part-*.parquet"))
        for row in pq.read_table(path, columns=["record_id", "status"]).to_pylist()
    ]
    assert Counter(row["status"] for row in rows) == {"ok": NUM_RECORDS}
    assert len({row["record_id"] for row in rows}) == NUM_RECORDS
    assert len(AnswerStore(folder / "answers")) == NUM_RECORDS


def is_in_mid_run(log: Path) -> bool:
    """Returns whether the server has answered some, and is at work on others."""
    num_replied = count(log, REPLIED)
    return num_replied >= KILLED_AFTER and count(log, RECEIVED) - num_replied >= IN_FLIGHT // 2


@contextmanager
def scoring(recipe: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Yields a running `mira score`, and the file of its output; ends it if it has not ended."""
    output = recipe.with_suffix(".log")
    command = [sys.executable, "-m", "mira_megatron.cli", "score", str(recipe)]
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process, output
    finally:
        process.kill()
        process.wait()


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes], output: Path) -> None:
    """Waits while the process runs."""
    while not is_so():
        assert process.poll() is None, f"the run ended too early: {output.read_text()}"
        time.sleep(0.01)


def count(log: Path, words: str) -> int:
    """Returns how many lines of a log hold these words."""
    return sum(words in line for line in log.read_text(errors="replace").splitlines())
