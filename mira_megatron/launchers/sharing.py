"""One unit worked on by several processes: they meet at its beginning and at its end.

At either they take turns. In between each does the parts that it claims; whoever then finds all
parts there ends the unit, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.file_lock import waited_lock
from mira_megatron.launchers.claims import Claims, Owner


class HeldByOthers(Exception):
    """This worker has done what it could; others still work on parts of the unit."""


class EndedByOthers(Exception):
    """Another worker has ended the unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """What a work function needs to share its unit."""

    claims: Claims
    is_last: Callable[[], bool]  # of its workers; to be asked on the way out
    _turns: Path
    _turn: ExitStack
    _is_ended: Callable[[], bool]

    def finish(self) -> None:
        """Waits until this worker is the only one to end the unit, whose parts are all there.

        Raises EndedByOthers where one has ended it.
        """
        self._turn.enter_context(waited_lock(self._turns))
        if self._is_ended():
            raise EndedByOthers


@contextmanager
def sharing(
    scratch: Path,
    owner: Owner,
    *,
    turns: Path,
    is_ended: Callable[[], bool],
    is_last: Callable[[], bool],
) -> Iterator[Sharing]:
    """Yields what sharing needs; a turn that was taken ends with the block.

    `scratch` is the unit's, `turns` the lock of those who begin or end it.
    """
    with ExitStack() as turn, Claims(scratch, owner) as claims:
        yield Sharing(claims=claims, is_last=is_last, _turns=turns, _turn=turn, _is_ended=is_ended)
