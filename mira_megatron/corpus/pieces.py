"""Cut a file into pieces where its own structure has a seam."""

from __future__ import annotations

import re
from collections.abc import Iterator

# After blank lines, before a line that is not indented: between paragraphs, between definitions.
_SEAM = re.compile(r"\n[^\S\n]*\n(?=\S)")


def pieces(text: str, max_chars: int) -> Iterator[tuple[int, str]]:
    """Yields the 1-based line and the text of each piece; together they are the text, unchanged.

    A piece holds as many stretches between seams as fit into `max_chars`. A stretch that is longer
    stays whole.
    """
    seams = [0, *(match.end() for match in _SEAM.finditer(text)), len(text)]
    start, line = 0, 1
    for end, following in zip(seams[1:], [*seams[2:], None], strict=True):
        if following is None or following - start > max_chars:
            if end > start:
                yield line, text[start:end]
            line += text.count("\n", start, end)
            start = end
