"""What Python's own parser tells about a record: one parse, one walk over the statements."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

# ast takes about 20 µs per line; a record beyond this is not parsed at all.
MAX_PARSED_CHARS = 200_000
_MAX_CUTS = 3  # attempts to parse what stands above a syntax error
_MAX_MESSAGE_CHARS = 80

_SNAKE_CASE = re.compile(r"_{0,2}[a-z][a-z0-9_]*|_+")
_CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*")
_CAP_WORDS = re.compile(r"_{0,2}[A-Z][A-Za-z0-9]*")
_SHORT_BUT_USUAL = frozenset(
    (*"_efijknxyz", *("fd", "fn", "fp", "id", "io", "ip", "ok", "op", "os", "re"))
)
_DEFINITION_STARTS = ("def ", "class ", "async def ", "@")
_CLAUSE_STARTS = ("else", "elif", "except", "finally")
_CONTROL_FLOW = (
    *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith),
    *(ast.Try, ast.TryStar, ast.Match),
)
_BROAD_EXCEPTIONS = ("Exception", "BaseException")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonFeatures:
    """Counts over the part of a Python record that parses, from its top."""

    num_lines: int
    num_parsed_lines: int
    error: str | None  # the parser's message about the first line that does not parse
    num_functions: int
    num_definitions: int  # the module, its classes and its functions
    num_documented: int  # … of these with a docstring
    num_docstring_words: int
    num_signature_slots: int  # arguments (self and cls left out) and return values
    num_annotated_slots: int
    mean_function_lines: float
    longest_function_lines: int
    deepest_nesting: int  # control-flow blocks inside each other, within one definition
    num_names: int  # functions, classes, arguments, assigned names
    num_clear_names: int  # … of these in PEP 8 form and three letters long, or usual short ones
    num_handlers: int
    num_loose_handlers: int  # bare, or catching everything and doing nothing
    num_empty_functions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parsed:
    tree: ast.Module | None
    num_lines: int  # that the tree covers
    error: str | None


def measure_python(text: str) -> PythonFeatures | None:
    """Returns the features of `text` as Python; None where it is longer than MAX_PARSED_CHARS.

    Where the text does not parse, the part above the error that does is measured.
    """
    if len(text) > MAX_PARSED_CHARS:
        return None
    lines = text.split("\n")
    parsed = _parse_upper_part(text, lines)
    tree = parsed.tree or ast.Module(body=[], type_ignores=[])
    statements = list(_statements(tree))
    functions = [node for node, _ in statements if isinstance(node, Function)]
    classes = [node for node, _ in statements if isinstance(node, ast.ClassDef)]
    handlers = [
        handler
        for node, _ in statements
        if isinstance(node, ast.Try | ast.TryStar)
        for handler in node.handlers
    ]
    docstrings = [ast.get_docstring(node, clean=False) for node in (tree, *functions, *classes)]
    annotated = [slot for function in functions for slot in _annotations(function)]
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]
    clear = [is_clear for node, _ in statements for is_clear in _clear_names(node)]
    return PythonFeatures(
        num_lines=len(lines),
        num_parsed_lines=parsed.num_lines,
        error=parsed.error,
        num_functions=len(functions),
        num_definitions=len(docstrings),
        num_documented=sum(docstring is not None for docstring in docstrings),
        num_docstring_words=sum(len(docstring.split()) for docstring in docstrings if docstring),
        num_signature_slots=len(annotated),
        num_annotated_slots=sum(annotated),
        mean_function_lines=sum(lengths) / len(lengths) if lengths else 0.0,
        longest_function_lines=max(lengths, default=0),
        deepest_nesting=max((depth for _, depth in statements), default=0),
        num_names=len(clear),
        num_clear_names=sum(clear),
        num_handlers=len(handlers),
        num_loose_handlers=sum(_is_loose(handler) for handler in handlers),
        num_empty_functions=sum(_is_empty(function) for function in functions),
    )


def parses_as_python(text: str) -> bool:
    """Returns whether `text` is at most MAX_PARSED_CHARS long and valid Python syntax."""
    return len(text) <= MAX_PARSED_CHARS and isinstance(_parse(text), ast.Module)


def _parse(text: str) -> ast.Module | SyntaxError:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the record's invalid escapes are not our user's concern
        try:
            return ast.parse(text)
        except SyntaxError as error:
            return error
        except (ValueError, RecursionError, MemoryError) as error:
            # Null characters, lone surrogates, and nesting beyond the parser's own stack.
            return SyntaxError(f"the parser gave up ({type(error).__name__})")


def _parse_upper_part(text: str, lines: Sequence[str]) -> _Parsed:
    whole = _parse(text)
    if isinstance(whole, ast.Module):
        return _Parsed(tree=whole, num_lines=len(lines), error=None)
    end = min(whole.lineno or 0, len(lines))
    message = f"{whole.msg[:_MAX_MESSAGE_CHARS]}, line {end}"
    for attempt in range(_MAX_CUTS):
        # A method cut off below the error keeps its class; failing that, whole statements only.
        end = _statement_above(lines, end, _starts_statement if attempt else _starts_definition)
        upper = _parse("\n".join(lines[:end]))
        if isinstance(upper, ast.Module) and upper.body:
            return _Parsed(tree=upper, num_lines=end, error=message)
    return _Parsed(tree=None, num_lines=0, error=message)


def _statement_above(lines: Sequence[str], end: int, starts: Callable[[str], bool]) -> int:
    """Returns the index of the last line before line number `end` that `starts`, or 0."""
    for index in range(end - 1, 0, -1):
        if starts(lines[index]) and not lines[index - 1].lstrip().startswith("@"):
            return index
    return 0


def _starts_definition(line: str) -> bool:
    return line.lstrip().startswith(_DEFINITION_STARTS)


def _starts_statement(line: str) -> bool:
    is_statement = line[:1].isalpha() and not line.startswith(_CLAUSE_STARTS)
    return is_statement or line.startswith("@")


def _statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, int]]:
    """Yields every statement with its control-flow depth; expressions are not entered."""
    waiting: list[tuple[ast.stmt, int]] = [(node, 0) for node in tree.body]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        if isinstance(node, Function | ast.ClassDef):
            waiting.extend((child, 0) for child in node.body)
        elif isinstance(node, _CONTROL_FLOW):
            for block in _blocks(node):
                # An elif is the only statement of an else, but reads as the same level.
                is_elif = isinstance(node, ast.If) and block is node.orelse and len(block) == 1
                inner = depth if is_elif and isinstance(block[0], ast.If) else depth + 1
                waiting.extend((child, inner) for child in block)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        yield getattr(node, field, [])
    for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield branch.body


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
    return name in _SHORT_BUT_USUAL or (len(name) >= 3 and _SNAKE_CASE.fullmatch(name) is not None)


def _is_loose(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    is_broad = isinstance(handler.type, ast.Name) and handler.type.id in _BROAD_EXCEPTIONS
    return is_broad and all(_does_nothing(node) for node in handler.body)


def _is_empty(function: Function) -> bool:
    return all(_does_nothing(node) for node in function.body)


def _does_nothing(node: ast.stmt) -> bool:
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=ast.Name(id="NotImplementedError")):
            return True
        case ast.Raise(exc=ast.Call(func=ast.Name(id="NotImplementedError"))):
            return True
        case _:
            return False
