from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp.test_utils import unused_port

from mira_megatron.launchers.processes import run_workers
from mira_megatron.stop_signals import INTERRUPTED, TERMINATED, Terminated, heeding_sigterm


def _is_served(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_sigterm_to_the_command_ends_its_workers() -> None:
    port = unused_port()

    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        try:
            return run_workers(["judge-server", "--port", str(port)], 1)
        except Terminated:
            return INTERRUPTED

    def terminate() -> None:
        while not _is_served(port):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    terminating = threading.Thread(target=terminate)
    terminating.start()
    assert command(None) == TERMINATED
    terminating.join()
    assert not _is_served(port)


def test_sigterm_while_workers_are_started_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Started(subprocess.Popen[bytes]):
        """Lives already when the signal comes, and is in nobody's hands yet."""

        def __init__(self, command: Sequence[str], **options: Any) -> None:
            super().__init__(["sleep", "60"], **options)
            started.append(self)
            if len(started) == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    @heeding_sigterm
    def command(argv: Sequence[str] | None) -> int:
        try:
            return run_workers(["score"], 2)
        except Terminated:
            return INTERRUPTED

    monkeypatch.setattr(subprocess, "Popen", Started)
    assert command(None) == TERMINATED
    assert [worker.returncode for worker in started] == [-signal.SIGTERM] * 2
