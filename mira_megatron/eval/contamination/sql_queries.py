"""Whole SQL queries in a form in which copies are equal, and their hashes.

The form is sqlglot's own rendering in lower case, without comments, the aliases of tables numbered
in the order in which they stand: spaces, quotes, `<>` for `!=`, `AS` or none and other names of
aliases make no difference. The masked form leaves literals open. sqlglot comes with the extra
`eval`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlglot
import xxhash
from sqlglot import exp
from sqlglot.errors import SqlglotError

from mira_megatron.eval.contamination.code_tokens import text_tokens

logger = logging.getLogger(__name__)

# Shorter queries (select count ( * ) from student) are written by anybody anywhere.
MIN_TOKENS = 12
_MAX_CHARS = 4000  # of a candidate; the longest gold query of Spider and BIRD has some 1,000
# Of one text: characters of candidates looked at, and those of each new one once more by what it
# costs to parse it, so some minutes. The whole of Spider's questions in one text is a tenth.
MAX_WORK = 500_000_000
_PARSING_WORK = 50
# Where a query in a text may end, the likeliest first; inside of JSON a line ends with \n.
_ENDS = (
    re.compile(r";|```|<\||\n\s*\n|\\n\s*\\n|\"\"\"|\Z"),
    re.compile(r"\\?\"|;|```|\n\s*\n|\Z"),
    re.compile(r"\n|\\n|;|\Z"),
)
# White space as it is, or escaped. It shares no character with a name: a table may begin with n,
# and patterns whose parts overlap take hours over a line of such letters.
_GAP = r"(?:\s|\\+[nrt])+"
_FROM = re.compile(rf"\bfrom{_GAP}(?:\\*[\"'`\[])*(\w+)", re.IGNORECASE)
_COMMON_TABLE = re.compile(
    rf"\bwith{_GAP}(?:recursive{_GAP})?\w+{_GAP}as(?:\s|\\+[nrt])*\(", re.IGNORECASE
)
# The last ones are sqlglot's own slips over texts that are no SQL: one record must not end a scan.
_NO_QUERY = (SqlglotError, RecursionError, AttributeError, LookupError, TypeError, ValueError)
_ESCAPED_SPACE, _ESCAPED_QUOTE = re.compile(r"\\+[nrt]"), re.compile(r"\\+\"")


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryHashes:
    """Hashes of one query, with its literals and without."""

    exact: str
    masked: str


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryHit:
    """A query found in a text, and what it is a copy of."""

    key: str
    start: int  # characters
    end: int


def query_hashes(text: str, dialect: str = "sqlite") -> QueryHashes | None:
    """Returns the hashes of a query; None for what is too short or too deep, or no query at all."""
    tree = _parsed(text, dialect)
    if tree is None:
        return None
    try:
        exact, masked = _forms(tree, dialect)
    except _NO_QUERY:  # what can be parsed may still be too deep to write
        return None
    if len(text_tokens(exact)) < MIN_TOKENS:
        return None
    return QueryHashes(exact=_hash("exact", exact), masked=_hash("masked", masked))


def _forms(tree: Any, dialect: str) -> tuple[str, str]:
    """Returns the forms with literals and without, in which the tree is left."""
    _number_aliases(tree)
    exact = _written(tree, dialect)
    for literal in list(tree.find_all(exp.Literal)):
        literal.replace(exp.Placeholder())
    return exact, _written(tree, dialect)


def tables_of(text: str, dialect: str = "sqlite") -> frozenset[str]:
    """Returns the names of a query's tables in lower case; none for what is no query."""
    tree = _parsed(text, dialect)
    return (
        frozenset()
        if tree is None
        else frozenset(table.name.lower() for table in tree.find_all(exp.Table))
    )


def query_hits(
    text: str,
    starts: Sequence[int],
    known: Mapping[str, object],
    tables: frozenset[str],
    *,
    max_work: int = MAX_WORK,
) -> Iterator[QueryHit]:
    """Yields the known queries of a text; `starts` are the characters where `select` stands.

    `tables` are those of all known queries: what reads from none of them is not looked at. What
    lies behind the bound on work is not either, which is logged.
    """
    if not _reads_from(text, tables):
        return
    reached, work_left = 0, max_work
    parsed: dict[str, QueryHashes | None] = {}
    for start in sorted({*starts, *(found.start() for found in _COMMON_TABLE.finditer(text))}):
        if start < reached:
            continue  # inside of a query that was found
        if work_left <= 0:
            logger.warning(
                "a text of %d characters has too many queries: those behind character %d are not "
                "compared as a whole",
                len(text),
                start,
            )
            return
        for end in _ends(text, start):
            query = _ESCAPED_QUOTE.sub('"', _ESCAPED_SPACE.sub("\n", text[start:end]))
            work_left -= len(query)
            if not _reads_from(query, tables):
                continue
            if query not in parsed:
                work_left -= _PARSING_WORK * len(query)
                parsed[query] = query_hashes(query)
            hashes = parsed[query]
            found = [key for key in (hashes.exact, hashes.masked) if key in known] if hashes else []
            for key in found:
                yield QueryHit(key=key, start=start, end=end)
            if found:
                reached = end
                break


def _reads_from(text: str, tables: frozenset[str]) -> bool:
    return any(found[1].lower() in tables for found in _FROM.finditer(text))


def _ends(text: str, start: int) -> list[int]:
    limit = min(len(text), start + _MAX_CHARS)
    ends = []
    for pattern in _ENDS:
        found = pattern.search(text, start, limit)
        end = found.start() if found else limit
        if end not in ends:
            ends.append(end)
    return ends


def _parsed(text: str, dialect: str) -> Any:
    try:
        tree = sqlglot.parse_one(text, read=dialect)
    except _NO_QUERY:
        return None
    return tree if isinstance(tree, exp.Query) else None


def _number_aliases(tree: Any) -> None:
    numbered: dict[str, str] = {}
    for table in tree.find_all(exp.Table, exp.Subquery, bfs=False):
        if table.alias:
            numbered.setdefault(table.alias.lower(), f"t{len(numbered) + 1}")
            table.set(
                "alias", exp.TableAlias(this=exp.to_identifier(numbered[table.alias.lower()]))
            )
    for column in tree.find_all(exp.Column):
        if column.table.lower() in numbered:
            column.set("table", exp.to_identifier(numbered[column.table.lower()]))


def _written(tree: Any, dialect: str) -> str:
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("quoted", False)
    written: str = tree.sql(dialect=dialect, comments=False, normalize_functions="lower")
    return written.lower()


def _hash(form: str, text: str) -> str:
    return f"{form}:{xxhash.xxh3_128_hexdigest(text.encode('utf-8', 'surrogatepass'))}"


logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it thinks of texts that are no SQL
