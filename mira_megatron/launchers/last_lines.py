"""The last lines of a log, fit to be shown: a server's or a model's words are not trusted."""

from __future__ import annotations

from pathlib import Path

_MOST_BYTES = 32_768
_MOST_CHARS = 300  # of a line


def last_lines(path: Path, number: int, *, start: int = 0) -> list[str]:
    """Returns up to `number` last lines that are not blank, of those from byte `start` on.

    Control characters are escaped, so that a terminal takes none as a command, and long lines cut.
    A file that is not there has no lines.
    """
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(start, size - _MOST_BYTES))
            content = log.read(_MOST_BYTES)
    except FileNotFoundError:
        return []
    # What a progress bar writes over itself is one line each time; the last counts.
    lines = content.decode(errors="replace").split("\n")
    written = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines]
    return [shown(line) for line in written if line.strip()][-number:]


def shown(line: str) -> str:
    """Returns a line with its control characters escaped, and cut where it is long."""
    escaped = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in line.rstrip().replace("\t", "    ")
    )
    return escaped if len(escaped) <= _MOST_CHARS else f"{escaped[: _MOST_CHARS - 1]}…"
