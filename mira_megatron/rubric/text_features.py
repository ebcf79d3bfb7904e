"""What can be counted in any text: lines, words, characters, and what kind of text it is.

Every measurement is one pass of a built-in or of a regular expression that cannot backtrack over
more than one word, so the cost grows linearly with the text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import dedent

from mira_megatron.rubric.python_features import (
    MAX_PARSED_CHARS,
    PythonFeatures,
    measure_python,
    parses_as_python,
)

LONG_LINE_CHARS = 100
_NGRAM_WORDS = 5
_COMPARED_LINE_CHARS = 12  # shorter lines ("}", "else:") repeat in good text too
_BLOB_CHARS = 120  # an ASCII run without a space this long is encoded data, or minified
_COMPRESSED_BYTES = 1 << 15  # density is measured on the first 32 KiB
_MAX_SNIPPETS = 20

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")  # a CJK character counts as a word
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|sk-[A-Za-z0-9]{32}|xox[abprs]-[0-9A-Za-z-]{10}"
    r"|-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY-----"
)
_SYMBOLS = "{}()[]<>=;:+*/&|^%$#@\\_\"'`~"
_MOJIBAKE = ("â€", "Ã©", "Ã¨", "Ã¼", "Ã¶", "Ã¤", "ï»¿", "ï¿½", "锟斤拷")
_PLACEHOLDERS = ("TODO", "FIXME", "XXX", "TBD", "lorem ipsum", "Lorem ipsum", "your code here")
_BOILERPLATE = (
    *("cookie", "subscribe", "click here", "sign in", "log in", "privacy policy"),
    *("all rights reserved", "advertisement", "terms of service", "share this"),
)
_CONNECTIVES = frozenset(
    (
        *("because", "therefore", "thus", "hence", "since", "so", "if", "unless", "when", "where"),
        *("why", "reason", "means", "implies", "instead", "however", "example", "note", "first"),
        *("then", "finally", "因", "故", "若", "例"),
    )
)
_COMMENT_STARTS = ("#", "//", "/*", "*", "--", "<!--", '"""', "'''", ";;", "%")
_CODE_ENDS = (";", "{", "}", "(", ")", ",", ">", "[", "]", "=>", "\\")
_HEADINGS = ("# ", "## ", "### ", "#### ", "##### ")
_LIST_ITEMS = ("- ", "* ", "+ ", "1. ", "2. ", "3. ", "4. ", "5. ", "1) ", "2) ", "3) ", "| ")
_UNDERLINES = ("===", "---", "~~~~", "^^^")
_FENCES = ("```", "~~~")
_PYTHON_STARTS = (
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
    num_long: int  # over LONG_LINE_CHARS
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
class WordFeatures:
    """Counts of words and of what words reveal."""

    num_words: int
    content_words: frozenset[str]  # lower case, four letters or more
    num_sentences: int
    num_connectives: int
    repeated_fraction: float  # of the five-word sequences, those seen before
    num_placeholders: int
    num_boilerplate: int
    num_secrets: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CharFeatures:
    """Counts of characters and bytes."""

    num_chars: int
    symbol_fraction: float  # of the characters that are not white space
    num_blob: int  # in runs of _BLOB_CHARS and more
    num_control: int
    num_broken: int  # replacement characters and traces of a wrong decoding
    compressed_fraction: float  # zlib level 1, of the first _COMPRESSED_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Snippets:
    """Fenced code blocks of a document."""

    num_closed: int
    num_unclosed: int
    num_python: int  # labelled as Python, at most _MAX_SNIPPETS
    num_parsed: int  # … of these, valid syntax


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFeatures:
    """All that the rules may look at."""

    kind: str  # python | code | document | prose
    lines: LineFeatures
    words: WordFeatures
    chars: CharFeatures
    snippets: Snippets
    python: PythonFeatures | None


def measure_text(text: str) -> TextFeatures:
    """Returns the features of any text; never raises."""
    split = text.split("\n")
    lines, chars, snippets = _lines(split), _chars(text), _snippets(split)
    kind, python = _kind(text, lines, chars, snippets)
    return TextFeatures(
        kind=kind,
        lines=lines,
        words=_words(text),
        chars=chars,
        snippets=snippets,
        python=python,
    )


def word_list(text: str) -> list[str]:
    """Returns the lower-cased words of a text; each CJK character is one."""
    return _WORD.findall(text.lower())


def _kind(
    text: str, lines: LineFeatures, chars: CharFeatures, snippets: Snippets
) -> tuple[str, PythonFeatures | None]:
    if lines.num_python_starts >= 0.05 * lines.num_filled > 0:
        python = measure_python(text)
        if python and _is_python(python, lines, snippets):
            return "python", python
    has_fences = snippets.num_closed + snippets.num_unclosed > 0
    ends_like_code = lines.num_code_ends >= 0.3 * lines.num_filled > 0
    if ends_like_code and chars.symbol_fraction >= 0.06 and not has_fences:
        return "code", None
    if has_fences or lines.num_headings or lines.num_list_items >= 3:
        return "document", None
    return "prose", None


def _is_python(python: PythonFeatures, lines: LineFeatures, snippets: Snippets) -> bool:
    """True for what parses, and for what looks enough like Python to have a syntax error."""
    if python.error is None:
        return True
    if snippets.num_closed + snippets.num_unclosed:
        return False
    parses_far = python.num_parsed_lines >= 0.3 * python.num_lines
    return parses_far or lines.num_python_openers >= max(1, 0.03 * lines.num_filled)


def _lines(lines: Sequence[str]) -> LineFeatures:
    stripped = [line.strip() for line in lines]
    filled = [line for line in stripped if line]
    compared = [line for line in filled if len(line) >= _COMPARED_LINE_CHARS]
    block_starts = zip(stripped, ["", *stripped], strict=False)
    return LineFeatures(
        num_lines=len(lines),
        num_filled=len(filled),
        num_blocks=sum(bool(line) and not above for line, above in block_starts),
        num_long=sum(len(line) > LONG_LINE_CHARS for line in filled),
        num_compared=len(compared),
        num_repeated=len(compared) - len(set(compared)),
        num_headings=sum(line.startswith((*_HEADINGS, *_UNDERLINES)) for line in filled),
        num_list_items=sum(line.startswith(_LIST_ITEMS) for line in filled),
        num_comments=sum(line.startswith(_COMMENT_STARTS) for line in filled),
        num_code_ends=sum(line.endswith(_CODE_ENDS) for line in filled),
        num_python_starts=sum(line.startswith(_PYTHON_STARTS) or " = " in line for line in filled),
        num_python_openers=sum(
            line.startswith(_PYTHON_OPENERS) and line.endswith(":") for line in filled
        ),
        last=filled[-1] if filled else "",
    )


def _words(text: str) -> WordFeatures:
    lowered = text.lower()
    words: list[str] = _WORD.findall(lowered)
    sequences = list(zip(*(words[start:] for start in range(_NGRAM_WORDS)), strict=False))
    num_repeated = len(sequences) - len(set(sequences))
    return WordFeatures(
        num_words=len(words),
        content_words=frozenset(word for word in words if len(word) >= 4),
        num_sentences=len(_SENTENCE_END.findall(text)),
        num_connectives=sum(word in _CONNECTIVES for word in words),
        repeated_fraction=num_repeated / len(sequences) if sequences else 0.0,
        num_placeholders=sum(map(text.count, _PLACEHOLDERS)),
        num_boilerplate=sum(map(lowered.count, _BOILERPLATE)),
        num_secrets=len(_SECRET.findall(text)),
    )


def _chars(text: str) -> CharFeatures:
    runs = text.split()
    num_visible = sum(map(len, runs))
    num_symbols = sum(map(text.count, _SYMBOLS))
    head = text[:_COMPRESSED_BYTES].encode("utf-8", "replace")[:_COMPRESSED_BYTES]
    return CharFeatures(
        num_chars=len(text),
        symbol_fraction=num_symbols / num_visible if num_visible else 0.0,
        num_blob=sum(len(run) for run in runs if len(run) >= _BLOB_CHARS and run.isascii()),
        num_control=len(_CONTROL.findall(text)),
        num_broken=text.count("\ufffd") + sum(map(text.count, _MOJIBAKE)),
        compressed_fraction=len(zlib.compress(head, 1)) / len(head) if head else 0.0,
    )


def _snippets(lines: Sequence[str]) -> Snippets:
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
        num_parsed=sum(
            len(code) <= MAX_PARSED_CHARS and parses_as_python(dedent(code)) for code in python
        ),
    )
