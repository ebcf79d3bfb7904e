"""A real vLLM server for tests, from an environment of its own (tests/environments/vllm.sh)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

_ENVIRONMENT = Path(__file__).parents[1] / "environments" / "vllm.sh"
_READY_SECONDS = 900  # 30 to 60 s on two idle cores, minutes beside other work
_STOP_SECONDS = 30
VLLM_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VllmServer:
    """A server that answers."""

    url: str  # without /v1
    model: str

    @property
    def endpoint(self) -> str:
        """Returns the base URL of its OpenAI-compatible interface."""
        return f"{self.url}/v1"

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Returns the JSON that the server answers."""
        written = json.dumps({"model": self.model, **body}).encode()
        request = Request(f"{self.url}{path}", written, {"Content-Type": "application/json"})
        with urlopen(request, timeout=120) as reply:
            return json.load(reply)

    def metric(self, name: str) -> float:
        """Returns the value of one of vLLM's counters."""
        with urlopen(f"{self.url}/metrics", timeout=30) as reply:
            lines = reply.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


def vllm_python() -> Path:
    """Returns the Python that has vLLM; without one the test skips, and fails under CI=true."""
    command = [str(_ENVIRONMENT), "--where"]
    with_python = {**os.environ, "MIRA_PYTHON": sys.executable}
    found = subprocess.run(command, env=with_python, stdout=subprocess.PIPE, check=True)
    python = Path(found.stdout.decode().strip()) / "bin" / "python"
    if not python.exists():
        missing = f"{python}: no vllm environment; {_ENVIRONMENT} makes it in two minutes"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return python


@contextmanager
def running_vllm(model_folder: Path, *, max_model_len: int, log_path: Path) -> Iterator[VllmServer]:
    """Serves a model while the context is open; ends the server and all its children after it."""
    server = VllmServer(url=f"http://127.0.0.1:{free_port()}", model=model_folder.name)
    command = vllm_command(model_folder, server, max_model_len=max_model_len)
    with running(command, server, log_path):
        yield server


def vllm_command(model_folder: Path, server: VllmServer, *, max_model_len: int) -> list[str]:
    """Returns the words that serve a model where and as the server says."""
    return [
        *(str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model_folder), "--served-model-name", server.model),
        *("--host", "127.0.0.1", "--port", server.url.rpartition(":")[2]),
        *("--max-model-len", str(max_model_len)),
        "--enforce-eager",  # compiling takes longer than all the requests of a test
        # Our requests carry seeds, and 0.32.0 on a CPU dies of a seed ("CPU Generator does not use
        # offset") once it reads a prompt in more than one step.
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max_model_len)),
    ]


@contextmanager
def running(
    command: Sequence[str], server: VllmServer, log_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command that serves; yields it when the server answers, and ends it after that."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **VLLM_SETTINGS},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, with the engine it starts
        )
    try:
        _wait_until_ready(server, process, log_path)
        yield process
    finally:
        _stop(process)


def free_port() -> int:
    """Returns a port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _wait_until_ready(server: VllmServer, process: subprocess.Popen[bytes], log_path: Path) -> None:
    for _ in range(4 * _READY_SECONDS):
        assert process.poll() is None, f"vLLM ended: {log_path.read_text()[-4000:]}"
        try:
            with urlopen(f"{server.url}/health", timeout=5) as reply:
                assert reply.status == 200
            return
        except (URLError, TimeoutError):
            time.sleep(0.25)
    raise AssertionError(
        f"vLLM was not ready in {_READY_SECONDS} s: {log_path.read_text()[-4000:]}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process group: politely, then for certain, the engine's orphans included."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):  # all are gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
