"""What can be counted on the functions and classes of Python source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mira_megatron.rubric.syntax_features import Function, Statements

_SNAKE_CASE = re.compile(r"_{0,2}[a-z][a-z0-9_]*|_+")
_CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*")
_CAP_WORDS = re.compile(r"_{0,2}[A-Z][A-Za-z0-9]*")
_CLEAR_NAME_CHARS = 4  # up to three letters are mostly abbreviations (arr, buf, tmp, val)
_SHORT_BUT_USUAL = frozenset(
    ("_", "i", "j", "k", "end", "fn", "id", "io", "key", "new", "old", "os", "re", "row", "url")
)
_TELLING_NAME_WORDS = 4  # test_add_two_numbers says what it tests, test_add does not

Scope = ast.Module | ast.ClassDef | Function
Span = tuple[int, int]  # first and last line, counted from 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionFeatures:
    """Counts over all functions and methods."""

    num_functions: int
    num_empty: int  # pass, …, a docstring or NotImplementedError only
    num_lines: int  # docstrings left out
    num_tests: int  # named test…
    num_telling_tests: int  # … with a docstring, or _TELLING_NAME_WORDS words in the name
    num_signature_slots: int  # arguments (self and cls left out) and return values
    num_annotated_slots: int
    parameters: frozenset[str]  # self and cls left out
    signatures: tuple[Span, ...]  # decorators left out


@dataclass(frozen=True, kw_only=True, slots=True)
class DocstringFeatures:
    """Counts over the module, its classes and its functions."""

    num_public: int  # without a leading underscore in the name
    num_documented: int  # … of these with a docstring
    num_lines: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NameFeatures:
    """Counts over the names of functions, classes, arguments and assigned variables."""

    num_names: int
    num_clear: int  # in PEP 8 form, and _CLEAR_NAME_CHARS long or short but usual


def measure_functions(functions: Sequence[Function]) -> FunctionFeatures:
    """Returns the counts over these functions."""
    tests = [function for function in functions if function.name.startswith("test")]
    annotated = [slot for function in functions for slot in _annotations(function)]
    docstrings = filter(None, map(_docstring_span, functions))
    lengths = [_num_lines((function.lineno, _last_line(function))) for function in functions]
    return FunctionFeatures(
        num_functions=len(functions),
        num_empty=sum(_is_empty(function) for function in functions),
        num_lines=sum(lengths) - sum(map(_num_lines, docstrings)),
        num_tests=len(tests),
        num_telling_tests=sum(_is_telling(test) for test in tests),
        num_signature_slots=len(annotated),
        num_annotated_slots=sum(annotated),
        parameters=frozenset(
            argument.arg for function in functions for argument in _arguments(function)
        ),
        signatures=tuple((node.lineno, node.body[0].lineno - 1) for node in functions),
    )


def measure_docstrings(scopes: Sequence[Scope]) -> DocstringFeatures:
    """Returns the counts over a module and its definitions."""
    public = [scope for scope in scopes if not getattr(scope, "name", "").startswith("_")]
    spans = tuple(filter(None, map(_docstring_span, scopes)))
    return DocstringFeatures(
        num_public=len(public),
        num_documented=sum(_docstring_span(scope) is not None for scope in public),
        num_lines=sum(map(_num_lines, spans)),
        spans=spans,
    )


def measure_names(statements: Statements) -> NameFeatures:
    """Returns the counts over all names that the statements define."""
    naming = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign)
    clear = [is_clear for node in statements.of(*naming) for is_clear in _clear_names(node)]
    return NameFeatures(num_names=len(clear), num_clear=sum(clear))


def does_nothing(node: ast.stmt) -> bool:
    """Returns whether a statement is a placeholder: pass, a constant, NotImplementedError."""
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=ast.Name(id="NotImplementedError")):
            return True
        case ast.Raise(exc=ast.Call(func=ast.Name(id="NotImplementedError"))):
            return True
        case _:
            return False


def _is_empty(function: Function) -> bool:
    return all(does_nothing(node) for node in function.body)


def _is_telling(test: Function) -> bool:
    is_named = len(test.name.split("_")) > _TELLING_NAME_WORDS
    return is_named or _docstring_span(test) is not None


def _docstring_span(scope: Scope) -> Span | None:
    match scope.body[:1]:
        case [ast.Expr(value=ast.Constant(value=str())) as node]:
            return node.lineno, _last_line(node)
        case _:
            return None


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _num_lines(span: Span) -> int:
    return span[1] - span[0] + 1


def _arguments(function: Function) -> list[ast.arg]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [argument for argument in (*named, *starred) if argument.arg not in ("self", "cls")]


def _annotations(function: Function) -> list[bool]:
    arguments = [argument.annotation is not None for argument in _arguments(function)]
    return [*arguments, function.returns is not None]


def _clear_names(node: ast.stmt) -> Iterator[bool]:
    match node:
        case ast.ClassDef():
            yield len(node.name) >= 3 and _CAP_WORDS.fullmatch(node.name) is not None
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield _is_clear(node.name)
            yield from (_is_clear(argument.arg) for argument in _arguments(node))
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            yield _is_clear(name) or _CONSTANT.fullmatch(name) is not None


def _is_clear(name: str) -> bool:
    is_long = len(name) >= _CLEAR_NAME_CHARS and _SNAKE_CASE.fullmatch(name) is not None
    return is_long or name in _SHORT_BUT_USUAL
