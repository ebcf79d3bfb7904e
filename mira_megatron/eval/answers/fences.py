"""The code in a chat's answer: what a fenced block of Markdown holds.

Answers are read as Markdown has it (CommonMark 0.31, section 4.5), and a little beyond, as models
write: a fence in a list may be indented by any depth, and a fence that names a language, inside of
a block that is as far to the left, ends the block that was forgotten and begins another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mira_megatron.eval.verdicts import Extraction

Which = Literal["first", "last", "longest"]

EMPTY = "empty"
NO_CODE_BLOCK = "no_code_block"
UNFINISHED_THOUGHT = "unfinished_thought"

_THOUGHT, _THOUGHT_ENDS = "<think>", "</think>"
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})(.*)")
_NAME = re.compile(r"[\w+#-]+")  # python, c++, C#; also in {.python} and python:file.py
_CLOSING_INDENT = 3  # deeper ones are lines of the code: a docstring may show fences


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block."""

    language: str  # as the fence names it, in lower case; "" where it names none
    code: str  # ends in a newline unless it is empty
    is_closed: bool


def code_in_answer(
    text: str, language_names: Sequence[str], *, which: Which = "first", allow_bare: bool = False
) -> Extraction:
    """Returns the code of the one block that counts, or why there is none.

    Blocks that name one of `language_names` come before those that name nothing, and these before
    all others; among equals closed ones come before the last one if it was never closed. `which`
    chooses where several are left. Blank blocks do not count. What a model thought, up to the last
    `</think>`, is no part of its answer.

    Reasons: "empty", "unfinished_thought" (no `</think>` after `<think>`) and "no_code_block"; with
    `allow_bare` an answer without any fence is code as a whole.
    """
    answer = text.rpartition(_THOUGHT_ENDS)[2]
    if answer.lstrip().startswith(_THOUGHT):
        return Extraction(code=None, reason=UNFINISHED_THOUGHT)
    if not answer.strip():
        return Extraction(code=None, reason=EMPTY)
    blocks = fenced_blocks(answer)
    if not blocks and allow_bare:
        return Extraction(code=answer)
    written = [block for block in blocks if block.code.strip()]
    if not written:
        return Extraction(code=None, reason=EMPTY if blocks else NO_CODE_BLOCK)
    names = {name.lower() for name in language_names}
    best = min(_rank(block, names) for block in written)
    equals = [block for block in written if _rank(block, names) == best]
    match which:
        case "first":
            chosen = equals[0]
        case "last":
            chosen = equals[-1]
        case "longest":
            chosen = max(equals, key=lambda block: len(block.code))
    return Extraction(code=chosen.code)


def fenced_blocks(text: str) -> list[Block]:
    """Returns the blocks in their order; only the last one may not be closed."""
    blocks: list[Block] = []
    opened: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        fence = _FENCE.fullmatch(line)
        if fence is not None and fence[2][0] == "`" and "`" in fence[3]:
            fence = None  # code within a line
        if opened is None:
            opened = fence
        elif fence is not None and _ends(opened, fence):
            blocks.append(_block(opened, lines, is_closed=True))
            opened = fence if fence[3].strip() else None
            lines = []
        else:
            lines.append(line)
    if opened is not None:
        blocks.append(_block(opened, lines, is_closed=False))
    return blocks


def _ends(opened: re.Match[str], fence: re.Match[str]) -> bool:
    if fence[2][0] != opened[2][0] or len(fence[2]) < len(opened[2]):
        return False
    depth = len(fence[1]) - len(opened[1])
    return depth <= (0 if fence[3].strip() else _CLOSING_INDENT)


def _block(opened: re.Match[str], lines: Sequence[str], *, is_closed: bool) -> Block:
    indent, name = opened[1], _NAME.search(opened[3])
    if not is_closed and lines and not lines[-1]:
        lines = lines[:-1]  # what follows the last newline of the text is no line
    return Block(
        language=name[0].lower() if name else "",
        code="".join(f"{line.removeprefix(indent)}\n" for line in lines),
        is_closed=is_closed,
    )


def _rank(block: Block, names: set[str]) -> tuple[int, bool]:
    place = 0 if block.language in names else 1 if not block.language else 2
    return place, not block.is_closed
