"""Code dimensions, read from Python's own syntax tree.

Each rationale quotes the measured number. Nothing here runs the code, so nothing here speaks about
its correctness. The scales end at quantiles measured on 2,500 files drawn with a seed from the
13,944 Python files of 200 to 60,000 bytes in CPython 3.11's library and this project's environment:
p5, p50, p95 in the comments are the 5th, 50th and 95th percentile of the 1,888 modules or 581 test
modules among them.
"""

from __future__ import annotations

from mira_megatron.rubric.python_features import PythonFeatures
from mira_megatron.rubric.verdict import Finding, balanced, placed, quantified, scaled, unmeasurable

_FEW_STATEMENTS = 5  # below, shares say nothing
_LOOSE_HANDLER_POINTS = 5  # lost where no except clause is careful


def is_test(python: PythonFeatures) -> bool:
    """Returns whether at least half of the functions are tests."""
    functions = python.functions
    return 2 * functions.num_tests >= functions.num_functions > 0


def interface_documentation(python: PythonFeatures) -> Finding:
    """Scores docstrings; in tests, names that say what is tested."""
    functions, docstrings = python.functions, python.docstrings
    if is_test(python):
        # p50 0.19, p90 0.81
        return Finding(
            score=scaled(functions.num_telling_tests / functions.num_tests, worst=0, best=0.8),
            reason=quantified(
                functions.num_telling_tests,
                functions.num_tests,
                "tests have a docstring or a name of four words",
            ),
        )
    num_documented, num_public = docstrings.num_documented, docstrings.num_public
    what = "public definitions (module, classes, functions) have a docstring"
    return Finding(
        score=scaled(num_documented / num_public, worst=0, best=1),
        reason=quantified(num_documented, num_public, what),
    )


def type_annotations(python: PythonFeatures) -> Finding:
    """Scores annotated arguments and return values."""
    functions = python.functions
    if not functions.num_signature_slots:
        return unmeasurable("no function")
    share = functions.num_annotated_slots / functions.num_signature_slots
    return Finding(
        score=scaled(share, worst=0, best=1),
        reason=quantified(
            functions.num_annotated_slots,
            functions.num_signature_slots,
            "arguments and return values are annotated",
        ),
    )


def function_size(python: PythonFeatures) -> Finding:
    """Scores functions that are neither stubs nor several screens long."""
    functions = python.functions
    if not functions.num_functions:
        return Finding(score=0, reason="no function: nothing here can be called")
    mean_lines = functions.num_lines / functions.num_functions
    return Finding(
        # p5 2.3, p25 6.9, p50 12, p75 21, p95 44
        score=balanced(mean_lines, least=2, low=8, high=14, most=44),
        reason=f"{placed(mean_lines, low=5, high=25, words=('tiny', 'readable', 'long'))} "
        f"functions: {functions.num_functions} of {mean_lines:.1f} lines on average, docstrings "
        "left out",
    )


def control_flow(python: PythonFeatures) -> Finding:
    """Scores functions that decide something without being a maze; tests should not decide."""
    num_functions = python.functions.num_functions
    branches = python.num_branches / max(1, num_functions)
    reason = (
        f"{placed(branches, low=0.5, high=4, words=('straight', 'branching', 'tangled'))} code: "
        f"{python.num_branches} branches in {num_functions} functions, nested up to "
        f"{python.deepest_nesting} deep"
    )
    if is_test(python):
        # p50 0.19, p95 1.7
        return Finding(score=scaled(branches, worst=1.7, best=0), reason=reason)
    # p25 0.6, p50 1.4, p75 2.7, p95 6.3; a module of straight functions is halfway good.
    by_branches = balanced(branches, least=-1, low=1, high=2.5, most=6.3)
    by_depth = scaled(python.deepest_nesting, worst=7, best=3)  # p75 3, p95 5
    return Finding(score=min(by_branches, by_depth), reason=reason)


def naming_clarity(python: PythonFeatures) -> Finding:
    """Scores names that are words in the usual form."""
    names = python.names
    if not names.num_names:
        return unmeasurable("no name is defined")
    return Finding(
        # p5 0.50, p50 0.93, p75 1
        score=scaled(names.num_clear / names.num_names, worst=0.5, best=1),
        reason=quantified(
            names.num_clear,
            names.num_names,
            "defined names are in PEP 8 form and not abbreviated to three letters or fewer",
        ),
    )


def checks(python: PythonFeatures) -> Finding:
    """Scores how much the code checks; in tests, assertions per test."""
    counts, functions = python.checks, python.functions
    if not python.num_statements:
        return unmeasurable("no statement")
    if is_test(python):
        per_test = counts.num_assertions / functions.num_tests
        # p5 0.6, p50 2.2, p75 3.7, p95 9.3
        return Finding(
            score=balanced(per_test, least=0, low=1.5, high=4, most=9.3),
            reason=f"{placed(per_test, low=1, high=6, words=('too few', 'some', 'very many'))} "
            f"assertions: {counts.num_assertions} in {functions.num_tests} tests",
        )
    num_checks = counts.num_raises + counts.num_handlers + counts.num_assertions
    per_hundred = 100 * num_checks / python.num_statements
    loose = counts.num_loose_handlers / counts.num_handlers if counts.num_handlers else 0.0
    by_density = scaled(per_hundred, worst=0, best=9)  # p50 1.1, p90 9.2
    return Finding(
        score=max(0, by_density - round(_LOOSE_HANDLER_POINTS * loose)),
        reason=f"{placed(per_hundred, low=0.5, high=5, words=('hardly any', 'some', 'many'))} "
        f"raise, assert and except clauses: {num_checks} in {python.num_statements} statements; "
        f"{counts.num_loose_handlers} catch everything and do nothing or name nothing",
    )


def imports(python: PythonFeatures) -> Finding:
    """Scores imports that are used, named and at the top."""
    counts = python.imports
    if not counts.num_names:
        return unmeasurable("no import")
    num_faults = counts.num_unused + counts.num_late + counts.num_stars
    return Finding(
        # p75 0.07, p90 0.33, p95 0.67
        score=scaled(num_faults / counts.num_names, worst=0.67, best=0),
        reason=f"{quantified(counts.num_unused, counts.num_names, 'imported names are not used')}; "
        f"{counts.num_late} come after the first definition, {counts.num_stars} are stars",
    )


def modularity(python: PythonFeatures) -> Finding:
    """Scores code that stands in functions and classes, not in one long script."""
    if python.num_statements < _FEW_STATEMENTS:
        return unmeasurable(f"{python.num_statements} statements")
    return Finding(
        # p10 0.07, p50 0.20, p90 0.63; tests: p50 0.13
        score=scaled(python.num_top_level / python.num_statements, worst=0.6, best=0.1),
        reason=quantified(
            python.num_top_level, python.num_statements, "statements stand outside definitions"
        ),
    )


def interface_size(python: PythonFeatures) -> Finding:
    """Scores functions with few arguments."""
    functions = python.functions
    if not functions.num_functions:
        return unmeasurable("no function")
    # Every function has one slot for its return value.
    num_arguments = functions.num_signature_slots - functions.num_functions
    per_function = num_arguments / functions.num_functions
    return Finding(
        # p10 0.4, p50 1.5, p95 4.3
        score=scaled(per_function, worst=4.3, best=0.5),
        reason=f"{placed(per_function, low=1, high=3, words=('lean', 'usual', 'wide'))} "
        f"interfaces: {num_arguments} arguments, self left out, of {functions.num_functions} "
        "functions",
    )


def commented_out(python: PythonFeatures) -> Finding:
    """Scores comments that are words, not code somebody switched off."""
    if not python.num_comments:
        return unmeasurable("no comment line")
    share = python.num_commented_out / python.num_comments
    return Finding(
        # p90 0, p95 0.03; tests: p95 0.15
        score=scaled(share, worst=0.3, best=0),
        reason=quantified(
            python.num_commented_out, python.num_comments, "comment lines look like code"
        ),
    )
