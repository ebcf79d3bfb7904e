"""One test for each way out of a sandbox: what is on the host is real, and looked at from there."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sandboxed_jobs import limited, python_job

from mira_megatron.eval.sandbox.contract import Sandbox


def test_server_of_the_host_is_not_reached(sandbox: Sandbox) -> None:
    program = (
        "import socket, sys\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', int(sys.stdin.read())), 5)\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, [name for _, name in socket.if_nameindex()])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = sandbox.run(python_job(program, stdin=str(port).encode()))
    assert outcome.stdout == b"ConnectionRefusedError ['lo']\n"


def test_unix_socket_without_a_file_is_not_reached(sandbox: Sandbox) -> None:
    name = secrets.token_hex(8)
    program = (
        "import socket, sys\nsocket.socket(socket.AF_UNIX).connect('\\0' + sys.stdin.read())\n"
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        outcome = sandbox.run(python_job(program, stdin=name.encode()))
    assert b"ConnectionRefusedError" in outcome.stderr


def test_metadata_address_is_not_reached(sandbox: Sandbox) -> None:
    program = "import socket; socket.create_connection(('169.254.169.254', 80), 5)"
    assert b"Network is unreachable" in sandbox.run(python_job(program)).stderr


@pytest.mark.parametrize("path", ["/etc/passwd", "/root", "/home", "/var", "/sys", "/run", "/boot"])
def test_folders_of_the_host_are_not_there(sandbox: Sandbox, path: str) -> None:
    outcome = sandbox.run(python_job(f"import os; print(os.path.lexists('{path}'))"))
    assert outcome.stdout == b"False\n"


def test_file_beside_the_programs_of_the_host_is_not_read(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("expected values")
    outcome = sandbox.run(python_job(f"print(open({str(secret)!r}).read())"))
    assert b"FileNotFoundError" in outcome.stderr


def test_symlink_out_of_work_leads_nowhere(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("expected values")
    program = (
        "import os\n"
        f"os.symlink({str(secret)!r}, 'link')\n"
        f"os.symlink('/proc/1/root' + {str(secret)!r}, 'link2')\n"
        "for name in ('link', 'link2'):\n"
        "    for mode in 'rw':\n"
        "        try:\n"
        "            open(name, mode).read()\n"
        "            print('opened')\n"
        "        except OSError:\n"
        "            pass\n"
    )
    assert sandbox.run(python_job(program)).stdout == b""
    assert secret.read_text() == "expected values"


def test_processes_of_the_host_are_not_seen(sandbox: Sandbox) -> None:
    os.environ["MIRA_TEST_EXPECTED"] = "42"
    program = (
        "import glob\n"
        "names = glob.glob('/proc/[0-9]*')\n"
        "print(len(names), any(b'MIRA_TEST' in open(n + '/environ', 'rb').read() for n in names))\n"
    )
    try:
        outcome = sandbox.run(python_job(program))
    finally:
        del os.environ["MIRA_TEST_EXPECTED"]
    assert outcome.stdout == b"2 False\n"  # the first process and itself


def test_process_of_the_host_gets_no_signal(sandbox: Sandbox) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as victim:
        program = (
            "import os, signal, sys\n"
            "victim = int(sys.stdin.read())\n"
            "for pid in (victim, -victim, -1):\n"
            "    try:\n"
            "        os.kill(pid, signal.SIGTERM)\n"
            "        print('sent')\n"
            "    except ProcessLookupError:\n"
            "        pass\n"
        )
        outcome = sandbox.run(python_job(program, stdin=str(victim.pid).encode()))
        is_alive = victim.poll() is None
        victim.send_signal(signal.SIGKILL)
    assert is_alive
    # To everybody means the first process, which takes no signal from within.
    assert outcome.stdout in (b"", b"sent\n")


def test_daemon_does_not_outlive_the_job(sandbox: Sandbox) -> None:
    token = secrets.token_hex(12)
    outcome = sandbox.run(python_job(_DAEMON, stdin=token.encode()))
    assert outcome.stdout == b"started\n"
    assert not _is_running(token)


def test_daemon_does_not_outlive_the_clock(sandbox: Sandbox) -> None:
    token = secrets.token_hex(12)
    program = f"{_DAEMON}\nimport time; time.sleep(300)"
    limits = limited(wall_seconds=3)
    assert sandbox.run(python_job(program, stdin=token.encode(), limits=limits)).is_timed_out
    assert not _is_running(token)


def test_job_does_not_outlive_a_grader_that_is_killed(sandbox: Sandbox) -> None:
    token = secrets.token_hex(12)
    command = [sys.executable, "-c", _GRADER, token]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as grader:
        assert grader.stdout is not None
        assert grader.stdout.readline() == b"started\n"
        assert _comes_true(lambda: _is_running(token, "time.sleep"))
        grader.kill()
    assert _comes_true(lambda: not _is_running(token, "time.sleep"))


def test_program_has_no_capability_and_gains_none(sandbox: Sandbox) -> None:
    program = (
        "import ctypes, os\n"
        "print([line.split()[1] for line in open('/proc/self/status')\n"
        "       if line.startswith(('CapEff', 'CapPrm', 'NoNewPrivs'))])\n"
        "print(ctypes.CDLL(None).unshare(0x10000000), os.getuid())\n"
    )
    outcome = sandbox.run(python_job(program))
    no_capability = "0" * 16
    expected = f"{[no_capability, no_capability, '1']}\n-1 65534\n"
    assert outcome.stdout.decode() == expected


def test_job_finds_nothing_of_the_job_before(sandbox: Sandbox) -> None:
    program = (
        "import os\n"
        "print([os.listdir(f) for f in ('/tmp', '/dev/shm', '.')])\n"
        "[open(f + '/left', 'w').close() for f in ('/tmp', '/dev/shm', '.')]\n"
    )
    seen = [sandbox.run(python_job(program)).stdout for _ in range(2)]
    assert seen == [b"[[], [], ['program.py']]\n"] * 2


_DAEMON = (
    "import subprocess, sys\n"
    "command = [sys.executable, '-c', 'import time; time.sleep(300)', sys.stdin.read()]\n"
    "subprocess.Popen(command, start_new_session=True)\n"
    "print('started', flush=True)\n"
)


_GRADER = f"""
import sys
from mira_megatron.eval.sandbox.bubblewrap import BubblewrapSandbox
from sandboxed_jobs import python_job
program = {_DAEMON!r} + "; import time; time.sleep(300)"
print("started", flush=True)
BubblewrapSandbox(3).run(python_job(program, stdin=sys.argv[1].encode()))
"""


def _comes_true(is_true: Callable[[], bool]) -> bool:
    """Returns False where it has not within 20 s, which is less than the job has."""
    deadline = time.monotonic() + 20
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_running(token: str, *words: str) -> bool:
    """True = a process has the token, and the words, in its command."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes()
            if all(word.encode() in command for word in (token, *words)):
                return True
        except OSError:
            continue
    return False
