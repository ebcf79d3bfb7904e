"""Whether the rows of a gold statement have an order: its outermost ORDER BY alone says so.

The one module that imports sqlglot (extra `eval`).
"""

from __future__ import annotations

import sqlglot
from sqlglot.errors import SqlglotError
from sqlglot.expressions import Query

from mira_megatron.eval.sql.statements import has_outer_order_by


def is_ordered(statement: str) -> bool:
    """Returns whether a statement's rows come in an order that it asks for.

    An ORDER BY in a subquery, a common table expression or a window is none of the rows'. What
    sqlglot cannot parse is read by its brackets.
    """
    try:
        tree = sqlglot.parse_one(statement, read="sqlite")
    except (SqlglotError, RecursionError):
        return has_outer_order_by(statement)
    return isinstance(tree, Query) and tree.args.get("order") is not None
