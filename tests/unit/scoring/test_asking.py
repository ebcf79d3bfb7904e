from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.asking import ask_all
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.questions import Question, Reply
from mira_megatron.scoring.record_seed import record_seed

_GARBAGE = "lorem ipsum"


# Seeds are made from records; here they are counted from 7, the recipe's.
FIRST_SEED = record_seed(7, "r", 1)


@dataclass(frozen=True)
class Read:
    status: str


@dataclass(slots=True)
class _Teacher:
    """A server that answers question "3" with what `reply(3, seed)` returns: a text or a status."""

    reply: Callable[[int, int], str | int] = lambda number, seed: f"fine {number}"
    usage: dict[str, int] | None = field(
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5}
    )
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    gate: asyncio.Event | None = None  # no answer before it is open
    num_open: int = 0
    most_open: int = 0

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        content, seed = body["messages"][0]["content"], body["seed"] - FIRST_SEED + 7
        self.asked[content, seed] += 1
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        for _ in range((int(content) + seed) % 4):
            await asyncio.sleep(0)  # others overtake
        if self.gate is not None:
            await self.gate.wait()
        self.num_open -= 1
        answer = self.reply(int(content), seed)
        if isinstance(answer, int):
            return web.Response(status=answer, text="no")
        message = {"content": answer}
        return web.json_response({"choices": [{"message": message}], "usage": self.usage})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        async with TestServer(app) as server:
            yield str(server.make_url("/v1"))


def _questions(numbers: Sequence[int]) -> Iterator[Question]:
    """Yields one question per number; equal numbers are equal questions about other records."""
    for place, number in enumerate(numbers):
        messages = [{"role": "user", "content": str(number)}]
        yield Question(key=f"{place}-{number}", record_id="r", messages=messages)


def _judge(url: str, **changes: Any) -> JudgeConfig:
    values = {
        "engine": "endpoint",
        "model": "m",
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 50,
        "max_failed_fraction": 1.0,
        "max_retries": 0,
        "max_in_flight": 3,
        "endpoints": [url],
    }
    return JudgeConfig(**{**values, **changes})


async def _replies(
    questions: Iterable[Question], judge: JudgeConfig, folder: Path, num_questions: int
) -> dict[str, Reply]:
    with AnswerStore(folder) as store:
        replies = ask_all(
            questions,
            judge,
            seed=7,
            api_key=None,
            store=store,
            read=lambda answer: Read("unparsed" if answer.text == _GARBAGE else "ok"),
            num_questions=num_questions,
            title="discover modules",
        )
        return {reply.key: reply async for reply in replies}


def _ask(
    teacher: _Teacher, folder: Path, numbers: Sequence[int] = range(6), **changes: Any
) -> dict[str, Reply]:
    """Returns the replies by key."""

    async def ask() -> dict[str, Reply]:
        async with teacher.serving() as url:
            judge = _judge(url, **changes)
            return await _replies(_questions(numbers), judge, folder, len(numbers))

    return asyncio.run(ask())


def test_ask_all_answers_every_question_once(tmp_path: Path) -> None:
    teacher = _Teacher()
    replies = _ask(teacher, tmp_path, range(20))
    assert {key: reply.answer.text for key, reply in replies.items()} == {
        f"{number}-{number}": f"fine {number}" for number in range(20)
    }
    assert set(teacher.asked.values()) == {1}
    assert teacher.most_open <= 3


def test_ask_all_what_was_answered_before_is_not_asked_again(tmp_path: Path) -> None:
    teacher = _Teacher()
    first = _ask(teacher, tmp_path, range(4))
    again = _ask(teacher, tmp_path, range(6))
    assert {key: again[key] for key in first} == first
    assert set(teacher.asked.values()) == {1}


def test_ask_all_equal_questions_are_paid_for_once(tmp_path: Path) -> None:
    teacher = _Teacher()
    replies = _ask(teacher, tmp_path, [5, 5, 5, 6, 5])
    assert len(replies) == 5
    assert teacher.asked == {("5", 7): 1, ("6", 7): 1}


def test_ask_all_question_equal_to_one_in_flight_holds_up_no_other(tmp_path: Path) -> None:
    teacher = _Teacher(gate=asyncio.Event())

    async def ask() -> dict[str, Reply]:
        async with teacher.serving() as url:
            numbers = [1, 1, 1, 2, 3]
            asking = asyncio.create_task(
                _replies(_questions(numbers), _judge(url), tmp_path, len(numbers))
            )
            while teacher.num_open < 3:  # 1, 2 and 3, while two others wait for the first
                await asyncio.sleep(0.01)
            assert teacher.gate is not None
            teacher.gate.set()
            return await asking

    replies = asyncio.run(asyncio.wait_for(ask(), 20))
    assert sorted(replies) == ["0-1", "1-1", "2-1", "3-2", "4-3"]
    assert set(teacher.asked.values()) == {1}


def test_ask_all_question_equal_to_one_that_failed_is_asked_itself(tmp_path: Path) -> None:
    teacher = _Teacher(reply=lambda number, seed: 500 if sum(teacher.asked.values()) == 1 else "a")
    replies = _ask(teacher, tmp_path, [1, 1, 1], max_in_flight=1)
    failures = [reply.answer.failure for _, reply in sorted(replies.items())]
    assert failures == ["http_500", None, None]
    assert sum(teacher.asked.values()) == 2


def test_ask_all_question_equal_to_one_that_failed_for_good_fails_like_it(tmp_path: Path) -> None:
    teacher = _Teacher(reply=lambda number, seed: 400, gate=asyncio.Event())

    async def ask() -> dict[str, Reply]:
        async with teacher.serving() as url:
            replies = _replies(_questions([1, 1, 1, 2]), _judge(url), tmp_path, 4)
            asking = asyncio.create_task(replies)
            while teacher.num_open < 2:
                await asyncio.sleep(0.01)
            assert teacher.gate is not None
            teacher.gate.set()
            return await asking

    replies = asyncio.run(asyncio.wait_for(ask(), 20))
    assert {key: reply.answer.failure for key, reply in replies.items()} == dict.fromkeys(
        ["0-1", "1-1", "2-1", "3-2"], "http_400"
    )
    assert teacher.asked.total() == 2


def test_ask_all_unreadable_answers_are_asked_for_again_with_the_next_seed(
    tmp_path: Path,
) -> None:
    teacher = _Teacher(reply=lambda number, seed: "fine" if seed >= 7 + number else _GARBAGE)
    replies = _ask(teacher, tmp_path, range(4), max_attempts=3)
    assert [replies[f"{n}-{n}"].num_attempts for n in range(4)] == [1, 2, 3, 3]
    texts = [replies[f"{n}-{n}"].answer.text for n in range(4)]
    assert texts == ["fine", "fine", "fine", _GARBAGE]
    assert teacher.asked["3", 9] == 1


def test_ask_all_run_again_goes_on_at_the_attempt_it_had_reached(tmp_path: Path) -> None:
    teacher = _Teacher(reply=lambda number, seed: _GARBAGE if seed == 7 else 500)
    assert _ask(teacher, tmp_path, [1], max_attempts=2)["0-1"].answer.failure == "http_500"
    teacher.reply = lambda number, seed: "fine"
    assert _ask(teacher, tmp_path, [1], max_attempts=2)["0-1"].num_attempts == 2
    assert teacher.asked == {("1", 7): 1, ("1", 8): 2}


def test_ask_all_failures_are_typed_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    teacher = _Teacher(reply=lambda number, seed: 500 if number == 2 else "fine")
    assert _ask(teacher, tmp_path)["2-2"].answer == Answer(
        key="2-2", failure="http_500", failure_detail="no"
    )
    teacher.reply = lambda number, seed: "mended"
    replies = _ask(teacher, tmp_path)
    assert replies["2-2"].answer.text == "mended"
    assert teacher.asked.total() == 7


def test_ask_all_half_a_character_fails_its_record_only(tmp_path: Path) -> None:
    broken = Question(key="b", record_id="b", messages=[{"role": "user", "content": "\ud800"}])

    async def ask() -> dict[str, Reply]:
        async with _Teacher().serving() as url:
            return await _replies([broken, *_questions([1])], _judge(url), tmp_path, 2)

    failures = {key: reply.answer.failure for key, reply in asyncio.run(ask()).items()}
    assert failures == {"b": "unencodable", "0-1": None}


def test_ask_all_too_many_failures_stop_with_their_kinds_and_keep_the_answers(
    tmp_path: Path,
) -> None:
    kinds: list[str | int] = [500, _GARBAGE, 400, "fine"]
    teacher = _Teacher(reply=lambda number, seed: kinds[number % 4])
    with pytest.raises(ValueError, match=r"max_failed_fraction=0\.2 allows") as caught:
        _ask(teacher, tmp_path, range(40), max_failed_fraction=0.2)
    for named in ("discover modules", "of 40 records", "failed: http_500", "unparsed", "no"):
        assert named in str(caught.value)
    num_asked = teacher.asked.total()
    assert num_asked < 40  # it stops as soon as it cannot end well
    assert len(AnswerStore(tmp_path)) == sum(
        1 for number, _ in teacher.asked if isinstance(kinds[int(number) % 4], str)
    )


def test_ask_all_failures_up_to_the_limit_are_no_reason_to_stop(tmp_path: Path) -> None:
    teacher = _Teacher(reply=lambda number, seed: 500 if number < 29 else "fine")
    assert len(_ask(teacher, tmp_path, range(100), max_failed_fraction=0.29)) == 100


def test_ask_all_endpoint_that_answers_nothing_is_named(tmp_path: Path) -> None:
    teacher = _Teacher(reply=lambda number, seed: 401)
    with pytest.raises(ValueError, match=r"http_401: no\. Nothing usable came from http://127"):
        _ask(teacher, tmp_path, max_failed_fraction=0.5)


_PRICES: dict[str, Any] = {
    "price_per_million_prompt_tokens": 1e6,
    "price_per_million_output_tokens": 1e6,
}


def test_ask_all_spend_ceiling_stops_and_a_raised_one_goes_on_without_repeating(
    tmp_path: Path,
) -> None:
    # An answer costs 10 + 5 tokens, and at most 31 bytes + 50 tokens.
    teacher = _Teacher()
    message = r"150\.0000 of spend_ceiling=220.0 .* up to 8\d\.0000; 10 of 20 records are left"
    with pytest.raises(ValueError, match=message):
        _ask(teacher, tmp_path, range(20), spend_ceiling=220.0, **_PRICES)
    assert len(_ask(teacher, tmp_path, range(20), spend_ceiling=400.0, **_PRICES)) == 20
    assert set(teacher.asked.values()) == {1}


def test_ask_all_what_a_gateway_gave_up_on_counts_in_every_later_run(tmp_path: Path) -> None:
    teacher = _Teacher(reply=lambda number, seed: 504)
    for _ in range(3):  # each answer may have cost 31 bytes + 50 tokens
        with pytest.raises(ValueError, match=r"243\.0000 of spend_ceiling=300\.0 is spent"):
            _ask(teacher, tmp_path, spend_ceiling=300.0, **_PRICES)
    assert teacher.asked.total() == 3


@pytest.mark.parametrize(
    ("status", "named"),
    [(401, "api_key_env=None"), (403, "api_key_env=None"), (404, r"\(model=m\)")],
)
def test_ask_all_first_requests_that_a_setting_makes_fail_stop_at_once(
    tmp_path: Path, status: int, named: str
) -> None:
    teacher = _Teacher(reply=lambda number, seed: status)
    with pytest.raises(ValueError, match=rf"the first 20 requests all failed.*Correct .*{named}"):
        _ask(teacher, tmp_path, range(1000))
    assert teacher.asked.total() <= 20 + 3


def test_ask_all_failures_of_a_setting_after_an_answer_are_those_of_records(
    tmp_path: Path,
) -> None:
    teacher = _Teacher(reply=lambda number, seed: "fine" if number == 15 else 404)
    assert len(_ask(teacher, tmp_path, range(60))) == 60


def test_ask_all_interrupted_keeps_what_is_in_flight_and_asks_nothing_more(
    tmp_path: Path,
) -> None:
    teacher = _Teacher()

    async def ask() -> None:
        teacher.gate = asyncio.Event()
        async with teacher.serving() as url:
            questions = _questions(range(20))
            asking = asyncio.create_task(_replies(questions, _judge(url), tmp_path, 20))
            while teacher.num_open < 3:
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.sleep(0)
            teacher.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(ask())
    assert len(AnswerStore(tmp_path)) == teacher.asked.total() == 3


def test_ask_all_error_where_the_replies_go_keeps_what_is_in_flight(tmp_path: Path) -> None:
    teacher = _Teacher()

    async def ask() -> None:
        async with teacher.serving() as url:
            with AnswerStore(tmp_path) as store:
                replies = ask_all(
                    _questions(range(20)),
                    _judge(url),
                    seed=7,
                    api_key=None,
                    store=store,
                    read=lambda answer: Read("ok"),
                    num_questions=20,
                    title="discover modules",
                )
                async with contextlib.aclosing(replies):
                    async for _ in replies:
                        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        asyncio.run(ask())
    assert len(AnswerStore(tmp_path)) == teacher.asked.total() > 1


def test_ask_all_interrupted_twice_gives_up_what_is_in_flight(tmp_path: Path) -> None:
    teacher = _Teacher()

    async def ask() -> None:
        teacher.gate = asyncio.Event()
        async with teacher.serving() as url:
            # With a ceiling, so that what may have been paid for is noted.
            judge = _judge(url, spend_ceiling=1.0, price_per_million_output_tokens=1.0)
            asking = asyncio.create_task(_replies(_questions([1]), judge, tmp_path, 1))
            while teacher.num_open < 1:
                await asyncio.sleep(0)
            for _ in range(2):
                asking.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await asking
            teacher.gate.set()

    asyncio.run(ask())
    store = AnswerStore(tmp_path)
    assert (len(store), store.charged("m").num_output_tokens) == (0, 50)


def test_ask_all_first_request_leaves_before_the_second_question_is_made(tmp_path: Path) -> None:
    teacher = _Teacher()
    was_asked = threading.Event()

    def reply(number: int, seed: int) -> str:
        was_asked.set()
        return "fine"

    def questions() -> Iterator[Question]:
        first, second = _questions(range(2))
        yield first
        assert was_asked.wait(10), "the first request waits for the second question"
        yield second

    async def ask() -> dict[str, Reply]:
        teacher.reply = reply
        async with teacher.serving() as url:
            return await _replies(questions(), _judge(url), tmp_path, 2)

    assert len(asyncio.run(ask())) == 2


def test_ask_all_error_while_questions_are_made_keeps_what_is_in_flight(tmp_path: Path) -> None:
    def questions() -> Iterator[Question]:
        yield from _questions(range(1))
        raise ValueError("part is damaged")

    async def ask() -> None:
        async with _Teacher().serving() as url:
            await _replies(questions(), _judge(url), tmp_path, 2)

    with pytest.raises(ValueError, match="part is damaged"):
        asyncio.run(ask())
    assert len(AnswerStore(tmp_path)) == 1


@settings(max_examples=15, deadline=None)
@given(
    ceiling=st.integers(50, 1500),
    most_in_flight=st.integers(1, 8),
    kinds=st.lists(st.sampled_from(["fine", _GARBAGE, 500, 504]), min_size=1, max_size=5),
)
def test_ask_all_never_spends_more_than_the_ceiling(
    tmp_path_factory: pytest.TempPathFactory,
    ceiling: int,
    most_in_flight: int,
    kinds: list[str | int],
) -> None:
    teacher = _Teacher(reply=lambda number, seed: kinds[(number + seed) % len(kinds)], usage=None)
    with contextlib.suppress(ValueError):
        _ask(
            teacher,
            tmp_path_factory.mktemp("answers"),
            range(12),
            spend_ceiling=float(ceiling),
            **_PRICES,
            max_in_flight=most_in_flight,
            max_attempts=2,
        )
    num_maybe_billed = sum(
        times
        for (number, seed), times in teacher.asked.items()
        if kinds[(int(number) + seed) % len(kinds)] != 500
    )
    # Without usage, an answer counts as 31 or 32 bytes of messages and 50 tokens.
    assert num_maybe_billed * 81 <= ceiling


def test_ask_all_endpoint_that_ends_for_good_leaves_what_was_not_sent_open(tmp_path: Path) -> None:
    num_questions = 2_000
    asked: set[int] = set()
    made: list[Question] = []
    told: set[int] = set()

    def reply(number: int, seed: int) -> str | int:
        asked.add(number)
        return "fine" if len(asked) <= 6 else 503

    def questions() -> Iterator[Question]:
        for question in _questions(range(num_questions)):
            made.append(question)
            yield question

    async def ask() -> None:
        async with _Teacher(reply=reply).serving() as url:
            with AnswerStore(tmp_path) as store:
                replies = ask_all(
                    questions(),
                    _judge(url, patience_seconds=0.01),
                    seed=7,
                    api_key=None,
                    store=store,
                    read=lambda answer: Read("ok"),
                    num_questions=num_questions,
                    title="score modules",
                )
                async for each in replies:
                    told.add(int(each.key.partition("-")[2]))

    with pytest.raises(ValueError, match=r"took no request any more \(http_503.*run the same"):
        asyncio.run(ask())
    assert told == asked
    assert len(made) < num_questions / 2  # the others are not even looked at
    well = _Teacher()
    _ask(well, tmp_path, range(20))
    assert len(well.asked) == 20 - 6
