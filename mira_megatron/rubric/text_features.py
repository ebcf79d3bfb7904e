"""What can be counted in any text: lines, words, characters, and what kind of text it is.

Every measurement is one pass of a built-in or of a regular expression that cannot backtrack over
more than one word or line, so the cost grows linearly with the text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from mira_megatron.rubric.line_features import (
    PYTHON_STARTS,
    LineFeatures,
    Snippets,
    measure_lines,
    measure_snippets,
    num_examples,
)
from mira_megatron.rubric.noise_features import NoiseFeatures, measure_noise
from mira_megatron.rubric.prose_features import ProseFeatures, measure_prose
from mira_megatron.rubric.python_features import PythonFeatures, measure_python

WINDOW_WORDS = 50  # different words are counted per window, so that length does not matter
LONG_WORD_CHARS = 12
NGRAM_WORDS = 5
_TERM_CHARS = 4  # shorter words are mostly grammar
_BLOB_CHARS = 120  # an ASCII run without a space this long is encoded data, or minified

_MAX_PACKED_CHARS = 32_000  # DEFLATE looks back no farther
_PACKING_LEVEL = 1  # the fastest

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")  # a CJK character counts as a word
_CJK_WORD = re.compile(rf"[{_CJK}]")
_NUMBER = re.compile(r"\b\d[\d_]*(?:\.\d+)?")
_SMALL_NUMBERS = ("0", "1", "2")  # mean what they say
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|sk-[A-Za-z0-9]{32}|xox[abprs]-[0-9A-Za-z-]{10}"
    r"|-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY-----"
)
_SYMBOLS = "{}()[]<>=;:+*/&|^%$#@\\_\"'`~"
_MOJIBAKE = ("â€", "Ã©", "Ã¨", "Ã¼", "Ã¶", "Ã¤", "ï»¿", "ï¿½", "锟斤拷")
_PLACEHOLDERS = ("TODO", "FIXME", "XXX", "TBD", "lorem ipsum", "Lorem ipsum", "your code here")


@dataclass(frozen=True, kw_only=True, slots=True)
class WordFeatures:
    """Counts of words and of what words reveal."""

    num_words: int
    num_cjk: int  # characters, each a word
    num_long_words: int  # of LONG_WORD_CHARS and more, in any place
    num_content_terms: int  # different ones of four letters and more, outside licence and data
    distinct_fraction: float | None  # mean over windows of WINDOW_WORDS; None below one window
    repeated_fraction: float  # of the five-word sequences, those seen before
    num_numbers: int  # other than _SMALL_NUMBERS
    num_placeholders: int
    num_secrets: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CharFeatures:
    """Counts of characters."""

    num_chars: int
    packed_fraction: float  # bytes that DEFLATE leaves of each: low where text repeats itself
    symbol_fraction: float  # of the characters that are not white space
    num_blob: int  # in runs of _BLOB_CHARS and more
    num_control: int
    num_broken: int  # replacement characters and traces of a wrong decoding


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFeatures:
    """All that the rules may look at."""

    kind: str  # python | code | document | prose
    lines: LineFeatures
    noise: NoiseFeatures
    words: WordFeatures
    chars: CharFeatures
    snippets: Snippets
    num_examples: int  # lines
    python: PythonFeatures | None  # of the kind python
    prose: ProseFeatures | None  # of the kinds document and prose


def measure_text(text: str) -> TextFeatures:
    """Returns the features of any text; never raises."""
    split = text.split("\n")
    stripped = [line.strip() for line in split]
    lines, chars, snippets = measure_lines(split, stripped), _chars(text), measure_snippets(split)
    noise = measure_noise(text, stripped)
    content_words = word_list(noise.content)
    kind, python = _kind(text, lines, chars, snippets)
    is_code = kind in ("python", "code")
    return TextFeatures(
        kind=kind,
        lines=lines,
        noise=noise,
        words=_words(text, content_words, word_list(noise.noise)),
        chars=chars,
        snippets=snippets,
        num_examples=num_examples(split, noise.legal_lines),
        python=python,
        prose=None if is_code else measure_prose(text, noise.content, content_words),
    )


def word_list(text: str) -> list[str]:
    """Returns the lower-cased words of a text; each CJK character is one."""
    return _WORD.findall(text.lower())


def word_sequences(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns every run of NGRAM_WORDS words."""
    return list(zip(*(words[start:] for start in range(NGRAM_WORDS)), strict=False))


def _kind(
    text: str, lines: LineFeatures, chars: CharFeatures, snippets: Snippets
) -> tuple[str, PythonFeatures | None]:
    # A function that is mostly docstring has few lines that start like Python, but the first does.
    starts_so = text.lstrip().startswith(PYTHON_STARTS)
    if starts_so or lines.num_python_starts >= 0.05 * lines.num_filled > 0:
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


def _words(text: str, content_words: list[str], noise_words: list[str]) -> WordFeatures:
    words = content_words + noise_words
    sequences = word_sequences(words)
    num_repeated = len(sequences) - len(set(sequences))
    return WordFeatures(
        num_words=len(words),
        num_cjk=len(_CJK_WORD.findall(text)),
        num_long_words=sum(len(word) >= LONG_WORD_CHARS for word in words),
        num_content_terms=sum(len(word) >= _TERM_CHARS for word in set(content_words)),
        distinct_fraction=_distinct_fraction(words),
        repeated_fraction=num_repeated / len(sequences) if sequences else 0.0,
        num_numbers=sum(number not in _SMALL_NUMBERS for number in _NUMBER.findall(text)),
        num_placeholders=sum(map(text.count, _PLACEHOLDERS)),
        num_secrets=len(_SECRET.findall(text)),
    )


def _distinct_fraction(words: Sequence[str]) -> float | None:
    starts = range(0, len(words) - WINDOW_WORDS + 1, WINDOW_WORDS)
    if not starts:
        return None
    num_distinct = sum(len(set(words[start : start + WINDOW_WORDS])) for start in starts)
    return num_distinct / (WINDOW_WORDS * len(starts))


def _packed_fraction(text: str) -> float:
    written = text[:_MAX_PACKED_CHARS].encode("utf-8", "surrogatepass")
    return len(zlib.compress(written, _PACKING_LEVEL)) / len(written) if written else 0.0


def _chars(text: str) -> CharFeatures:
    runs = text.split()
    num_visible = sum(map(len, runs))
    num_symbols = sum(map(text.count, _SYMBOLS))
    return CharFeatures(
        num_chars=len(text),
        packed_fraction=_packed_fraction(text),
        symbol_fraction=num_symbols / num_visible if num_visible else 0.0,
        num_blob=sum(len(run) for run in runs if len(run) >= _BLOB_CHARS and run.isascii()),
        num_control=len(_CONTROL.findall(text)),
        num_broken=text.count("\ufffd") + sum(map(text.count, _MOJIBAKE)),
    )
