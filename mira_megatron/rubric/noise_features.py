"""Which lines of a text carry no content: licence text, data, and notes of a generator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Values without a sentence: quoted strings, numbers, brackets, table rows, tags, "Key: value"
# headers, and names with an e-mail address. Docstring quotes and numbered lists are not.
_DATA = re.compile(
    r"""["'](?!["']{2})|\d(?!\d?[.)] )|-\d|[\[{(|<]|\+[-=]|\.\. \[|[A-Z][A-Za-z-]{1,30}: \S|"""
    r"""[^@\n]{1,60} <?[\w.+-]{1,60}@\w"""
)
_LEGAL = re.compile(
    r"licen[sc]|warrant|copyright|liab|merchantab|redistribut|permission|hereby|notice|"
    r"in writing|infring|endorse|all rights|the software|derivative"
)
_LEGAL_CORE = ("licen", "warrant", "copyright")  # no licence does without one of them
_FEWEST_LEGAL_MARKS = 2  # one word makes no licence
# Paragraphs of 20 words and more with a mark, in the documents `rules_prose` names: the median has
# one in 12 words in licence files and one in 31 elsewhere; 82 % and 23 % have one in 20 or fewer.
_WORDS_PER_LEGAL_MARK = 20
_GENERATED = re.compile(r"(?:auto-?|automatically |file is )generated|do not edit")
_GENERATED_CHARS = 1000  # such a note stands at the top


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseFeatures:
    """Filled lines sorted into content and noise."""

    num_data: int  # values without a sentence: table rows, literals, "Key: value"
    num_legal: int  # in blocks of licence text; a line can be both
    is_generated: bool  # says so at its top
    content: str  # the lines that are neither, stripped; blank lines kept
    noise: str  # the other lines
    legal_lines: frozenset[int]  # their indices


def measure_noise(text: str, stripped: Sequence[str]) -> NoiseFeatures:
    """Returns the features of a text, whose lines without indentation are `stripped`."""
    lowered = text.lower()
    has_legal = any(mark in lowered for mark in _LEGAL_CORE)
    legal = _legal_lines(stripped) if has_legal else frozenset()
    data = frozenset(index for index, line in enumerate(stripped) if _DATA.match(line))
    empty = legal | data
    return NoiseFeatures(
        num_data=len(data),
        num_legal=len(legal),
        is_generated=_GENERATED.search(lowered[:_GENERATED_CHARS]) is not None,
        content="\n".join(line for index, line in enumerate(stripped) if index not in empty),
        noise="\n".join(stripped[index] for index in sorted(empty)),
        legal_lines=legal,
    )


def _legal_lines(stripped: Sequence[str]) -> frozenset[int]:
    """Returns the indices of licence text: blocks that read so; where they are most, all lines."""
    filled = frozenset(index for index, line in enumerate(stripped) if line)
    legal = frozenset(_legal_blocks(stripped))
    return filled if 2 * len(legal) > len(filled) else legal


def _legal_blocks(stripped: Sequence[str]) -> Iterator[int]:
    block: list[int] = []
    for index, line in enumerate((*stripped, "")):
        if line:
            block.append(index)
        elif block:
            if _is_legal(" ".join(stripped[member] for member in block)):
                yield from block
            block = []


def _is_legal(block: str) -> bool:
    num_marks = len(_LEGAL.findall(block.lower()))
    is_dense = num_marks * _WORDS_PER_LEGAL_MARK >= len(block.split())
    return num_marks >= _FEWEST_LEGAL_MARKS and is_dense
