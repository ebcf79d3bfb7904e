"""Parts of records judged through an endpoint, whatever their records' ids are."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from mira_megatron.records import NUM_SLOTS, RECORD_SCHEMA, Anchor
from mira_megatron.rubric.replies import format_reply
from mira_megatron.rubric.verdict import Verdict
from mira_megatron.scoring import judged_parts
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.judged_parts import JudgedPart
from mira_megatron.scoring.judging import judge_parts
from mira_megatron.scoring.rating import RatingForm
from mira_megatron.shards import file_digest, write_parquet

NAMES = [f"dimension {slot}" for slot in range(NUM_SLOTS)]


def answer(score: int) -> str:
    verdict = Verdict(
        scores=(score,) * NUM_SLOTS,
        rationales=("so it is",) * NUM_SLOTS,
        overall=50,
        training_recommendation="keep",
        domain_tag="tag",
        brief="brief",
    )
    return format_reply(NAMES, verdict)


class Scorer:
    """An endpoint that rates every record by the number that its text ends with."""

    def __init__(self) -> None:
        self.seeds: Counter[int] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.seeds[body["seed"]] += 1
        shown = body["messages"][-1]["content"].split("-----\n")[1]
        message = {"content": answer(int(shown.split()[1]))}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"  # type: ignore[attr-defined]
        await runner.cleanup()


@contextlib.contextmanager
def served(scorer: Scorer) -> Iterator[str]:
    """Serves from another thread, since judging runs an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    serving = scorer.serving()
    url = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10)
    yield url
    asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def write_records(path: Path, ids: list[str]) -> JudgedPart:
    rows: list[dict[str, Any]] = [
        {
            "record_id": record_id,
            "content_hash": record_id,
            "source": "s",
            "family": "text",
            "text": f"text {number % 11} of {number}",
            "payload": None,
            "meta": None,
            "control_spans": [],
            "num_chars": 1,
            "origin": "o",
        }
        for number, record_id in enumerate(ids)
    ]
    write_parquet(path, pa.Table.from_pylist(rows, schema=RECORD_SCHEMA))
    return JudgedPart(
        records=path,
        digest=file_digest(path),
        output=path.with_name(f"rated-{path.name}"),
        record_ids=None,
        num_records=len(ids),
    )


def rated(parts: list[JudgedPart], folder: Path, **changes: Any) -> Counter[int]:
    """The seeds that were asked with."""
    anchors = tuple(
        Anchor(
            anchor_id=f"A{slot + 1}",
            name=name,
            description=None,
            part=None,
            cluster_size=None,
            aliases=(),
            medoid=None,
            references=(),
            rubric_version="v",
        )
        for slot, name in enumerate(NAMES)
    )
    scorer = Scorer()
    with served(scorer) as url:
        config = JudgeConfig(
            engine="endpoint",
            model="m",
            temperature=0.0,
            top_p=1.0,
            max_tokens=100,
            endpoints=[url],
            **changes,
        )
        judge = Judge(config=config, seed=3, tokenizer=None, answers=folder / "answers")
        form = RatingForm(family="text", anchors=anchors, judge=judge)
        unit = SimpleNamespace(label="score s", stage="score")
        resources = SimpleNamespace(workers=1, secrets={}, is_shared=False)
        workspace = SimpleNamespace(unit=unit, resources=resources, earlier=None)
        judge_parts(cast(Any, workspace), parts, form, judge)
    return scorer.seeds


def scores(part: JudgedPart) -> list[tuple[str, float]]:
    rows = pq.read_table(part.output, columns=["record_id", "scores"]).to_pylist()
    return [(row["record_id"], row["scores"][0]) for row in rows]


def test_every_record_has_one_row_in_order_whatever_ids_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judged_parts, "RECORDS_READ", 3)
    ids = [["a", "b", "a", "c"], ["a", "d", "d", "e", "f", "g", "h"]]
    parts = [write_records(tmp_path / f"part-{n}.parquet", some) for n, some in enumerate(ids)]
    rated(parts, tmp_path, max_in_flight=4)
    for part, some in zip(parts, ids, strict=True):
        assert scores(part) == [(record_id, n % 11) for n, record_id in enumerate(some)]


def test_every_record_is_asked_with_a_seed_of_its_own(tmp_path: Path) -> None:
    ids = [f"{number:032x}" for number in range(20)]
    part = write_records(tmp_path / "part-0.parquet", ids)
    assert len(rated([part], tmp_path)) == 20


def test_records_in_another_order_with_more_of_them_are_not_asked_about_again(
    tmp_path: Path,
) -> None:
    ids = [f"{number:032x}" for number in range(20)]
    first = write_records(tmp_path / "part-0.parquet", ids)
    assert rated([first], tmp_path).total() == 20
    table = pq.read_table(first.records)
    turned = pa.concat_tables([table.slice(10), table.slice(0, 10)])
    more = write_records(tmp_path / "part-9.parquet", [*ids, "x", "y"])
    path = tmp_path / "part-1.parquet"
    write_parquet(path, pa.concat_tables([turned, pq.read_table(more.records).slice(20)]))
    part = JudgedPart(
        records=path,
        digest=file_digest(path),
        output=tmp_path / "rated-1.parquet",
        record_ids=None,
        num_records=22,
    )
    assert rated([part], tmp_path).total() == 2
    expected = dict(scores(first)) | {"x": 20 % 11, "y": 21 % 11}
    assert dict(scores(part)) == expected
    assert len(scores(part)) == 22
