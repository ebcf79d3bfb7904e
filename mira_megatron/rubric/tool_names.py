"""What the name of a tool says that it does."""

from __future__ import annotations

import re

_NAME_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_MAX_NAME_CHARS = 200
_CHANGING = frozenset(
    (
        *(
            "add",
            "apply",
            "approve",
            "assign",
            "book",
            "buy",
            "cancel",
            "change",
            "close",
            "commit",
        ),
        *(
            "create",
            "delete",
            "disable",
            "downgrade",
            "edit",
            "enable",
            "exchange",
            "fix",
            "insert",
        ),
        *("install", "kill", "make", "modify", "move", "order", "patch", "pay", "post", "purchase"),
        *("push", "put", "rebook", "refund", "register", "remove", "rename", "replace"),
        *("reschedule", "reserve", "reset", "return", "save", "schedule", "send", "set", "submit"),
        *("uninstall", "update", "upgrade", "upload", "write"),
    )
)

_HANDING = frozenset(("transfer", "escalate", "handoff", "handover", "hand", "forward"))
_PEOPLE = frozenset(("human", "humans", "agent", "agents", "person", "operator", "support"))


def names_a_handover(name: str) -> bool:
    """Returns whether a tool's name says that it passes the task on (transfer_to_human)."""
    words = {word.lower() for word in _NAME_WORD.findall(name[:_MAX_NAME_CHARS])}
    return not _HANDING.isdisjoint(words) and not _PEOPLE.isdisjoint(words)


def names_a_change(name: str) -> bool:
    """Returns whether a tool's name begins with a verb of changing (update_order, sendMail)."""
    first = _NAME_WORD.search(name[:_MAX_NAME_CHARS])
    return first is not None and first[0].lower() in _CHANGING
