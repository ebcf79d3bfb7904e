"""The SLURM script that serves a model and has it answer; server and `mira` are played here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "launchers" / "slurm" / "evaluate.sh"
SERVER = """#!{python}
import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
open("server.words", "w").write("\\0".join(sys.argv[1:]))
open("server.pid", "w").write(str(os.getpid()))
if os.environ.get("SERVER") == "dies":
    sys.exit(3)
if os.environ.get("SERVER") == "never":
    time.sleep(600)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words):
        pass
HTTPServer(("127.0.0.1", int(os.environ["MIRA_PORT"])), Handler).serve_forever()
"""
MIRA = """#!/bin/bash
printf '%s\\0' "$@" > mira.words
trap 'echo told > mira.told; exit 143' TERM
case "${ASKED:-}" in
    waits) sleep 600 >/dev/null 2>&1 & wait $! ;;
    *) exit "${ASKED:-0}" ;;
esac
"""
SCONTROL = """#!/bin/bash
echo "$@" >> scontrol.words
if [ "$1" = show ]; then echo "JobId=7 JobState=${STATE:-RUNNING} x"; fi
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("vllm", SERVER.format(python=sys.executable)),
        ("mira", MIRA),
        ("scontrol", SCONTROL),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def started(folder: Path, *words: str, **environment: str) -> subprocess.Popen[bytes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = {"SLURM_JOB_ID": "7", "MIRA_MODEL": "models/a b", "MIRA_PORT": port}
    return subprocess.Popen(
        ["bash", SCRIPT, *words],
        cwd=folder,
        env={"PATH": f"{folder}:{os.environ['PATH']}", **own, **environment},
        stderr=subprocess.PIPE,
    )


def words_of(path: Path) -> list[str]:
    return path.read_text().split("\0")


def is_alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


def test_model_is_served_under_its_name_and_asked_for_all_answers(folder: Path) -> None:
    words = ["my suites/s.yaml", "--output", "$(touch gone); *"]
    job = started(folder, *words, MIRA_NAME="arm", MIRA_SERVER_WORDS="--dtype bfloat16")
    assert job.wait(60) == 0
    served = words_of(folder / "server.words")
    assert served[:4] == ["serve", "models/a b", "--served-model-name", "arm"]
    assert served[-2:] == ["--dtype", "bfloat16"]
    asked = words_of(folder / "mira.words")[:-1]
    assert asked[:4] == ["evaluate", *words]
    assert asked[-3:] == ["--model", "arm", "--generate-only"]
    assert asked[4:6] == ["--endpoint", f"http://127.0.0.1:{served[served.index('--port') + 1]}/v1"]
    assert not is_alive(folder / "server.pid")
    assert not (folder / "gone").exists()


def test_exit_code_is_that_of_what_asked(folder: Path) -> None:
    job = started(folder, "suite", ASKED="2")
    assert job.wait(60) == 2
    assert not is_alive(folder / "server.pid")


@pytest.mark.parametrize(
    ("server", "message"), [("dies", "ended before it was up"), ("never", "is not up after")]
)
def test_server_that_never_comes_up_fails_the_job(folder: Path, server: str, message: str) -> None:
    job = started(folder, "suite", SERVER=server, MIRA_SERVER_SECONDS="1")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1
    assert message in said.decode()
    assert not (folder / "mira.words").exists()
    assert not is_alive(folder / "server.pid")


def test_server_that_dies_while_asked_fails_the_job_and_ends_the_asking(folder: Path) -> None:
    job = started(folder, "suite", ASKED="waits")
    wait_for(folder / "mira.words")
    os.kill(int((folder / "server.pid").read_text()), signal.SIGKILL)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "ended while it was asked" in said.decode()
    assert (folder / "mira.told").exists()


@pytest.mark.parametrize(("state", "is_back"), [("RUNNING", True), ("COMPLETING", False)])
def test_job_that_is_told_to_end_goes_back_into_the_queue_unless_cancelled(
    folder: Path, state: str, is_back: bool
) -> None:
    job = started(folder, "suite", ASKED="waits", STATE=state)
    wait_for(folder / "mira.words")
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=60)
    assert job.returncode == 75
    assert (folder / "mira.told").exists()
    assert not is_alive(folder / "server.pid")
    assert ("requeue 7" in (folder / "scontrol.words").read_text()) == is_back


@pytest.mark.parametrize("missing", ["MIRA_MODEL", "SLURM_JOB_ID"])
def test_script_without_a_model_or_outside_of_slurm_says_how_it_is_sent(
    folder: Path, missing: str
) -> None:
    job = started(folder, "suite", **{missing: ""})
    _, said = job.communicate(timeout=60)
    assert job.returncode == 2
    assert b"usage: MIRA_MODEL=FOLDER sbatch" in said
