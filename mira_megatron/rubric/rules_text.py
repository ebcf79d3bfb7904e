"""Dimensions of any text record: one question each, measured as the kind of text allows.

A module, a test, a readme and a C file are asked the same fifteen questions; where a question has
no meaning for a kind (the names in a readme), the finding says so. The percentiles in the comments
are those of `rules_code` where code is meant, of `rules_prose` where prose is.
"""

from __future__ import annotations

from collections.abc import Callable

from mira_megatron.rubric import rules_code, rules_prose
from mira_megatron.rubric.line_features import WIDE_LINE_CHARS
from mira_megatron.rubric.prose_features import ProseFeatures
from mira_megatron.rubric.python_features import PythonFeatures
from mira_megatron.rubric.text_features import WINDOW_WORDS, TextFeatures
from mira_megatron.rubric.verdict import Finding, balanced, scaled, scaled_log, unmeasurable

_FEW_WORDS = 100  # below, nothing has had the room to come again
_PARTLY_PARSED_SCORE = 6  # the best that a file with a syntax error can have
_OPEN_FENCE_SCORE = 5
_SECRET_POINTS = 5  # lost for each
_GENERATED_SCORE = 2  # the best for a file that says it was written by a program

Rule = Callable[[TextFeatures], Finding]
PythonRule = Callable[[PythonFeatures], Finding]
ProseRule = Callable[[TextFeatures, ProseFeatures], Finding]


def completeness(features: TextFeatures) -> Finding:
    """Scores what is there as a whole: it parses, nothing is cut off, nothing is a placeholder."""
    words, python = features.words, features.python
    if not words.num_words:
        return unmeasurable("no words")
    if python and python.error is not None:
        share = python.num_parsed_lines / python.num_lines
        return Finding(
            score=int(_PARTLY_PARSED_SCORE * share),
            reason=f"{python.error}; the first {python.num_parsed_lines} of {python.num_lines} "
            "lines parse",
        )
    is_cut = rules_prose.ends_mid_sentence(features)
    num_empty = python.functions.num_empty if python else 0
    empty_share = num_empty / python.functions.num_functions if python and num_empty else 0.0
    score = 10 - min(3, words.num_placeholders) - int(3 * empty_share) - (4 if is_cut else 0)
    snippets = features.snippets
    if snippets.num_python:
        score = min(score, scaled(snippets.num_parsed / snippets.num_python, worst=0, best=1))
    if snippets.num_unclosed:
        score = min(score, _OPEN_FENCE_SCORE)
    return Finding(
        score=score,
        reason=f"{words.num_placeholders} placeholders (TODO …), {num_empty} empty functions, "
        f"{snippets.num_parsed} of {snippets.num_python} Python snippets parse, "
        f"{snippets.num_unclosed} open fences, {'broken off' if is_cut else 'no sign of a cut'}",
    )


def cleanliness(features: TextFeatures) -> Finding:
    """Scores the absence of broken characters, encoded blobs and access keys."""
    chars, num_secrets = features.chars, features.words.num_secrets
    if not chars.num_chars:
        return unmeasurable("no text")
    num_bad = chars.num_control + chars.num_broken
    by_chars = scaled(num_bad / chars.num_chars, worst=0.01, best=0)
    by_blobs = scaled(chars.num_blob / chars.num_chars, worst=0.5, best=0)
    return Finding(
        score=max(0, min(by_chars, by_blobs) - _SECRET_POINTS * num_secrets),
        reason=f"of {chars.num_chars} characters {num_bad} are control or wrongly decoded ones and "
        f"{chars.num_blob} in encoded blobs; {num_secrets} strings look like an access key",
    )


def explanatory_content(features: TextFeatures) -> Finding:
    """Scores comments and docstrings in code, and words of reasoning elsewhere."""
    if features.prose:
        return rules_prose.explaining_words(features, features.prose)
    lines, python = features.lines, features.python
    num_docstring_lines = python.docstrings.num_lines if python else 0
    num_comments = python.num_comments if python else lines.num_comments
    share = (num_comments + num_docstring_lines) / lines.num_filled
    by_share = (
        scaled(share, worst=0, best=0.25)  # of tests: p50 0.08, p95 0.24
        if python and rules_code.is_test(python)
        else balanced(share, least=0, low=0.25, high=0.45, most=0.8)  # p25 0.11, p50 0.22, p95 0.78
    )
    return Finding(
        score=by_share,
        reason=f"{num_comments} comment and {num_docstring_lines} docstring lines of "
        f"{lines.num_filled}",
    )


def readability(features: TextFeatures) -> Finding:
    """Scores line width and indentation in code, and sentence length elsewhere."""
    if features.prose:
        return rules_prose.sentence_length(features, features.prose)
    lines = features.lines
    by_width = scaled(lines.num_wide / lines.num_filled, worst=0.2, best=0)  # p50 0.05, p95 0.21
    by_indent = scaled(lines.mean_indents, worst=2.65, best=0.8)  # p25 0.8, p50 1.4, p95 2.65
    return Finding(
        score=min(by_width, by_indent),
        reason=f"{lines.num_wide} of {lines.num_filled} lines exceed {WIDE_LINE_CHARS} characters; "
        f"{lines.mean_indents:.1f} levels of indentation on average",
    )


def structure(features: TextFeatures) -> Finding:
    """Scores blocks of a readable size."""
    if features.prose:
        return rules_prose.paragraphs(features)
    lines = features.lines
    per_block = lines.num_filled / lines.num_blocks
    return Finding(
        # p5 1.7, p25 3.2, p50 4.8, p75 6.4, p95 11
        score=balanced(per_block, least=1, low=4.5, high=5.5, most=12),
        reason=f"{lines.num_blocks} blocks of {per_block:.1f} lines",
    )


def vocabulary(features: TextFeatures) -> Finding:
    """Scores the variety of words, counted in windows so that long texts do not lose."""
    fraction = features.words.distinct_fraction
    if fraction is None:
        return unmeasurable(f"fewer than {WINDOW_WORDS} words")
    return Finding(
        # code: p5 0.52, p50 0.67, p95 0.79; prose: p10 0.45, p50 0.70, p95 0.84
        score=scaled(fraction, worst=0.45, best=0.8),
        reason=f"{fraction:.0%} of the words in a window of {WINDOW_WORDS} are different ones",
    )


def non_repetition(features: TextFeatures) -> Finding:
    """Scores how few lines and five-word sequences come again."""
    lines, words = features.lines, features.words
    if words.num_words < _FEW_WORDS:
        return unmeasurable(f"{words.num_words} words")
    line_share = lines.num_repeated / lines.num_compared if lines.num_compared else 0.0
    return Finding(
        # code: p50 0.06, p95 0.33; prose: p50 0.04, p90 0.27, p95 0.40
        score=scaled(max(line_share, words.repeated_fraction), worst=0.3, best=0),
        reason=f"{lines.num_repeated} of {lines.num_compared} lines and "
        f"{words.repeated_fraction:.1%} of the five-word sequences are repeats",
    )


def substance(features: TextFeatures) -> Finding:
    """Scores how much there is to learn from: different words outside licence text and data."""
    words = features.words
    if not words.num_words:
        return unmeasurable("no words")
    return Finding(
        # code: p5 20, p50 111, p90 441; prose: p25 9, p50 87, p90 484
        score=scaled_log(words.num_content_terms, worst=20, best=450),
        reason=f"{words.num_content_terms} different words of four letters or more outside licence "
        "text and data",
    )


def content_share(features: TextFeatures) -> Finding:
    """Scores the absence of licence text, data, machine-written code and broken characters."""
    noise, num_lines = features.noise, features.lines.num_filled
    if not num_lines:
        return unmeasurable("no text")
    # A line of a licence may look like data, too.
    num_empty = min(num_lines, noise.num_data + noise.num_legal)
    num_phrases = features.prose.num_web_phrases if features.prose else 0
    # code: p50 0.03, p90 0.20, p95 0.40
    score = max(0, scaled(num_empty / num_lines, worst=0.4, best=0) - num_phrases)
    if noise.is_generated:
        score = min(score, _GENERATED_SCORE)
    share = Finding(
        score=score,
        reason=f"of {num_lines} lines {noise.num_legal} are licence text and {noise.num_data} "
        f"data; {num_phrases} web phrases; "
        f"{'says that it is generated' if noise.is_generated else 'no note of a generator'}",
    )
    return weaker(share, cleanliness(features))


def named_values(features: TextFeatures) -> Finding:
    """Scores code without bare numbers."""
    lines, num_numbers = features.lines, features.words.num_numbers
    if features.prose:
        return unmeasurable(f"numbers mean what they say in a {features.kind}")
    is_test = features.python is not None and rules_code.is_test(features.python)
    return Finding(
        # p50 0.02, p75 0.07, p95 0.23; tests: p50 0.29, p90 0.91
        score=scaled(num_numbers / lines.num_filled, worst=0.9 if is_test else 0.25, best=0),
        reason=f"{num_numbers} numbers other than 0, 1 and 2 in {lines.num_filled} lines",
    )


def weaker(first: Finding, second: Finding) -> Finding:
    """Returns the finding with the lower score, for one dimension that asks two questions."""
    if first.score is None or second.score is None:
        return second if first.score is None else first
    return min(first, second, key=lambda finding: finding.score or 0)


def by_kind(of_python: PythonRule, of_prose: ProseRule | None = None) -> Rule:
    """Returns the rule that measures Python and prose each in its way, and other code not."""

    def finding(features: TextFeatures) -> Finding:
        python = features.python
        if python is not None and python.num_parsed_lines > 0:
            return of_python(python)
        if of_prose is not None and features.prose is not None:
            return of_prose(features, features.prose)
        return unmeasurable(f"{features.kind} without Python that can be parsed")

    return finding


RULES: tuple[tuple[str, Rule], ...] = (
    ("Parse Success & Completeness", completeness),
    (
        "Documentation & Examples",
        by_kind(rules_code.interface_documentation, rules_prose.examples),
    ),
    (
        "Function & Section Size",
        by_kind(rules_code.function_size, rules_prose.section_size),
    ),
    ("Control-Flow Balance", by_kind(rules_code.control_flow)),
    ("Naming Clarity", by_kind(rules_code.naming_clarity)),
    ("Checks & Error Handling", by_kind(rules_code.checks)),
    ("Imports & References", by_kind(rules_code.imports, rules_prose.references)),
    ("Explanatory Content", explanatory_content),
    ("Readability", readability),
    ("Document Structure & Formatting", structure),
    ("Vocabulary Richness", vocabulary),
    ("Non-Repetition", non_repetition),
    ("Substance", substance),
    ("Named Values", named_values),
    ("Content over Noise", content_share),
)
