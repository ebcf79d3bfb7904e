"""datatrove, as benchmarks run it beside ours: its environment is built, and it answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

pytestmark = pytest.mark.integration

PEERS = Path(__file__).parents[2] / "benchmarks" / "harness" / "peers.py"
SYSTEM = "You judge records."


class Chat(BaseHTTPRequestHandler):
    """Answers a request that has the system message, and refuses any other."""

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": []})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        system, user = request["messages"]
        is_as_told = system == {"role": "system", "content": SYSTEM} and request["max_tokens"] == 7
        message = {"role": "assistant", "content": f"read {len(user['content'])}"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self._reply(200 if is_as_told else 503, {"choices": choices, "usage": usage})

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _reply(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    rows = [{"id": f"r{number}", "text": "word " * (number + 1)} for number in range(40)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def system(tmp_path: Path) -> Path:
    path = tmp_path / "system.txt"
    path.write_text(SYSTEM)
    return path


def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", PEERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("more", [[], ["--no-checkpoints"]])
def test_datatrove_answers_every_record(
    url: str, records: Path, system: Path, tmp_path: Path, more: list[str]
) -> None:
    words = ["--system-file", str(system), "--max-tokens", "7", *more]
    scoring = peers().score_with_datatrove(url, records, tmp_path / "out", more=words)
    assert scoring.records == 40
    assert scoring.seconds > 0
    assert scoring.cpu_seconds > 0
    rows = [
        json.loads(line)
        for path in (tmp_path / "out/answers").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    read = {row["id"]: row["metadata"]["rollout_results"][0]["text"] for row in rows}
    assert read == {f"r{number}": f"read {5 * (number + 1)}" for number in range(40)}
    assert (tmp_path / "out/checkpoints").exists() == (not more)


def test_datatrove_that_fails_gives_no_figure(url: str, records: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        peers().score_with_datatrove(url, records, tmp_path / "out")
