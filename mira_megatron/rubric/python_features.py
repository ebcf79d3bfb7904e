"""What can be counted in Python source: one parse, one walk over the statements."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mira_megatron.rubric.definition_features import (
    DocstringFeatures,
    FunctionFeatures,
    NameFeatures,
    Span,
    does_nothing,
    measure_docstrings,
    measure_functions,
    measure_names,
)
from mira_megatron.rubric.syntax_features import (
    LOOPS,
    MAX_PARSED_CHARS,
    TRIES,
    WITHS,
    Statements,
    parse_upper_part,
    walk_statements,
)

_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_BROAD_EXCEPTIONS = ("Exception", "BaseException")
# A statement behind the #, as far as one line can tell it from a sentence.
_COMMENTED_OUT = re.compile(
    r"#+ {0,20}(?:[\w.\[\]]{1,60} [-+*/|&]?= \S|[\w.]{1,60}\(.{0,80}\)$|"
    r"(?:return|import|from|del) [\w.]{1,60}$|(?:def|class) \w.{0,80}:$)"
)
_CHECKING_CONTEXTS = ("raises", "warns", "assertRaises", "assertRaisesRegex", "assertWarns")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportFeatures:
    """Counts over imported names."""

    num_names: int
    num_unused: int  # that occur nowhere else in the text, __all__ and comments included
    num_late: int  # below the first definition
    num_stars: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckFeatures:
    """Counts over what the code does about errors."""

    num_handlers: int
    num_loose_handlers: int  # bare, or catching everything and doing nothing
    num_raises: int
    num_assertions: int  # assert statements, calls of assert…, and with-blocks of raises


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonFeatures:
    """Counts over the part of a Python record that parses, from its top."""

    num_lines: int
    num_parsed_lines: int
    error: str | None  # the parser's message about the first line that does not parse
    num_statements: int
    num_top_level: int  # … of these, not inside another one
    num_comments: int  # lines that start with #
    num_commented_out: int  # … of these, with code behind the #
    num_branches: int  # if, elif, loops, except and case clauses
    deepest_nesting: int
    functions: FunctionFeatures
    docstrings: DocstringFeatures
    names: NameFeatures
    imports: ImportFeatures
    checks: CheckFeatures
    body: str  # the lines that are neither imports, signatures nor docstrings


def measure_python(text: str) -> PythonFeatures | None:
    """Returns the features of `text` as Python; None where it is longer than MAX_PARSED_CHARS.

    Where the text does not parse, the part above the error that does is measured.
    """
    if len(text) > MAX_PARSED_CHARS:
        return None
    parsed = parse_upper_part(text)
    statements = walk_statements(parsed.tree)
    function_nodes = statements.of(ast.FunctionDef, ast.AsyncFunctionDef)
    definitions = [*function_nodes, *statements.of(ast.ClassDef)]
    comments = [line for line in map(str.strip, parsed.lines) if line.startswith("#")]
    functions = measure_functions(function_nodes)
    docstrings = measure_docstrings([parsed.tree, *definitions])
    import_spans = [_span(node) for node in statements.of(ast.Import, ast.ImportFrom)]
    other_lines = _without(parsed.lines, import_spans)
    first_definition = min((node.lineno for node in definitions), default=len(parsed.lines) + 1)
    return PythonFeatures(
        num_lines=text.count("\n") + 1,
        num_parsed_lines=len(parsed.lines),
        error=parsed.error,
        num_statements=statements.num_statements,
        num_top_level=len(parsed.tree.body),
        num_comments=len(comments),
        num_commented_out=sum(_COMMENTED_OUT.match(line) is not None for line in comments),
        num_branches=_num_branches(statements),
        deepest_nesting=statements.deepest_nesting,
        functions=functions,
        docstrings=docstrings,
        names=measure_names(statements),
        imports=_imports(statements, other_lines, first_definition),
        checks=_checks(statements),
        body=_without(parsed.lines, (*import_spans, *functions.signatures, *docstrings.spans)),
    )


def _num_branches(statements: Statements) -> int:
    num_handlers = sum(len(node.handlers) for node in statements.of(*TRIES))
    num_cases = sum(len(node.cases) for node in statements.of(ast.Match))
    return len(statements.of(ast.If, *LOOPS)) + num_handlers + num_cases


def _imports(statements: Statements, other_lines: str, first_definition: int) -> ImportFeatures:
    nodes = statements.of(ast.Import, ast.ImportFrom)
    bound = [
        (node, (alias.asname or alias.name).split(".")[0])
        for node in nodes
        for alias in node.names
        if getattr(node, "module", None) != "__future__"
    ]
    used = {"*", *_IDENTIFIER.findall(other_lines)}
    return ImportFeatures(
        num_names=len(bound),
        num_unused=sum(name not in used for _, name in bound),
        num_late=sum(node.lineno > first_definition for node, _ in bound),
        num_stars=sum(name == "*" for _, name in bound),
    )


def _checks(statements: Statements) -> CheckFeatures:
    handlers = [handler for node in statements.of(*TRIES) for handler in node.handlers]
    called = [_called_name(node.value) for node in statements.of(ast.Expr)]
    contexts = [
        _called_name(item.context_expr) for node in statements.of(*WITHS) for item in node.items
    ]
    return CheckFeatures(
        num_handlers=len(handlers),
        num_loose_handlers=sum(_is_loose(handler) for handler in handlers),
        num_raises=len(statements.of(ast.Raise)),
        num_assertions=len(statements.of(ast.Assert))
        + sum(name.startswith("assert") for name in called)
        + sum(name in _CHECKING_CONTEXTS for name in contexts),
    )


def _called_name(node: ast.expr) -> str:
    """Returns the last name of a called function, empty for other expressions."""
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
        case _:
            return ""


def _is_loose(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    is_broad = isinstance(handler.type, ast.Name) and handler.type.id in _BROAD_EXCEPTIONS
    return is_broad and all(does_nothing(node) for node in handler.body)


def _span(node: ast.stmt) -> Span:
    return node.lineno, node.end_lineno or node.lineno


def _without(lines: Sequence[str], spans: Iterable[Span]) -> str:
    dropped = {number for first, last in spans for number in range(first, last + 1)}
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in dropped)
