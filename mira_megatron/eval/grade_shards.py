"""Which tasks one of several processes grades, and the file that it writes.

Writes  verdicts.<index>-of-<count>.jsonl, which the run without a shard takes into verdicts.jsonl
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The tasks at the positions index, index + count, index + 2 * count ... of the data file."""

    index: int  # from 0
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard {self.index}/{self.count}: expected 0/N to N-1/N")

    def has(self, position: int) -> bool:
        """Returns whether the task at a position is this shard's."""
        return position % self.count == self.index

    @property
    def file_name(self) -> str:
        """The name of its verdicts' file."""
        return f"verdicts.{self.index}-of-{self.count}.jsonl"


def shard_of_words(words: str) -> Shard:
    """Returns the shard of "3/8". Raises ValueError for other words."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", words)
    if found is None:
        raise ValueError(f"shard {words!r}: expected INDEX/COUNT, for example 0/8 to 7/8")
    return Shard(index=int(found[1]), count=int(found[2]))


def shard_files(folder: Path) -> list[Path]:
    """Returns what shards have written to a folder, of any count, oldest first."""
    found = folder.glob("verdicts.*-of-*.jsonl")
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
