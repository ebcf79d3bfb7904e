"""What the preflight found: how bad, what, where, and the way out."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING, UNKNOWN, INFO = "error", "warning", "unknown", "info"
LEVELS = (ERROR, WARNING, UNKNOWN, INFO)  # the worst first


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing found."""

    # ERROR: the run would fail or train something else; WARNING: look first; UNKNOWN: not to be
    # told yet, and `way_out` says when; INFO.
    level: str
    what: str
    where: str  # a file, a setting or a package
    way_out: str = ""
