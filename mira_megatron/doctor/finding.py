"""What the preflight found: how bad, what, where, and the way out."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING, INFO = "error", "warning", "info"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing found."""

    level: str  # ERROR: the run would fail or train something else; WARNING: look first; INFO
    what: str
    where: str  # a file, a setting or a package
    way_out: str = ""
