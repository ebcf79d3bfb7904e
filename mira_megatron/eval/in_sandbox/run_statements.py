"""Runs SQL statements on SQLite files that may only be read, and writes what they return.

Started inside the sandbox with the request on stdin. It knows no right answers. Every statement has
a process and a connection of its own. A statement may read tables and call functions, nothing else:
the authoriser refuses whatever changes a database, attaches another file, sets a pragma or loads an
extension. It is ended when its CPU time is up, by SQLite's progress handler, or by a signal that
kills where SQLite does not get to its handler.

Writes to the results descriptor JSON lines: {"sqlite"} first; per statement {"statement", "rows"}
as they are fetched, then {"statement", "end", "detail", "columns"}; {"statement", "status"} as its
process ends. A value is null, a number or a string; {"blob"} and {"text"}, of bytes that are no
UTF-8, hold base64.
"""

import base64
import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
import urllib.parse
from typing import Any

_TIME_IS_UP = 75  # exit status
_BATCH_ROWS, _BATCH_BYTES = 500, 1 << 20
_STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's virtual machine: well below a millisecond
_KILL_SECONDS = 1.0  # of CPU beyond the limit, for what the progress handler cannot end
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
# Names are not in the sqlite3 module of Python 3.10, and nor is setlimit.
_LIMIT_LENGTH, _LIMIT_ATTACHED = 0, 7
_OUT_OF_TIME = (-signal.SIGPROF, -signal.SIGALRM, -signal.SIGXCPU)


class _Text(bytes):
    """Bytes of a value that SQLite calls text; a blob comes as plain bytes."""


class _TooLarge(Exception):
    """More rows or bytes than a statement may return."""


def main() -> None:
    """Runs every statement in turn; one that ran out of time is not run on further databases."""
    request = json.load(sys.stdin)
    results = int(os.environ["MIRA_RESULTS_FD"])
    _write(results, _line({"sqlite": sqlite3.sqlite_version}))
    out_of_time = set()
    for number, (path, statement) in enumerate(request["statements"]):
        if statement in out_of_time:
            end = {"end": "timeout", "detail": "on another database"}
            _write(results, _line({"statement": number, **end}))
            continue
        child = os.fork()
        if child == 0:
            _run(request, number, path, statement, results)
            os._exit(0)
        _, wait_status = os.waitpid(child, 0)
        status = os.waitstatus_to_exitcode(wait_status)
        if status in (_TIME_IS_UP, *_OUT_OF_TIME):
            out_of_time.add(statement)
        # A process that was killed may have left half a line.
        _write(results, b"\n" + _line({"statement": number, "status": status}))


def _run(request: dict[str, Any], number: int, path: str, statement: str, results: int) -> None:
    """Runs one statement; leaves with a status of its own where its time was up."""
    void = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(void, descriptor)
    limit = request["cpu_seconds"]
    signal.setitimer(signal.ITIMER_PROF, limit + _KILL_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, request["wall_seconds"])
    end: dict[str, Any] = {"statement": number}
    try:
        cursor = _connection(path, request).execute(statement)
        columns = cursor.description
        _fetch(cursor, request, number, results)
        end["columns"] = len(columns or ())
        end["end"] = "rows" if columns else "error"
        end["detail"] = "" if columns else "no statement that returns rows"
    except _TooLarge as error:
        end.update(end="too_large", detail=str(error))
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
        is_over = "interrupt" in str(error) and time.process_time() >= limit
        said = "out of memory" if isinstance(error, MemoryError) else str(error)
        end.update(end="timeout" if is_over else "error", detail=said[:300])
    _write(results, _line(end))
    if end["end"] == "timeout":
        os._exit(_TIME_IS_UP)


def _connection(path: str, request: dict[str, Any]) -> sqlite3.Connection:
    place = f"file:{urllib.parse.quote(path)}?mode=ro&immutable=1"
    connection = sqlite3.connect(place, uri=True, isolation_level=None)
    connection.text_factory = _Text
    if hasattr(connection, "setlimit"):
        connection.setlimit(_LIMIT_LENGTH, request["max_value_bytes"])
        connection.setlimit(_LIMIT_ATTACHED, 0)
    # A table-valued function is set up on its first use, by what the authoriser would refuse.
    with contextlib.suppress(sqlite3.Error):
        connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
    limit = request["cpu_seconds"]
    connection.set_progress_handler(lambda: time.process_time() >= limit, _STEPS_BETWEEN_LOOKS)
    connection.set_authorizer(_answer)
    return connection


def _answer(action: int, first: object, second: object, *_: object) -> int:
    is_function = action == sqlite3.SQLITE_FUNCTION and str(second).lower() != "load_extension"
    return sqlite3.SQLITE_OK if is_function or action in _ALLOWED else sqlite3.SQLITE_DENY


def _fetch(cursor: sqlite3.Cursor, request: dict[str, Any], number: int, results: int) -> None:
    num_bytes = 0
    rows: list[list[object]] = []
    num_pending_bytes = 0
    for num_rows, row in enumerate(cursor, start=1):
        if num_rows > request["max_rows"]:
            raise _TooLarge(f"more than {request['max_rows']:,} rows")
        rows.append([_written(value) for value in row])
        num_pending_bytes += sum(len(value) for value in row if isinstance(value, bytes))
        if len(rows) == _BATCH_ROWS or num_pending_bytes > _BATCH_BYTES:
            num_bytes += _write_rows(results, number, rows, request["max_bytes"] - num_bytes)
            rows, num_pending_bytes = [], 0
    if rows:
        _write_rows(results, number, rows, request["max_bytes"] - num_bytes)


def _write_rows(results: int, number: int, rows: list[list[object]], num_bytes_left: int) -> int:
    content = _line({"statement": number, "rows": rows})
    if len(content) > num_bytes_left:
        raise _TooLarge("more bytes than are compared")
    _write(results, content)
    return len(content)


def _written(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    if isinstance(value, _Text):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"text": base64.b64encode(value).decode()}
    return {"blob": base64.b64encode(value).decode()}


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _write(results: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(results, left) :]


if __name__ == "__main__":
    main()
