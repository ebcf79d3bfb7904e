"""Runs inside a sandbox: loads a program that nobody has read and calls one function of it.

Everything here is within reach of that program, and is not believed: it can give back wrong values,
but it has never seen the right ones.
"""

from __future__ import annotations

import json
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
# The folder is not searched by a Python that is started with -I, nor by the program's own imports.
import mira_call_frames  # type: ignore[import-not-found]
import mira_call_values  # type: ignore[import-not-found]

sys.path.pop(0)

_MESSAGE_CHARS = 500


def main() -> None:
    """Answers every call that comes through the channel, until it is closed."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    most_bytes = int(sys.argv[2])
    send, receive, closed = (
        mira_call_frames.send,
        mira_call_frames.receive,
        mira_call_frames.ChannelClosed,
    )
    encode, decode, not_a_value = (
        mira_call_values.encode,
        mira_call_values.decode,
        mira_call_values.NotAValue,
    )
    task = json.loads(receive(channel, 1 << 31))
    loaded = _load(task["program"], task["function"])
    if not callable(loaded):
        send(channel, _message("not_loaded", loaded))
        return
    send(channel, _message("loaded", ""))
    while True:
        try:
            arguments = decode(receive(channel, 1 << 31))
        except closed:
            return
        answer = _answer(loaded, arguments, encode, not_a_value)
        if len(answer) > most_bytes:
            answer = _message("unserialisable", f"more than {most_bytes:,} bytes")
        send(channel, answer)


def _load(program: str, function: str) -> Callable[..., object] | str:
    """Returns the function, or what was raised or missing in its place."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(program, "program.py", "exec"), module.__dict__)
    except BaseException as error:
        return _said(error)
    found = module.__dict__.get(function)
    return found if callable(found) else f"the program has no function {function}"


def _answer(
    function: Callable[..., object],
    arguments: list[Any],
    encode: Callable[[object], str],
    not_a_value: type[Exception],
) -> bytes:
    try:
        value = function(*arguments)
    except BaseException as error:
        return _message("raised", _said(error))
    try:
        return b"value\n" + encode(value).encode()
    except not_a_value as error:
        return _message("unserialisable", str(error))
    except BaseException as error:
        return _message("unserialisable", _said(error))


def _said(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException:
        message = ""
    return f"{type(error).__name__}: {message}"[:_MESSAGE_CHARS]


def _message(kind: str, detail: object) -> bytes:
    return f"{kind}\n{detail}".encode(errors="backslashreplace")


if __name__ == "__main__":
    main()
