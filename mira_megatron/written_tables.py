"""Tables for people: in the terminal, and in Markdown that a stranger's words cannot break."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import unescape
from itertools import pairwise, zip_longest

from rich import box
from rich.table import Table
from rich.text import Text

_MARKUP = re.compile(r"^[-+#=]|[\\`*_\[\]|~$]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_ESCAPED = re.compile(r"\\([-+#=\\`*_\[\]|~$])")
_CELL_END = re.compile(r"(?<!\\)(?:\\\\)*\|")


def terminal_table(title: str) -> Table:
    """Returns an empty table in this package's terminal style."""
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table whose cells are Markdown already."""
    return [
        f"| {' | '.join(headings)} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def markdown_text(text: str) -> str:
    """Returns text on one line that Markdown shows as it is: no markup, no HTML, no table cell."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()).translate(_ENTITIES))


def printed_markdown(document: str) -> str:
    """Returns a document of this module's text and tables for a terminal: aligned, not escaped."""
    lines: list[str] = []
    rows: list[list[str]] = []
    for line in [*document.splitlines(), ""]:
        if line.startswith("| ") or (rows and line.startswith("|---")):
            rows.append(_cells(line))
            continue
        lines += _aligned(rows)
        rows = []
        lines.append(_unescaped(line))
    return "\n".join(lines[:-1])


def _cells(line: str) -> list[str]:
    """Returns what stands between the bars of a row; the line under headings has only bars."""
    ends = [match.end() for match in _CELL_END.finditer(line)]
    return [_unescaped(line[start : end - 1].strip()) for start, end in pairwise(ends)]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    rule = ["─" * width for width in widths]  # in the place of the line under the headings
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in (*rows[:1], *([rule] if rows else []), *rows[2:])
    ]


def _unescaped(text: str) -> str:
    return unescape(_ESCAPED.sub(r"\1", text))
