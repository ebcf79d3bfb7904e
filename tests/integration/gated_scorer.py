"""A scorer that holds its answers back, so that no timing decides who is in the middle of what."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

from aiohttp import web
from fake_teacher import FakeTeacher


@dataclass(slots=True)
class GatedScorer(FakeTeacher):
    """Answers while its gate is open."""

    num_waiting: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.num_waiting += 1
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        self.num_waiting -= 1
        return await FakeTeacher._handle(self, request)
