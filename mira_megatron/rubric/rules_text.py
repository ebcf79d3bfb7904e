"""Dimensions of any text record: one question each, measured as the kind of text allows.

A module, a test, a readme and a C file are asked the same questions; where a question has
no meaning for a kind (the names in a readme), the finding says so. The percentiles in the comments
are those of `rules_code` where code is meant, of `rules_prose` where prose is.
"""

from __future__ import annotations

from collections.abc import Callable

from mira_megatron.rubric import rules_code, rules_prose, rules_words
from mira_megatron.rubric.dimension import Dimension
from mira_megatron.rubric.line_features import WIDE_LINE_CHARS
from mira_megatron.rubric.prose_features import ProseFeatures
from mira_megatron.rubric.python_features import PythonFeatures
from mira_megatron.rubric.text_features import TextFeatures
from mira_megatron.rubric.verdict import Finding, balanced, placed, quantified, scaled, unmeasurable

_WIDE_LINES = f"lines exceed {WIDE_LINE_CHARS} characters"
_PARTLY_PARSED_SCORE = 6  # the best that a file with a syntax error can have
_OPEN_FENCE_SCORE = 5

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
            reason=f"does not parse: {python.error}; the first {python.num_parsed_lines} of "
            f"{python.num_lines} lines do",
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
        reason=f"{'broken off' if is_cut else 'no sign of a cut'}; {words.num_placeholders} "
        f"placeholders (TODO …), {num_empty} empty functions, {snippets.num_parsed} of "
        f"{snippets.num_python} Python snippets parse, {snippets.num_unclosed} open fences",
    )


def explanatory_content(features: TextFeatures) -> Finding:
    """Scores comments and docstrings in code, and words of reasoning elsewhere."""
    if features.prose:
        return rules_prose.explaining_words(features, features.prose)
    lines, python = features.lines, features.python
    num_docstring_lines = python.docstrings.num_lines if python else 0
    num_comments = python.num_comments if python else lines.num_comments
    num_explaining = min(num_comments + num_docstring_lines, lines.num_filled)
    share = num_explaining / lines.num_filled
    by_share = (
        scaled(share, worst=0, best=0.25)  # of tests: p50 0.08, p95 0.24
        if python and rules_code.is_test(python)
        else balanced(share, least=0, low=0.25, high=0.45, most=0.8)  # p25 0.11, p50 0.22, p95 0.78
    )
    return Finding(
        score=by_share,
        reason=f"{quantified(num_explaining, lines.num_filled, 'lines explain')} ({num_comments} "
        f"comment and {num_docstring_lines} docstring lines)",
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
        reason=f"{quantified(lines.num_wide, lines.num_filled, _WIDE_LINES)}; "
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
        reason=f"{placed(per_block, low=3, high=8, words=('short', 'readable', 'long'))} blocks: "
        f"{lines.num_blocks} of {per_block:.1f} lines",
    )


def named_values(features: TextFeatures) -> Finding:
    """Scores code without bare numbers."""
    lines, num_numbers = features.lines, features.words.num_numbers
    if features.prose:
        return unmeasurable(f"numbers mean what they say in a {features.kind}")
    if not lines.num_filled:
        return unmeasurable("no text")
    is_test = features.python is not None and rules_code.is_test(features.python)
    per_line = num_numbers / lines.num_filled
    return Finding(
        # p50 0.02, p75 0.07, p95 0.23; tests: p50 0.29, p90 0.91
        score=scaled(per_line, worst=0.9 if is_test else 0.25, best=0),
        reason=f"{placed(per_line, low=0.02, high=0.2, words=('hardly any', 'some', 'many'))} bare "
        f"numbers other than 0, 1 and 2: {num_numbers} in {lines.num_filled} lines",
    )


def weaker(first: Finding, second: Finding) -> Finding:
    """Returns the finding with the lower score, for one dimension that asks two questions."""
    if first.score is None or second.score is None:
        return second if first.score is None else first
    return min(first, second, key=lambda finding: finding.score or 0)


def by_kind(of_python: PythonRule | None, of_prose: ProseRule | None = None) -> Rule:
    """Returns the rule that measures Python and prose each in its way, and what has none not."""

    def finding(features: TextFeatures) -> Finding:
        python = features.python
        if of_python is not None and python is not None and python.num_parsed_lines > 0:
            return of_python(python)
        if of_prose is not None and features.prose is not None:
            return of_prose(features, features.prose)
        what = "sentences" if of_python is None else "Python that can be parsed"
        return unmeasurable(f"{features.kind} without {what}")

    return finding


DIMENSIONS: tuple[Dimension[TextFeatures], ...] = (
    Dimension(name="Parse Success & Completeness", rule=completeness, usual=10),
    Dimension(
        name="Documentation & Examples",
        rule=by_kind(rules_code.interface_documentation, rules_prose.examples),
        usual=3,
    ),
    Dimension(
        name="Function & Section Size",
        rule=by_kind(rules_code.function_size, rules_prose.section_size),
        usual=9,
    ),
    Dimension(name="Modularity", rule=by_kind(rules_code.modularity), usual=9),
    Dimension(name="Interface Simplicity", rule=by_kind(rules_code.interface_size), usual=9),
    Dimension(name="Control-Flow Balance", rule=by_kind(rules_code.control_flow), usual=8),
    Dimension(name="Naming Clarity", rule=by_kind(rules_code.naming_clarity), usual=7),
    Dimension(name="Type Annotation Coverage", rule=by_kind(rules_code.type_annotations), usual=0),
    Dimension(name="Checks & Error Handling", rule=by_kind(rules_code.checks), usual=7),
    Dimension(
        name="Imports & References",
        rule=by_kind(rules_code.imports, rules_prose.references),
        usual=10,
    ),
    Dimension(name="Comment Hygiene", rule=by_kind(rules_code.commented_out), usual=10),
    Dimension(name="Explanatory Content", rule=explanatory_content, usual=4),
    Dimension(name="Readability", rule=readability, usual=6),
    Dimension(name="Wording Simplicity", rule=by_kind(None, rules_prose.wording), usual=8),
    Dimension(name="Document Structure & Formatting", rule=structure, usual=8),
    Dimension(name="Words over Symbols", rule=rules_words.symbol_load, usual=7),
    Dimension(name="Vocabulary Richness", rule=rules_words.vocabulary, usual=6),
    Dimension(name="Non-Repetition", rule=rules_words.non_repetition, usual=8),
    Dimension(name="Information Density", rule=rules_words.information_density, usual=9),
    Dimension(name="Substance", rule=rules_words.substance, usual=4),
    Dimension(name="Named Values", rule=named_values, usual=8),
    Dimension(name="Content over Noise", rule=rules_words.content_share, usual=9),
    Dimension(name="Encoding & Secret Hygiene", rule=rules_words.cleanliness, usual=10),
)
