"""Where blocks of C++, C# and Java begin and end, whatever their strings and comments hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

_COMMENTS = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_STRING = r'"(?:\\.|[^"\\\n])*"'
_CHARACTER = r"(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'"  # not the separator in 1'000
_HIDDEN: Mapping[str, re.Pattern[str]] = {
    "cpp": re.compile(
        rf'{_COMMENTS}|R"([^()\\\s]{{0,16}})\(.*?\)\1"|{_STRING}|{_CHARACTER}', re.DOTALL
    ),
    "cs": re.compile(rf'{_COMMENTS}|\$?@\$?"(?:""|[^"])*"|{_STRING}|{_CHARACTER}', re.DOTALL),
    "java": re.compile(rf'{_COMMENTS}|""".*?"""|{_STRING}|{_CHARACTER}', re.DOTALL),
}


def bare(code: str, language: str) -> str:
    """Returns code of the same length, with blanks for what strings and comments hold."""
    return _HIDDEN[language].sub(lambda found: re.sub(r"[^\n]", " ", found[0]), code)


def block_end(bare_code: str, start: int) -> int | None:
    """Returns where the block ends whose first brace comes at `start` or later: at its last brace.

    None where there is no block, or it is not closed.
    """
    depth = 0
    for brace in re.finditer(r"[{}]", bare_code[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return start + brace.start()
        if depth < 0:
            return None
    return None


def statement_start(bare_code: str, place: int) -> int:
    """Returns where the line begins that holds a place, or the statement, if it begins later."""
    before = max(bare_code.rfind(character, 0, place) for character in "\n;{}")
    return before + 1
