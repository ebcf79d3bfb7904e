"""Code dimensions of a text record, read from Python's own syntax tree.

The end points of every scale are this judge's choice; each rationale quotes the measured number.
Nothing here runs the code, so nothing here speaks about its correctness.
"""

from __future__ import annotations

from collections.abc import Callable

from mira_megatron.rubric.judgement import Finding, scaled, unmeasurable
from mira_megatron.rubric.python_features import PythonFeatures
from mira_megatron.rubric.text_features import TextFeatures

_PARTLY_PARSED_SCORE = 6  # the best that a file with a syntax error can have


def _parse_success(features: TextFeatures) -> Finding:
    python, snippets = features.python, features.snippets
    if python is None:
        return _snippets_parse(features) if snippets.num_python else _without_python(features)
    if python.error is None:
        return Finding(score=10, reason=f"all {python.num_lines} lines parse as Python")
    share = python.num_parsed_lines / python.num_lines
    return Finding(
        score=int(_PARTLY_PARSED_SCORE * share),
        reason=f"{python.error}; the first {python.num_parsed_lines} of {python.num_lines} "
        "lines parse",
    )


def _snippets_parse(features: TextFeatures) -> Finding:
    snippets = features.snippets
    reason = f"{snippets.num_parsed} of {snippets.num_python} Python snippets parse"
    share = snippets.num_parsed / snippets.num_python
    if snippets.num_unclosed:
        return Finding(score=min(5, int(10 * share)), reason=f"{reason}; the last fence is open")
    return Finding(score=scaled(share, worst=0, best=1), reason=reason)


def _docstring_coverage(python: PythonFeatures) -> Finding:
    share = python.num_documented / python.num_definitions
    return Finding(
        score=scaled(share, worst=0, best=0.8),
        reason=f"{python.num_documented} of {python.num_definitions} definitions "
        f"(module, classes, functions) have a docstring",
    )


def _function_size(python: PythonFeatures) -> Finding:
    if not python.num_functions:
        return unmeasurable("no function")
    by_length = scaled(python.mean_function_lines, worst=80, best=15)
    by_depth = scaled(python.deepest_nesting, worst=8, best=3)
    return Finding(
        score=min(by_length, by_depth),
        reason=f"functions have {python.mean_function_lines:.0f} lines on average, "
        f"{python.longest_function_lines} at most; nesting up to {python.deepest_nesting} deep",
    )


def _naming_clarity(python: PythonFeatures) -> Finding:
    if not python.num_names:
        return unmeasurable("no name is defined")
    return Finding(
        score=scaled(python.num_clear_names / python.num_names, worst=0.3, best=0.95),
        reason=f"{python.num_clear_names} of {python.num_names} defined names are in PEP 8 form "
        "and not abbreviated to one or two letters",
    )


def _type_annotations(python: PythonFeatures) -> Finding:
    if not python.num_signature_slots:
        return unmeasurable("no function")
    return Finding(
        score=scaled(python.num_annotated_slots / python.num_signature_slots, worst=0, best=0.9),
        reason=f"{python.num_annotated_slots} of {python.num_signature_slots} arguments and "
        "return values are annotated",
    )


def _error_handling(python: PythonFeatures) -> Finding:
    if not python.num_handlers:
        return unmeasurable("no except clause")
    num_careful = python.num_handlers - python.num_loose_handlers
    return Finding(
        score=scaled(num_careful / python.num_handlers, worst=0, best=1),
        reason=f"{num_careful} of {python.num_handlers} except clauses name what they catch "
        "or act on it",
    )


def _without_python(features: TextFeatures) -> Finding:
    return unmeasurable(f"{features.kind} without Python that can be parsed")


def _of_python(rule: Callable[[PythonFeatures], Finding]) -> Callable[[TextFeatures], Finding]:
    def finding(features: TextFeatures) -> Finding:
        python = features.python
        if python is None or python.num_parsed_lines == 0:
            return _without_python(features)
        return rule(python)

    return finding


RULES: tuple[tuple[str, Callable[[TextFeatures], Finding]], ...] = (
    ("Parse Success", _parse_success),
    ("Docstring Coverage", _of_python(_docstring_coverage)),
    ("Function Size & Nesting", _of_python(_function_size)),
    ("Naming Clarity", _of_python(_naming_clarity)),
    ("Type Annotation Coverage", _of_python(_type_annotations)),
    ("Error Handling Discipline", _of_python(_error_handling)),
)
