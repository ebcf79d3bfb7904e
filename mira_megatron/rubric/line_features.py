"""What can be counted on the lines of any text: layout, marks, fenced snippets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from textwrap import dedent

from mira_megatron.rubric.syntax_features import parses_as_python

WIDE_LINE_CHARS = 79  # PEP 8
_INDENT_CHARS = 4
_COMPARED_LINE_CHARS = 12  # shorter lines ("}", "else:") repeat in good text too
_MAX_SNIPPETS = 20

_COMMENT_STARTS = ("#", "//", "/*", "*", "--", "<!--", ";;", "%")
_CODE_ENDS = (";", "{", "}", "(", ")", ",", ">", "[", "]", "=>", "\\")
_HEADINGS = ("# ", "## ", "### ", "#### ", "##### ")
_LIST_ITEMS = ("- ", "* ", "+ ", "1. ", "2. ", "3. ", "4. ", "5. ", "1) ", "2) ", "3) ")
_UNDERLINES = ("===", "---", "~~~~", "^^^")
_PROMPTS = (">>> ", "$ ", "% ")
_FENCES = ("```", "~~~")
PYTHON_STARTS = (
    *("def ", "class ", "import ", "from ", "@", "return", "if ", "for ", "while ", "with "),
    *("try:", "except", "else:", "elif ", "async ", "await ", "raise ", "print(", "assert "),
)
_PYTHON_OPENERS = ("def ", "class ", "if ", "for ", "while ", "with ", "elif ", "async def ")
_PARSED_LABELS = ("python", "py", "python3")


@dataclass(frozen=True, kw_only=True, slots=True)
class LineFeatures:
    """Counts of lines; every count but `num_lines` leaves blank lines out."""

    num_lines: int
    num_filled: int
    num_blocks: int  # runs of filled lines
    num_wide: int  # over WIDE_LINE_CHARS, indentation included
    mean_indents: float  # of _INDENT_CHARS
    num_compared: int  # long enough to be compared
    num_repeated: int  # … of these, equal to an earlier one
    num_headings: int
    num_list_items: int
    num_comments: int
    num_code_ends: int
    num_python_starts: int
    num_python_openers: int
    last: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Snippets:
    """Fenced code blocks of a document."""

    num_closed: int
    num_unclosed: int
    num_python: int  # labelled as Python, at most _MAX_SNIPPETS
    num_parsed: int  # … of these, valid syntax


def measure_lines(lines: Sequence[str], stripped: Sequence[str]) -> LineFeatures:
    """Returns the features of lines and the same lines without indentation; never raises."""
    filled = [line for line in stripped if line]
    compared = [line for line in filled if len(line) >= _COMPARED_LINE_CHARS]
    block_starts = zip(stripped, ["", *stripped], strict=False)
    return LineFeatures(
        num_lines=len(lines),
        num_filled=len(filled),
        num_blocks=sum(bool(line) and not above for line, above in block_starts),
        num_wide=sum(len(line) > WIDE_LINE_CHARS for line in lines),
        mean_indents=_mean_indents(lines, len(filled)),
        num_compared=len(compared),
        num_repeated=len(compared) - len(set(compared)),
        num_headings=_num_starting(filled, (*_HEADINGS, *_UNDERLINES)),
        num_list_items=_num_starting(filled, _LIST_ITEMS),
        num_comments=_num_starting(filled, _COMMENT_STARTS),
        num_code_ends=sum(line.endswith(_CODE_ENDS) for line in filled),
        num_python_starts=sum(line.startswith(PYTHON_STARTS) or " = " in line for line in filled),
        num_python_openers=sum(
            line.startswith(_PYTHON_OPENERS) and line.endswith(":") for line in filled
        ),
        last=filled[-1] if filled else "",
    )


def num_examples(lines: Sequence[str], skipped: Collection[int]) -> int:
    """Counts lines inside fences, after a prompt, and indented ones that continue no list item.

    The line indices in `skipped` are not looked at.
    """
    count, is_fenced, is_listed = 0, False, False
    for index, line in enumerate(lines):
        bare = line.strip()
        if not bare or index in skipped:
            continue
        is_flush = not line.startswith("  ")
        if bare.startswith(_FENCES):
            is_fenced = not is_fenced
        elif is_fenced or bare.startswith(_PROMPTS):
            count += 1
        elif is_flush:
            is_listed = bare.startswith(_LIST_ITEMS)
        else:
            count += line.startswith("    ") and not is_listed
    return count


def measure_snippets(lines: Sequence[str]) -> Snippets:
    """Returns the features of the fenced blocks in these lines; never raises."""
    num_closed = 0
    python: list[str] = []
    label: str | None = None
    body: list[str] = []
    for line in lines:
        if not line.lstrip().startswith(_FENCES):
            if label is not None:
                body.append(line)
        elif label is None:
            label, body = line.strip().strip("`~").strip().lower(), []
        else:
            num_closed += 1
            if label in _PARSED_LABELS and len(python) < _MAX_SNIPPETS:
                python.append("\n".join(body))
            label = None
    return Snippets(
        num_closed=num_closed,
        num_unclosed=int(label is not None),
        num_python=len(python),
        num_parsed=sum(parses_as_python(dedent(code)) for code in python),
    )


def _mean_indents(lines: Sequence[str], num_filled: int) -> float:
    num_chars = sum(len(line) - len(line.lstrip()) for line in lines if not line.isspace())
    return num_chars / (_INDENT_CHARS * num_filled) if num_filled else 0.0


def _num_starting(lines: Sequence[str], starts: tuple[str, ...]) -> int:
    return sum(line.startswith(starts) for line in lines)
