"""Tables for people: in the terminal, and in Markdown that a stranger's words cannot break."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

_MARKUP = re.compile(r"^[-+#=]|[\\`*_\[\]|~$]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


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
