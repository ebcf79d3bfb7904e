"""Python's own parser on untrusted text: what parses, why the rest does not, and its statements."""

from __future__ import annotations

import ast
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# ast takes about 4 µs per line; a record beyond this is not parsed at all.
MAX_PARSED_CHARS = 200_000
_MAX_CUTS = 3  # attempts to parse what stands above a syntax error
_MAX_MESSAGE_CHARS = 80
_DEFINITION_STARTS = ("def ", "class ", "async def ", "@")
_CLAUSE_STARTS = ("else", "elif", "except", "finally")

LOOPS = (ast.For, ast.AsyncFor, ast.While)
TRIES = (ast.Try, ast.TryStar)
WITHS = (ast.With, ast.AsyncWith)
_CONTROL_FLOW = frozenset((ast.If, *LOOPS, *WITHS, *TRIES, ast.Match))

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """The upper part of a text that is valid Python."""

    tree: ast.Module  # without statements where nothing parses
    lines: Sequence[str]  # that the tree covers
    error: str | None  # the parser's message about the first line that does not parse


@dataclass(frozen=True, kw_only=True, slots=True)
class Statements:
    """Every statement of a tree; expressions are not entered."""

    by_type: dict[type[ast.stmt], list[Any]]  # a list holds nodes of its key's type
    num_statements: int
    deepest_nesting: int  # control-flow blocks inside each other, within one definition

    def of(self, *types: type[ast.stmt]) -> list[Any]:
        """Returns the statements of these types, one type after the other."""
        return [node for each in types for node in self.by_type.get(each, ())]


def parses_as_python(text: str) -> bool:
    """Returns whether `text` is at most MAX_PARSED_CHARS long and valid Python syntax."""
    return len(text) <= MAX_PARSED_CHARS and isinstance(_parse(text), ast.Module)


def parse_upper_part(text: str) -> Parsed:
    """Returns what parses of `text` from its top; never raises."""
    lines = text.split("\n")
    whole = _parse(text)
    if isinstance(whole, ast.Module):
        return Parsed(tree=whole, lines=lines, error=None)
    end = min(whole.lineno or 0, len(lines))
    message = f"{whole.msg[:_MAX_MESSAGE_CHARS]}, line {end}"
    for attempt in range(_MAX_CUTS):
        # A method cut off below the error keeps its class; failing that, whole statements only.
        end = _statement_above(lines, end, _starts_statement if attempt else _starts_definition)
        upper = _parse("\n".join(lines[:end]))
        if isinstance(upper, ast.Module) and upper.body:
            return Parsed(tree=upper, lines=lines[:end], error=message)
    return Parsed(tree=ast.Module(body=[], type_ignores=[]), lines=(), error=message)


def walk_statements(tree: ast.Module) -> Statements:
    """Returns the statements of a tree, definitions inside definitions included."""
    by_type: defaultdict[type[ast.stmt], list[Any]] = defaultdict(list)
    num_statements = deepest_nesting = 0
    waiting: list[tuple[ast.stmt, int]] = [(node, 0) for node in tree.body]
    while waiting:
        node, depth = waiting.pop()
        by_type[type(node)].append(node)
        num_statements += 1
        deepest_nesting = max(deepest_nesting, depth)
        waiting.extend(_children(node, depth))
    return Statements(
        by_type=dict(by_type), num_statements=num_statements, deepest_nesting=deepest_nesting
    )


def _children(node: ast.stmt, depth: int) -> Iterator[tuple[ast.stmt, int]]:
    """Yields the statements inside a statement with their control-flow depth."""
    if isinstance(node, Function | ast.ClassDef):
        yield from ((child, 0) for child in node.body)
    elif type(node) in _CONTROL_FLOW:
        for block in _blocks(node):
            # An elif is the only statement of an else, but reads as the same level.
            is_elif = isinstance(node, ast.If) and block is node.orelse and len(block) == 1
            inner = depth if is_elif and isinstance(block[0], ast.If) else depth + 1
            yield from ((child, inner) for child in block)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        yield getattr(node, field, [])
    for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield branch.body


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
