"""Starts the instant server beside a benchmark, and reads its counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

_SCRIPT = Path(__file__).with_name("instant_server.py")


@contextmanager
def instant_server(*, latency_ms: float = 0.0, answer_file: Path | None = None) -> Iterator[str]:
    """Yields the base URL, such as http://127.0.0.1:41234/v1, of a server in its own process."""
    command = [sys.executable, str(_SCRIPT), "--port", "0", "--latency-ms", str(latency_ms)]
    if answer_file is not None:
        command += ["--answer-file", str(answer_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.terminate()


def stats(base_url: str) -> dict[str, int]:
    """Returns the server's counts since the last call, which starts them anew."""
    root = base_url.removesuffix("/v1")
    with urlopen(f"{root}/stats?reset") as reply:
        counts: dict[str, int] = json.load(reply)
    return counts
