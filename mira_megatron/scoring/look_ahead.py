"""Items of an iterator that are slow to make, made beside the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

_ITEMS_AHEAD = 32


class LookAhead(Generic[Item]):
    """Takes items from an iterator in a thread, a few ahead of when they are wanted."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
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
        making = asyncio.to_thread(lambda: list(islice(self._items, count)))
        self._making = asyncio.create_task(making)
