"""Dimensions of any running text: documents, prose, and the readable side of code.

The end points of every scale are this judge's choice; each rationale quotes the measured number.
"""

from __future__ import annotations

from collections.abc import Callable

from mira_megatron.rubric.judgement import Finding, scaled, unmeasurable
from mira_megatron.rubric.text_features import LONG_LINE_CHARS, TextFeatures

_FEW_WORDS = 20  # below, shares and averages say nothing
_SHORT_WORDS = 150  # below, no headings are missed
_FEW_CHARS = 200  # below, zlib's header outweighs the content
_CUT_LINE_CHARS = 40  # a shorter last line may be a caption, a name or a list item


def is_code(features: TextFeatures) -> bool:
    """Returns whether line-based measures fit the text better than sentence-based ones."""
    return features.kind in ("python", "code")


def explanatory_content(features: TextFeatures) -> Finding:
    """Scores comments and docstrings of code, and reasoning words of prose."""
    lines, words = features.lines, features.words
    if words.num_words < _FEW_WORDS:
        return unmeasurable(f"{words.num_words} words")
    if is_code(features):
        docstring_words = features.python.num_docstring_words if features.python else 0
        share = lines.num_comments / lines.num_filled
        return Finding(
            score=max(
                scaled(share, worst=0, best=0.15),
                scaled(docstring_words / lines.num_filled, worst=0, best=1.5),
            ),
            reason=f"{lines.num_comments} of {lines.num_filled} lines are comments; "
            f"{docstring_words} words in docstrings",
        )
    per_hundred = 100 * words.num_connectives / words.num_words
    return Finding(
        score=scaled(per_hundred, worst=0, best=3),
        reason=f"{per_hundred:.1f} explaining words (because, if, example …) per 100",
    )


def structure(features: TextFeatures) -> Finding:
    """Scores blocks of a readable size, and headings, lists or comments between them."""
    lines, words = features.lines, features.words
    if not lines.num_filled:
        return unmeasurable("no text")
    if is_code(features):
        per_block = lines.num_filled / lines.num_blocks
        by_size, unit = scaled(per_block, worst=60, best=15), "lines"
        num_marks, marks = lines.num_comments, "comment lines"
    else:
        per_block = words.num_words / lines.num_blocks
        by_size, unit = scaled(per_block, worst=500, best=120), "words"
        num_marks, marks = lines.num_headings + lines.num_list_items, "headings and list items"
    is_short = words.num_words < _SHORT_WORDS
    return Finding(
        score=by_size * 7 // 10 + (3 if is_short else min(3, num_marks)),
        reason=f"{lines.num_blocks} blocks of {per_block:.0f} {unit}, {num_marks} {marks}",
    )


def readability(features: TextFeatures) -> Finding:
    """Scores line width in code, and sentence length elsewhere."""
    lines, words = features.lines, features.words
    if not words.num_words:
        return unmeasurable("no words")
    if is_code(features):
        fitting = lines.num_filled - lines.num_long
        return Finding(
            score=scaled(fitting / lines.num_filled, worst=0.5, best=1),
            reason=f"{fitting} of {lines.num_filled} lines fit in {LONG_LINE_CHARS} characters",
        )
    num_units = max(words.num_sentences, lines.num_list_items + lines.num_headings, 1)
    per_sentence = words.num_words / num_units
    return Finding(
        score=scaled(per_sentence, worst=80, best=25),
        reason=f"{per_sentence:.0f} words per sentence or list item",
    )


def signal_to_noise(features: TextFeatures) -> Finding:
    """Scores the share of characters that are neither encoded blobs nor control characters."""
    chars, words = features.chars, features.words
    if not chars.num_chars:
        return unmeasurable("no text")
    noise = (chars.num_blob + chars.num_control + chars.num_broken) / chars.num_chars
    score = scaled(noise, worst=0.5, best=0)
    boilerplate = 0 if is_code(features) else min(4, words.num_boilerplate)
    if not is_code(features):
        score = min(score, scaled(chars.symbol_fraction, worst=0.5, best=0.15))
    return Finding(
        score=max(0, score - boilerplate),
        reason=f"{noise:.1%} of the characters are blobs or control characters, "
        f"{chars.symbol_fraction:.1%} symbols; {words.num_boilerplate} boilerplate phrases",
    )


def non_repetition(features: TextFeatures) -> Finding:
    """Scores how few lines and five-word sequences come again."""
    lines, words = features.lines, features.words
    if words.num_words < _FEW_WORDS:
        return unmeasurable(f"{words.num_words} words")
    line_share = lines.num_repeated / lines.num_compared if lines.num_compared else 0.0
    return Finding(
        score=scaled(max(line_share, words.repeated_fraction), worst=0.6, best=0.05),
        reason=f"{lines.num_repeated} of {lines.num_compared} lines and "
        f"{words.repeated_fraction:.1%} of the five-word sequences are repeats",
    )


def information_density(features: TextFeatures) -> Finding:
    """Scores how far the text compresses: much is repetitive, hardly is not language."""
    chars = features.chars
    if chars.num_chars < _FEW_CHARS:
        return unmeasurable(f"{chars.num_chars} characters")
    share = chars.compressed_fraction
    return Finding(
        score=min(scaled(share, worst=0.05, best=0.3), scaled(share, worst=1, best=0.75)),
        reason=f"zlib leaves {share:.0%} of the bytes",
    )


def completeness(features: TextFeatures) -> Finding:
    """Scores the absence of placeholders, empty functions and a cut end."""
    words, python = features.words, features.python
    if not words.num_words:
        return unmeasurable("no words")
    is_cut = python.error is not None if python else ends_mid_sentence(features)
    num_empty = python.num_empty_functions if python else 0
    empty_share = num_empty / python.num_functions if python and python.num_functions else 0.0
    return Finding(
        score=10 - min(3, words.num_placeholders) - int(3 * empty_share) - (4 if is_cut else 0),
        reason=f"{words.num_placeholders} placeholders (TODO …), {num_empty} empty functions, "
        f"{'broken off or incomplete' if is_cut else 'no sign of a cut'}",
    )


def ends_mid_sentence(features: TextFeatures) -> bool:
    """Returns whether prose stops in a long line without closing punctuation."""
    last = features.lines.last
    stops_open = last[-1:].isalnum() or last.endswith((",", "，", "、"))
    return not is_code(features) and len(last) >= _CUT_LINE_CHARS and stops_open


def encoding_integrity(features: TextFeatures) -> Finding:
    """Scores the absence of control characters and of traces of a wrong decoding."""
    chars = features.chars
    if not chars.num_chars:
        return unmeasurable("no text")
    num_bad = chars.num_control + chars.num_broken
    return Finding(
        score=scaled(num_bad / chars.num_chars, worst=0.01, best=0),
        reason=f"{num_bad} control or wrongly decoded characters in {chars.num_chars}",
    )


def secret_hygiene(features: TextFeatures) -> Finding:
    """Scores the absence of strings in the form of access keys."""
    if not features.chars.num_chars:
        return unmeasurable("no text")
    num_secrets = features.words.num_secrets
    return Finding(
        score=max(0, 10 - 5 * num_secrets),
        reason=f"{num_secrets} strings in the form of an access key or private key",
    )


RULES: tuple[tuple[str, Callable[[TextFeatures], Finding]], ...] = (
    ("Explanatory Content", explanatory_content),
    ("Document Structure & Formatting", structure),
    ("Readability", readability),
    ("Signal-to-Noise Ratio", signal_to_noise),
    ("Non-Repetition", non_repetition),
    ("Information Density", information_density),
    ("Completeness", completeness),
    ("Encoding Integrity", encoding_integrity),
    ("Secret Hygiene", secret_hygiene),
)
