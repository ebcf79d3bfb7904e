"""Has the records of parts judged by endpoints, as one stream of questions over all parts.

No part waits for the last answer of another: one is written when its last record is settled, while
answers to the next go on coming in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from mira_megatron.launchers.claimed_parts import taken_over, unclaimed
from mira_megatron.records import Record
from mira_megatron.rubric.views import View, ViewMaker
from mira_megatron.scoring.answer_store import AnswerStore, asking
from mira_megatron.scoring.asking import ask_all
from mira_megatron.scoring.garbage import rare_collections
from mira_megatron.scoring.judged_parts import (
    RECORDS_READ,
    SETTLED_FOR_GOOD,
    Form,
    JudgedPart,
    Judging,
    outcomes_of,
    records_of,
)
from mira_megatron.scoring.questions import UnwrittenQuestion

_ROWS_PER_TABLE = 256
_PARTS_TAKEN_OVER = 2  # at a time: answers that came before must be read, and others want some too


def ask_endpoints(parts: Sequence[JudgedPart], judging: Judging, api_key: str | None) -> None:
    """Asks about every part that is not there yet, or in which something failed."""
    claims = judging.claims
    with rare_collections():
        if claims is None:
            unsettled = [
                part
                for part in parts
                if not (
                    part.output.is_file() and set(outcomes_of(part.output)) <= set(SETTLED_FOR_GOOD)
                )
            ]
            num_done = judging.num_records - sum(part.num_records for part in unsettled)
            asyncio.run(_ask(iter(unsettled), judging, api_key, num_done))
            return
        asyncio.run(_ask(unclaimed(parts, claims), judging, api_key))
        left_behind = taken_over(parts, claims)
        while taken := list(islice(left_behind, _PARTS_TAKEN_OVER)):
            asyncio.run(_ask(iter(taken), judging, api_key))


@dataclass(kw_only=True, slots=True)
class _OpenPart:
    """A part whose questions are being asked; rows come in any order.

    Most of them wait as tables, in a third of the memory that they take as objects.
    """

    part: JudgedPart
    form: Form[Any]
    numbers: list[int] = field(default_factory=list)  # in the part, of the rows as they came
    tables: list[pa.Table] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)  # since the last table

    def add(self, number: int, row: Any) -> bool:
        """Takes the row of a record; returns whether that was the last."""
        self.numbers.append(number)
        self.rows.append(row)
        is_whole = len(self.numbers) == self.part.num_records
        if is_whole or len(self.rows) == _ROWS_PER_TABLE:
            self.tables.append(self.form.table(self.rows))
            self.rows = []
        return is_whole

    def table(self) -> pa.Table:
        """Returns all rows, in the order of the part's records."""
        return pa.concat_tables(self.tables).take(np.argsort(self.numbers))


async def _ask(
    parts: Iterator[JudgedPart], judging: Judging, api_key: str | None, num_done: int = 0
) -> None:
    """Asks about every record of these parts; `num_done` records of the unit are in others."""
    form, judge = judging.form, judging.judge
    view_maker = ViewMaker(judge.config.max_record_tokens, judge.tokenizer)
    asked: dict[str, tuple[Record, View, _OpenPart, int]] = {}

    def questions() -> Iterator[UnwrittenQuestion]:
        for part in parts:
            opened = _OpenPart(part=part, form=form)
            for number, record in enumerate(records_of(part)):
                # One that was lost never becomes whole here, and is not written.
                if number % RECORDS_READ == 0 and judging.is_lost(part):
                    break
                view = view_maker.view(record)
                key = f"{part.output.name}:{number}"  # whatever ids the records have
                asked[key] = record, view, opened, number
                yield UnwrittenQuestion(
                    key=key,
                    record_id=record.record_id,
                    view_text=view.text,
                    messages=form.messages,
                )

    alone = asking(judge.answers, together=judging.is_shared) if judging.asks else nullcontext()
    with alone, AnswerStore(judge.answers) as store:
        replies = ask_all(
            questions(),
            judge.config,
            seed=judge.seed,
            api_key=api_key,
            weights=judge.weights,
            losses=judge.losses,
            store=store,
            read=form.read,
            num_questions=judging.num_records,
            num_done=num_done,
            title=judging.title,
            asks=judging.asks,
        )
        async with aclosing(replies), _Writing(judging) as writing:
            async for reply in replies:
                record, view, opened, number = asked.pop(reply.key)
                reply = judging.settled(opened.part, number, reply)
                if opened.add(number, form.row(record, view, reply)):
                    await writing.start(opened)


class _Writing:
    """Writes parts one after the other, while answers go on coming in."""

    def __init__(self, judging: Judging) -> None:
        self._judging = judging
        self._last: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def start(self, opened: _OpenPart) -> None:
        """Starts to write a part, once the one before is written; raises what came of that."""
        await self._end()
        write = asyncio.to_thread(lambda: self._judging.write(opened.part, opened.table()))
        self._last = asyncio.create_task(write)

    async def _end(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            await last
