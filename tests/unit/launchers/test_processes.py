from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Sequence

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
