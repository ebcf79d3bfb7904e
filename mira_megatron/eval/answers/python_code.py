"""The Python program in what a model wrote: what parses of it, and of that what is needed.

EvalPlus's rule: the longest range of lines that parses, then its imports and the definitions that
the entry point reaches; examples, prints and asserts at the top level go, and of several functions
of one name the first stays. Its own code tries all ranges, and takes a minute for 844 lines; here
statements are tried one after another.

Otherwise than there, a range that defines the entry point comes before a longer one that does not;
decorated functions, functions without `return`, and blocks (`if`, `try`, `with`) that bind a name
that is reached are kept.
"""

from __future__ import annotations

import ast
import codeop
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Answers have a hundred lines. Text that goes on and on is read this far, if it does not parse as
# a whole, and is tried this often.
_MAX_LINES = 2000
_MAX_CHARS = 100_000
_MAX_ATTEMPTS = 5000
_MAX_HEADS = 64  # lines at the left that a statement reaches over: text within a string, brackets

# A statement begins at the left; these words and brackets go on with one.
_HEAD = re.compile(r"(?!(?:else|elif|except|finally)\b|[)\]}])\S")
# Null bytes and surrogates; nesting that is deeper than the parser goes.
_NOT_PYTHON = (ValueError, RecursionError, MemoryError)
_MAY_GO_ON = codeop.PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]  # not in its stubs

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, kw_only=True, slots=True)
class _Range:
    lines: tuple[str, ...]
    tree: ast.Module


@dataclass(frozen=True, kw_only=True, slots=True)
class _Statement:
    place: int | None  # of the head behind it; None: it is broken
    wrong: int  # the first line that is not its
    num_attempts: int


def sanitized(text: str, entry_point: str) -> str | None:
    """Returns the program in a text, None where nothing in it parses and defines a name.

    A program in which `entry_point` is not defined keeps all of its definitions.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ranges = [each for each in _ranges(lines) if _definitions(each.tree)]
    if not ranges:
        return None
    return _needed(max(ranges, key=lambda each: _worth(each, entry_point)), entry_point)


def _worth(each: _Range, entry_point: str) -> tuple[bool, int]:
    return entry_point in _bound(each.tree.body), sum(1 for line in each.lines if line.strip())


def _ranges(lines: Sequence[str]) -> Iterator[_Range]:
    """Yields ranges of lines that parse, in their order; all lines, where they do."""
    tree = _parsed(lines)
    if tree is not None:
        yield _Range(lines=tuple(lines), tree=tree)
        return
    lines = _bounded(lines)
    heads = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    for start, end in _runs(lines, [*heads, len(lines)]):
        tree = _parsed(lines[start:end])
        if tree is not None:
            yield _Range(lines=tuple(lines[start:end]), tree=tree)


def _runs(lines: Sequence[str], heads: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields the first and the last line, exclusive, of statements that parse one after another.

    Statements begin at `heads`, the last of which is the end of the lines. Where one is broken, the
    lines before the wrong one belong to the run if they parse.
    """
    place = attempts = 0
    run: int | None = None
    while place < len(heads) - 1 and attempts < _MAX_ATTEMPTS:
        start = heads[place]
        run = start if run is None else run
        statement = _statement(lines, heads, place)
        attempts += statement.num_attempts
        if statement.place is not None:
            place = statement.place
            continue
        is_begun = start < statement.wrong and _parsed(lines[start : statement.wrong])
        end = statement.wrong if is_begun else start
        if run < end:
            yield run, end
        run = None
        place += 1
    if run is not None:
        yield run, heads[place]


def _statement(lines: Sequence[str], heads: Sequence[int], place: int) -> _Statement:
    """Returns where the statement that begins at a head ends: it may reach over the next ones."""
    start = heads[place]
    most = min(place + _MAX_HEADS, len(heads) - 1)
    first_wrong = None
    for num_attempts, end in enumerate(range(place + 1, most + 1), start=1):
        try:
            _tree("\n".join(lines[start : heads[end]]) + "\n", _MAY_GO_ON)
        except SyntaxError as error:
            wrong = start + (error.lineno or 1) - 1
            first_wrong = wrong if first_wrong is None else first_wrong
            if "incomplete input" not in str(error):
                break
        except _NOT_PYTHON:
            break
        else:
            return _Statement(place=end, wrong=heads[end], num_attempts=num_attempts)
    wrong = start if first_wrong is None else min(first_wrong, heads[place + 1])
    return _Statement(place=None, wrong=wrong, num_attempts=num_attempts)


def _bounded(lines: Sequence[str]) -> list[str]:
    kept: list[str] = []
    room = _MAX_CHARS
    for line in lines[:_MAX_LINES]:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


def _parsed(lines: Sequence[str]) -> ast.Module | None:
    try:
        return _tree("\n".join(lines) + "\n")
    except (SyntaxError, *_NOT_PYTHON):
        return None


def _tree(source: str, flags: int = 0) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in a model's strings
        tree = compile(source, "<answer>", "exec", ast.PyCF_ONLY_AST | flags)
    assert isinstance(tree, ast.Module)
    return tree


def _needed(each: _Range, entry_point: str) -> str:
    body = _first_definitions(each.tree.body)
    reached = _reached(body, entry_point)
    kept = [statement for statement in body if _is_needed(statement, reached)]
    numbers = {number for statement in kept for number in _line_numbers(statement)}
    return "".join(f"{each.lines[number]}\n" for number in sorted(numbers))


def _first_definitions(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    names: set[str] = set()
    kept = []
    for statement in body:
        if isinstance(statement, _Definition):
            if statement.name in names:
                continue
            names.add(statement.name)
        kept.append(statement)
    return kept


def _is_needed(statement: ast.stmt, reached: set[str] | None) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    bound = _bound([statement])
    return bool(bound) if reached is None else not bound.isdisjoint(reached)


def _reached(body: Sequence[ast.stmt], entry_point: str) -> set[str] | None:
    """Returns the names that the entry point uses, and those used by them; None: there is none."""
    uses: dict[str, set[str]] = {}
    for statement in body:
        used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        for name in _bound([statement]):
            uses.setdefault(name, set()).update(used)
    if entry_point not in uses:
        return None
    reached, waiting = {entry_point}, [entry_point]
    while waiting:
        found = uses.get(waiting.pop(), set()) - reached
        reached |= found
        waiting += found
    return reached


def _definitions(tree: ast.Module) -> set[str]:
    return _bound([each for each in tree.body if not isinstance(each, ast.Import | ast.ImportFrom)])


def _bound(body: Sequence[ast.stmt]) -> set[str]:
    """Returns the names that statements at the top level bind, also in their blocks."""
    names: set[str] = set()
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(statement.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(each.asname or each.name).split(".")[0] for each in statement.names}
            case ast.Assign() | ast.AnnAssign():
                names |= _targets(statement)
            case ast.If() if _is_main_guard(statement):
                pass
            case ast.If() | ast.Try() | ast.With():
                names |= _bound(_inner(statement))
    return names


def _targets(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {
        node.id
        for target in targets
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _inner(statement: ast.If | ast.Try | ast.With) -> list[ast.stmt]:
    inner = list(statement.body)
    if not isinstance(statement, ast.With):
        inner += statement.orelse
    if isinstance(statement, ast.Try):
        inner += statement.finalbody
        inner += [each for handler in statement.handlers for each in handler.body]
    return inner


def _is_main_guard(statement: ast.If) -> bool:
    return re.match(r"__name__ *==", ast.unparse(statement.test)) is not None


def _line_numbers(statement: ast.stmt) -> range:
    decorators = statement.decorator_list if isinstance(statement, _Definition) else []
    first = min([statement.lineno, *(each.lineno for each in decorators)])
    return range(first - 1, statement.end_lineno or statement.lineno)
