"""Has the records of a source judged, part by part: by rules, endpoints, or a model here.

What is asked about a record and what becomes of the answer is a form's business (free-form judging,
rating on anchors). Endpoints see one stream of questions over all parts, so no part waits for the
last answer of another; a part is written when its last record is settled.

Where a unit is shared, a worker judges the parts that it claims: first those that nobody has, then
those of workers that are gone. Answers that these kept are known by then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.corpus.sampling import sample_ids
from mira_megatron.endpoints import api_key as api_key_of
from mira_megatron.launchers.claimed_parts import finish, ours, taken_over, unclaimed
from mira_megatron.launchers.claims import Claims
from mira_megatron.launchers.sharing import Sharing
from mira_megatron.progress import track
from mira_megatron.records import RECORD_SCHEMA, Record, records_from_table
from mira_megatron.rubric.views import View, ViewMaker
from mira_megatron.scoring.answer_store import AnswerStore, asking
from mira_megatron.scoring.asking import ask_all
from mira_megatron.scoring.ceilings import Ceilings
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.garbage import rare_collections
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judging_here import judge_here, only_reply
from mira_megatron.scoring.questions import Parsed, Question, Reply, outcome
from mira_megatron.shards import map_shards, open_part, read_part
from mira_megatron.stage import Workspace

Row = TypeVar("Row")

# What a part that was interrupted may hold; anything else is asked about again.
_SETTLED_FOR_GOOD = ("ok", "partial")
_RECORDS_READ = 64
_ROWS_PER_TABLE = 256
_PARTS_TAKEN_OVER = 2  # at a time: answers that came before must be read, and others want some too
_TAUGHT = ("discover", "label")  # stages that ask the teacher


class Form(Protocol[Row]):
    """What is asked about a record, and what becomes of the answer."""

    def messages(self, view_text: str) -> tuple[dict[str, str], ...]:
        """Returns the chat messages to send."""

    def judge_in_process(self, view_text: str) -> str:
        """Returns the rule judge's answer."""

    def example_answers(self) -> tuple[str, ...]:
        """Returns answers that every answer is pieced together from; none where they are free."""

    def read(self, answer: Answer) -> Parsed:
        """Returns what can be used of an answer; not asked of failures."""

    def row(self, record: Record, view: View, reply: Reply) -> Row:
        """Returns what is kept of the reply about one record."""

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """Returns rows as a table, a row of it for each."""

    def write(self, output: Path, rows: pa.Table) -> None:
        """Writes a part; last of all `output`, with one row per record: status and reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPart:
    """The records of one part that are to be judged."""

    records: Path
    digest: str
    output: Path  # see Form.write
    record_ids: frozenset[str] | None  # None: all
    num_records: int  # to be judged


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sampling:
    records: Path
    digest: str
    n: int
    seed: int
    purpose: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _InProcess:
    part: JudgedPart
    form: Form[Any]
    judge: Judge


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judging:
    """Who judges a unit's records, in which form, and who else does."""

    form: Form[Any]
    judge: Judge
    title: str
    num_records: int  # of all the unit's parts
    claims: Claims | None  # None: this process alone
    asks: bool  # False: only what was answered before

    def write(self, part: JudgedPart, rows: pa.Table) -> None:
        """Writes a part, unless another worker has."""
        if self.claims is None:
            self.form.write(part.output, rows)
        else:
            self.claims.deliver(part.output, lambda path: self.form.write(path, rows))

    def write_whole(self, opened: _OpenPart) -> None:
        """Writes a part that has all its rows."""
        self.write(opened.part, opened.table())

    def is_lost(self, part: JudgedPart) -> bool:
        """Returns whether another worker has taken a part over from this one."""
        return self.claims is not None and not self.claims.is_mine(part.output.name)


def all_parts(workspace: Workspace, source: str) -> list[JudgedPart]:
    """Returns every part of a source, all of its records to be judged."""
    return [
        JudgedPart(
            records=path,
            digest=part.digest,
            output=workspace.folder / part.path,
            record_ids=None,
            num_records=part.num_rows or 0,
        )
        for path, part in workspace.upstream_parts(layout.records(source), ".parquet")
    ]


def sampled_parts(
    workspace: Workspace, source: str, n: int, *, seed: int, purpose: str, stem: str = "part"
) -> list[JudgedPart]:
    """Returns the parts that hold a record of the source's sample; outputs begin with `stem`."""
    upstream = workspace.upstream_parts(layout.records(source), ".parquet")
    tasks = [
        _Sampling(records=path, digest=part.digest, n=n, seed=seed, purpose=purpose)
        for path, part in upstream
    ]
    workers = workspace.resources.workers
    title = f"sample {source}"
    of_parts = list(map_shards(_sample_part, tasks, workers=workers, title=title))
    sample = sample_ids(chain.from_iterable(of_parts), n, seed=seed, purpose=purpose)
    return [
        JudgedPart(
            records=path,
            digest=part.digest,
            output=workspace.folder / f"{stem}{part.path.removeprefix('part')}",
            record_ids=frozenset(sample & of_part),
            num_records=len(sample & of_part),
        )
        for (path, part), of_part in zip(upstream, of_parts, strict=True)
        if sample & of_part
    ]


def judge_parts(
    workspace: Workspace,
    parts: Sequence[JudgedPart],
    form: Form[Any],
    judge: Judge,
    sharing: Sharing | None = None,
) -> list[Counter[str]]:
    """Has every part judged and written; returns how many records of each ended how.

    Raises ValueError where an endpoint answers too little, or the spend ceiling is reached. What
    was answered is kept, and a part in which something failed is asked about again, but for one
    of a unit that is shared: it stays as its worker left it. Of a shared unit it returns to the
    one worker that is to end it; the others get HeldByOthers or EndedByOthers.
    """
    judging = _Judging(
        form=form,
        judge=judge,
        title=workspace.unit.label,
        num_records=sum(part.num_records for part in parts),
        claims=None if sharing is None else sharing.claims,
        asks=not workspace.resources.reparses,
    )
    if judging.claims is not None:
        _check_no_ceiling(judging)
    match judge.config.engine:
        case "rule_judge" if judging.claims is not None:
            with track(judging.title, len(parts)) as advance:
                for part in ours(parts, judging.claims):
                    judging.write(part, _rows_by_rules(part, form, judge))
                    advance()
        case "rule_judge":
            tasks = [_InProcess(part=part, form=form, judge=judge) for part in parts]
            workers = workspace.resources.workers
            for _ in map_shards(_judge_in_process, tasks, workers=workers, title=judging.title):
                pass
        case "transformers" | "vllm":
            judge_here(parts, judging, _records)
        case _:
            section = "teacher" if workspace.unit.stage in _TAUGHT else "score"
            secrets = workspace.resources.secrets
            _ask_endpoints(parts, judging, api_key_of(judge.config.api_key_env, secrets, section))
    if sharing is not None:
        finish(parts, judging.title, sharing)
    if sharing is not None or judge.config.engine in ("transformers", "vllm"):
        _check_usable(parts, judging)
    return [_outcomes(part.output) for part in parts]


def _sample_part(task: _Sampling) -> set[str]:
    record_ids = read_part(task.records, task.digest, ["record_id"])["record_id"].to_pylist()
    return sample_ids(record_ids, task.n, seed=task.seed, purpose=task.purpose)


def _judge_in_process(task: _InProcess) -> None:
    """Judges one part, if it is not there yet."""
    if not task.part.output.is_file():
        rows = _rows_by_rules(task.part, task.form, task.judge)
        task.form.write(task.part.output, rows)


def _rows_by_rules(part: JudgedPart, form: Form[Any], judge: Judge) -> pa.Table:
    """Returns a part's rows; through the answer's text, so that a server's rows are the same."""
    view_maker = ViewMaker(judge.config.max_record_tokens, judge.tokenizer)
    rows = []
    for record in _records(part):
        view = view_maker.view(record)
        answer = Answer(key=record.record_id, text=form.judge_in_process(view.text))
        rows.append(form.row(record, view, only_reply(answer, form)))
    return form.table(rows)


def _check_no_ceiling(judging: _Judging) -> None:
    if Ceilings.of(judging.judge.config).are_on_charges:
        raise ValueError(
            f"{judging.title}: spend_ceiling and ceilings on tokens count what one process spends, "
            "so several cannot keep to them. Leave out --share and --processes, or the ceilings."
        )


def _check_usable(parts: Sequence[JudgedPart], judging: _Judging) -> None:
    """Raises ValueError where all parts together hold too few usable answers."""
    judge = judging.judge
    outcomes: Counter[str] = sum((_outcomes(part.output) for part in parts), Counter())
    useless = outcomes.total() - sum(outcomes[settled] for settled in _SETTLED_FOR_GOOD)
    config = judge.config
    if useless > Ceilings.of(config).most_failures(outcomes.total()):
        kinds = ", ".join(f"{kind} {num:,}" for kind, num in sorted(outcomes.items()))
        way_out = (
            "see whether max_tokens cuts them off, or train the scorer for longer"
            if judge.is_local
            else "the same command without --share asks again about those that failed"
        )
        raise ValueError(
            f"{judging.title}: {useless:,} of {outcomes.total():,} records got no usable answer "
            f"from {judge.model} ({kinds}), more than "
            f"max_failed_fraction={config.max_failed_fraction} or "
            f"max_failures={config.max_failures} allows. The answers lie in "
            f"{parts[0].output.parent}: {way_out}; a raised max_failed_fraction takes them as they "
            "are."
        )


def _ask_endpoints(parts: Sequence[JudgedPart], judging: _Judging, api_key: str | None) -> None:
    """Asks about every part that is not there yet, or in which something failed."""
    claims = judging.claims
    with rare_collections():
        if claims is None:
            unsettled = [
                part
                for part in parts
                if not (
                    part.output.is_file() and set(_outcomes(part.output)) <= set(_SETTLED_FOR_GOOD)
                )
            ]
            num_done = judging.num_records - sum(part.num_records for part in unsettled)
            asyncio.run(_ask(iter(unsettled), judging, api_key, num_done))
            return
        asyncio.run(_ask(unclaimed(parts, claims), judging, api_key))
        left_behind = taken_over(parts, claims)
        while taken := list(islice(left_behind, _PARTS_TAKEN_OVER)):
            asyncio.run(_ask(iter(taken), judging, api_key))


async def _ask(
    parts: Iterator[JudgedPart], judging: _Judging, api_key: str | None, num_done: int = 0
) -> None:
    """Asks about every record of these parts; `num_done` records of the unit are in others."""
    form, judge = judging.form, judging.judge
    view_maker = ViewMaker(judge.config.max_record_tokens, judge.tokenizer)
    asked: dict[str, tuple[Record, View, _OpenPart, int]] = {}

    def questions() -> Iterator[Question]:
        for part in parts:
            opened = _OpenPart(part=part, form=form)
            for number, record in enumerate(_records(part)):
                # One that was lost never becomes whole here, and is not written.
                if number % _RECORDS_READ == 0 and judging.is_lost(part):
                    break
                view = view_maker.view(record)
                key = f"{part.output.name}:{number}"  # whatever ids the records have
                asked[key] = record, view, opened, number
                yield Question(
                    key=key, record_id=record.record_id, messages=form.messages(view.text)
                )

    together = judging.claims is not None
    with asking(judge.answers, together=together), AnswerStore(judge.answers) as store:
        replies = ask_all(
            questions(),
            judge.config,
            seed=judge.seed,
            api_key=api_key,
            weights=judge.weights,
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
                if opened.add(number, form.row(record, view, reply)):
                    await writing.start(opened)


class _Writing:
    """Writes parts one after the other, while answers go on coming in."""

    def __init__(self, judging: _Judging) -> None:
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
        write = asyncio.to_thread(self._judging.write_whole, opened)
        self._last = asyncio.create_task(write)

    async def _end(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            await last


def _records(part: JudgedPart) -> Iterator[Record]:
    """Yields the part's records that are to be judged, in order, a few in memory at a time."""
    wanted = None
    if part.record_ids is not None:
        wanted = pa.array(sorted(part.record_ids), pa.string())
    with open_part(part.records, part.digest) as file:
        for batch in file.iter_batches(
            _RECORDS_READ, columns=RECORD_SCHEMA.names, use_threads=False
        ):
            table = pa.Table.from_batches([batch])
            if wanted is not None:
                table = table.filter(pc.is_in(table["record_id"], value_set=wanted))
            yield from records_from_table(table)


def _outcomes(output: Path) -> Counter[str]:
    """Returns how many records of a written part ended how."""
    columns = pq.read_table(output, columns=["status", "reason"]).to_pydict()
    return Counter(map(outcome, columns["status"], columns["reason"]))
