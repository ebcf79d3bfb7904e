"""Question-answer pairs and agent traces made from Python files, without importing any of them.

Docstrings give questions whose answer is the code below them. Doctest sessions give tool-calling
traces: every example is a call of a `python` tool and its expected output is what the tool returns.
Nothing is executed: code is untrusted text, and expected output needs no run.
"""

from __future__ import annotations

import ast
import doctest
import json
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from mira_megatron.corpus.renderers import Payload, RowError

SYSTEM_PROMPT = (
    "You explain Python by running it. Call the `python` tool with the code to run; "
    "it returns what an interactive session would print, and keeps its state between calls."
)

DefinitionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, kw_only=True, slots=True)
class Documented:
    """A module, class or function that has a docstring."""

    kind: str  # module | class | function
    line: int  # 1-based, of the first decorator or of the definition
    name: str  # qualified inside its module; empty for the module itself
    signature: str  # as one would write it after `def` or `class`; empty for a module
    docstring: str  # without its indentation
    code: str  # the definition without its outer indentation; empty for a module


def documented(source: str) -> list[Documented]:
    """Everything in a module that has a docstring, in file order; RowError if it does not parse.

    Functions inside functions are left out: what they do depends on their surroundings.
    """
    try:
        with warnings.catch_warnings():
            # Old files hold invalid escapes, and a warning about foreign text helps nobody here.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        return list(_walk(tree, source))
    except SyntaxError as error:
        raise RowError("syntax_error", f"line {error.lineno} does not parse") from error
    except ValueError as error:
        raise RowError("syntax_error", "null bytes") from error
    except (RecursionError, MemoryError) as error:
        # CPython's parser reports hostile nesting this way, long before memory is short.
        raise RowError("syntax_error", "nested too deeply to parse") from error


def docstring_question(item: Documented) -> Payload:
    """Fields of the family qa: implement what the docstring says; the code is the answer."""
    question = f"Implement the Python {item.kind} `{item.signature}`.\n\n{item.docstring}"
    return {"question": question, "answer": item.code}


def doctest_trace(document: str, subject: str) -> Payload | None:
    """Fields of the family agent from one docstring or text file; None where it has no examples.

    The prose before an example becomes what the assistant says when it calls the tool.
    """
    try:
        parts = doctest.DocTestParser().parse(document)
    except ValueError as error:
        raise RowError("malformed_doctest", "inconsistent prompts or indentation") from error
    first = next((i for i, part in enumerate(parts) if isinstance(part, doctest.Example)), None)
    if first is None:
        return None
    introduction, steps = "".join(map(str, parts[:first])).strip(), parts[first:]
    return {"messages": [*_opening(subject, introduction), *_session(steps, subject)]}


def _walk(tree: ast.Module, source: str) -> Iterator[Documented]:
    # ast counts lines by newline alone; str.splitlines would also split at form feeds.
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if docstring := ast.get_docstring(tree):
        yield Documented(kind="module", line=1, name="", signature="", docstring=docstring, code="")
    yield from _definitions(tree.body, lines, prefix="")


def _definitions(body: list[ast.stmt], lines: list[str], prefix: str) -> Iterator[Documented]:
    for node in body:
        if not isinstance(node, DefinitionNode):
            continue
        name = prefix + node.name
        if docstring := ast.get_docstring(node):
            first = min(item.lineno for item in (*node.decorator_list, node))
            yield Documented(
                kind="class" if isinstance(node, ast.ClassDef) else "function",
                line=first,
                name=name,
                signature=_signature(node, name),
                docstring=docstring,
                code=textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno])),
            )
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, lines, prefix=f"{name}.")


def _signature(node: DefinitionNode, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"{name}({bases})" if bases else name
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{name}({ast.unparse(node.args)}){returns}"


def _opening(subject: str, introduction: str) -> list[Payload]:
    task = f"Show in a Python session how `{subject}` works."
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": f"{task}\n\n{introduction}" if introduction else task},
    ]


def _session(steps: list[str | doctest.Example], subject: str) -> Iterator[Payload]:
    """Call and result per example, and a closing message; prose goes to the call after it."""
    prose: list[str] = []
    num_calls = 0
    for step in steps:
        if isinstance(step, str):
            prose.append(step)
            continue
        num_calls += 1
        call_id = f"call_{num_calls}"
        yield _call(call_id, "".join(prose).strip(), step.source)
        yield {"role": "tool", "tool_call_id": call_id, "name": "python", "content": _output(step)}
        prose.clear()
    closing = "".join(prose).strip() or f"These are the documented examples of `{subject}`."
    yield {"role": "assistant", "content": closing}


def _call(call_id: str, content: str, code: str) -> Payload:
    arguments = json.dumps({"code": code.removesuffix("\n")}, ensure_ascii=False)
    function = {"name": "python", "arguments": arguments}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": content or None, "tool_calls": calls}


def _output(example: doctest.Example) -> str:
    """What a session would print: doctest writes an empty line of output as <BLANKLINE>."""
    lines = example.want.removesuffix("\n").split("\n")
    return "\n".join("" if line.strip() == doctest.BLANKLINE_MARKER else line for line in lines)
