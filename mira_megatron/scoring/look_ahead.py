"""Items of an iterator that are slow to make, made beside the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

# Handing over to a thread and back costs some 200 µs, so small items are made many at a time.
_ITEMS_AHEAD = 64
_SIZE_AHEAD = 1 << 20


class LookAhead(Generic[Item]):
    """Takes items from an iterator in a thread, a few ahead of when they are wanted.

    `size` says what an item counts for, so that large ones are few.
    """

    def __init__(self, items: Iterator[Item], size: Callable[[Item], int]) -> None:
        self._items = items
        self._size = size
        self._made: deque[Item] = deque()
        self._making: asyncio.Task[list[Item]] | None = None

    async def __aenter__(self) -> Self:
        self._make(1)  # the first is to be there as soon as it can
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)

    async def next(self) -> Item | None:
        """Returns the next item, None after the last; raises what the iterator raises."""
        if not self._made and self._making is not None:
            self._made.extend(await asyncio.shield(self._making))
            self._making = None
            if self._made:
                self._make(_ITEMS_AHEAD)
        return self._made.popleft() if self._made else None

    def _make(self, count: int) -> None:
        self._making = asyncio.create_task(asyncio.to_thread(self._some, count))

    def _some(self, most: int) -> list[Item]:
        """Returns the next items, `most` or fewer that are large; none after the last."""
        made: list[Item] = []
        size = 0
        for item in self._items:
            made.append(item)
            size += self._size(item)
            if len(made) == most or size >= _SIZE_AHEAD:
                break
        return made
