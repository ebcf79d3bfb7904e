"""Which parts of a shared unit a worker does, and what is left for it when they are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

from mira_megatron.launchers.claims import Claims
from mira_megatron.launchers.sharing import HeldByOthers, Sharing


class Part(Protocol):
    """A part of a unit, claimed by the name of its file."""

    @property
    def output(self) -> Path:
        """Returns the file that is there once the part is done."""


AnyPart = TypeVar("AnyPart", bound=Part)


def ours(parts: Sequence[AnyPart], claims: Claims) -> Iterator[AnyPart]:
    """Claims the parts that nobody has, then those of workers that are gone."""
    return chain(unclaimed(parts, claims), taken_over(parts, claims))


def unclaimed(parts: Sequence[AnyPart], claims: Claims) -> Iterator[AnyPart]:
    """Claims the parts that nobody has, each when it is wanted."""
    for part in parts:
        if not part.output.is_file() and claims.take(part.output.name, takes_over=False):
            yield part


def taken_over(parts: Sequence[AnyPart], claims: Claims) -> Iterator[AnyPart]:
    """Claims the parts of workers that are gone, each when it is wanted."""
    for part in parts:
        if not part.output.is_file() and claims.take(part.output.name):
            yield part


def finish(parts: Sequence[Part], title: str, sharing: Sharing) -> None:
    """Returns to the one worker that is to end the unit.

    Raises HeldByOthers while parts are missing, EndedByOthers when another has ended it.
    """
    num_missing = sum(not part.output.is_file() for part in parts)
    if num_missing:
        raise HeldByOthers(
            f"{title}: others work on the last {num_missing:,} of {len(parts):,} parts; whoever is "
            "last ends it"
        )
    sharing.finish()
