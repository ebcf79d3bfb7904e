"""The one SQL statement in what a model wrote.

    an answer       the last fenced block of SQL; without one, from where a statement begins
    a completion    what follows the SELECT that its prompt ends in, unless it begins a statement
    a program       as it is: a file of predictions holds statements

Answers and completions are cut at the first `;` that is not quoted or commented. A statement may
begin with WITH; scripts that look for the first SELECT lose these.
"""

from __future__ import annotations

import re

from mira_megatron.eval.answers.fences import NO_CODE_BLOCK, code_in_answer
from mira_megatron.eval.sql.statements import first_statement
from mira_megatron.eval.verdicts import Extraction, Form, Sample

NO_STATEMENT = "no_statement"

_LANGUAGES = ("sql", "sqlite", "sqlite3")
_WITH = (
    r"\bWITH\s+(?:RECURSIVE\s+)?[\w\"`\[\]]+\s*(?:\([^()]*\)\s*)?"
    r"AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\("
)
_BEGINS = re.compile(rf"\s*(?:{_WITH}|SELECT\b|VALUES\b|\(\s*SELECT\b)", re.IGNORECASE)
# In prose a line of its own comes first, then capitals within a line: `select` is a word there.
_IN_PROSE = (
    re.compile(rf"^[ \t>`]*({_WITH}|SELECT\b)", re.IGNORECASE | re.MULTILINE),
    re.compile(rf"({_WITH}|\bSELECT\b)"),
    re.compile(rf"({_WITH}|\bSELECT\b)", re.IGNORECASE),
)
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")


def statement_in(sample: Sample) -> Extraction:
    """Returns the statement, or why there is none: empty, unfinished_thought, no_statement."""
    match sample.form:
        case Form.PROGRAM:
            return _extraction(sample.text)
        case Form.COMPLETION:
            return _completion(sample.text)
        case Form.ANSWER:
            return _answer(sample.text)


def _completion(text: str) -> Extraction:
    statement = first_statement(text)
    if statement.strip() and _BEGINS.match(statement) is None:
        statement = f"SELECT {statement}"
    return _extraction(statement)


def _answer(text: str) -> Extraction:
    found = code_in_answer(text, _LANGUAGES, which="last")
    if found.code is not None:
        return _extraction(first_statement(found.code))
    if found.reason != NO_CODE_BLOCK:
        return found
    answer = text.rpartition("</think>")[2]
    for pattern in _IN_PROSE:
        begins = pattern.search(answer)
        if begins is not None:
            before, after = answer[: begins.start(1)], answer[begins.start(1) :]
            return _extraction(_without_prose(first_statement(after), before))
    return Extraction(code=None, reason=NO_STATEMENT)


def _without_prose(statement: str, before: str) -> str:
    """Returns what stands before an empty line, or before the end of code within a line."""
    statement = _EMPTY_LINE.split(statement, maxsplit=1)[0]
    quotes = before[len(before.rstrip("`")) :]
    return statement.split(quotes, maxsplit=1)[0] if quotes else statement


def _extraction(statement: str) -> Extraction:
    stripped = statement.strip()
    return Extraction(code=stripped) if stripped else Extraction(code=None, reason="empty")
