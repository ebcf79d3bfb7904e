"""Has a child run a program together with its unittest tests, and hands on what it reports.

Started inside the sandbox with the request on stdin. The driver never loads the program: its memory
is closed to the child, and with it the nonce that marks its record. A child that ends the process
has ended itself: that it did, and which tests it had reported by then, is what is recorded.

Events carry a token that the child was given before it loaded the program; what the program writes
by itself, without going through the child's frames, has none and is not passed on.

Writes to the results descriptor one JSON object: {"nonce", "exit_code", "events"}, the events as
unittest_child.py writes them.
"""

import ctypes
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_PR_SET_DUMPABLE = 4
_MOST_BYTES = 1 << 20  # of events
_CHUNK_BYTES = 1 << 16
_CHILD = Path(__file__).with_name("unittest_child.py")


def main() -> None:
    """Runs the child to its end."""
    request = json.load(sys.stdin)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
    results = int(os.environ.pop("MIRA_RESULTS_FD"))
    nonce = request.pop("nonce")
    request["token"] = secrets.token_hex(16)
    ours, childs = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-B", "-s", str(_CHILD), str(childs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(childs,),
        cwd=tempfile.mkdtemp(),  # tests list and remove what is in their folder
        start_new_session=True,
    )
    os.close(childs)
    assert child.stdin is not None
    child.stdin.write(json.dumps(request).encode())
    child.stdin.close()
    content = _read(ours, child)
    record = {
        "nonce": nonce,
        "exit_code": child.wait(),
        "events": _events(content, request["token"]),
    }
    left = memoryview(json.dumps(record).encode())
    while left:
        left = left[os.write(results, left) :]


def _read(descriptor: int, child: subprocess.Popen[bytes]) -> bytes:
    """Returns what the child wrote until it ended; what it started may hold the pipe longer."""
    content = bytearray()
    ended = os.pidfd_open(child.pid)
    os.set_blocking(descriptor, False)
    is_ended = False
    while not is_ended:
        readable, _, _ = select.select([descriptor, ended], [], [])
        is_ended = ended in readable
        while chunk := _chunk(descriptor):
            content += chunk[: _MOST_BYTES - len(content)]
        if chunk == b"":  # closed: nothing but its end can come
            select.select([ended], [], [])
            is_ended = True
    return bytes(content)


def _chunk(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except BlockingIOError:
        return None


def _events(content: bytes, token: str) -> list[dict[str, Any]]:
    events = []
    for line in content.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            break
        if isinstance(event, dict) and event.pop("token", None) == token:
            events.append(event)
    return events


if __name__ == "__main__":
    main()
