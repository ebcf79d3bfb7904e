"""SQL text, read no further than execution accuracy needs: quotes, comments, words, brackets.

Works on any text, SQL or not: what models write often is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# What is not closed goes to the end. A doubled quote within quotes ends one quoted word and begins
# the next, which makes no difference here.
_TOKEN = re.compile(
    r"""
      (?P<quoted> '[^']*(?:'|\Z) | "[^"]*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
    | (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<space> \s+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_YEAR_OF_TODAY = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)


def first_statement(text: str) -> str:
    """Returns the text up to the first `;` that is not quoted or commented, without it."""
    for kind, token, start in _tokens(text):
        if kind == "other" and token == ";":
            return text[:start]
    return text


def on_one_line(statement: str) -> str:
    """Returns the statement without comments and line ends; those within quotes become blanks."""
    found = "".join(
        " " if kind in ("space", "comment") else " ".join(token.splitlines())
        for kind, token, _ in _tokens(statement)
    )
    return found.strip()


def without_distinct(statement: str) -> str:
    """Returns the statement without any word DISTINCT, COUNT(DISTINCT …) too, as Spider has it."""
    return "".join(
        token
        for kind, token, _ in _tokens(statement)
        if not (kind == "word" and token.lower() == "distinct")
    )


def spider_statement(statement: str) -> str:
    """Returns what Spider's script runs for a statement.

    Comparison signs that were torn apart by its tokeniser are joined, DISTINCT is dropped, and the
    year of today is 2020 (taoyds/test-suite-sql-eval, exec_eval.py).
    """
    for torn in ("> =", "< =", "! ="):
        statement = statement.replace(torn, torn.replace(" ", ""))
    return _YEAR_OF_TODAY.sub("2020", without_distinct(statement))


def official_statement(statement: str) -> str:
    """Returns what Spider's script runs for a prediction.

    It also replaces every `value`, the stand-in of models that predict none, within names too; and
    of several statements it runs the first (evaluation.py, parse.py).
    """
    return first_statement(spider_statement(statement.replace("value", "1")))


def says_order_by(statement: str) -> bool:
    """Returns whether `order by` is anywhere in it: Spider's rule for rows that have an order."""
    return "order by" in statement.lower()


def has_outer_order_by(statement: str) -> bool:
    """Returns whether ORDER BY stands outside of all brackets and quotes."""
    depth = 0
    previous = ""
    for kind, token, _ in _tokens(statement):
        if kind == "other":
            depth += {"(": 1, ")": -1}.get(token, 0)
        if kind in ("word", "other", "quoted"):
            if depth == 0 and kind == "word" and (previous, token.lower()) == ("order", "by"):
                return True
            previous = token.lower() if kind == "word" else ""
    return False


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yields kind, text and start of every token; together they are the text."""
    for match in _TOKEN.finditer(text):
        assert match.lastgroup is not None
        yield match.lastgroup, match[0], match.start()
