from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.asking import Question, Reply, ask_all
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge_config import JudgeConfig

_GARBAGE = "lorem ipsum"


@dataclass(slots=True)
class _Teacher:
    """A server that answers question "3" with what `reply(3, seed)` returns: a text or a status."""

    reply: Callable[[int, int], str | int] = lambda number, seed: f"fine {number}"
    usage: dict[str, int] | None = field(
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5}
    )
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    num_open: int = 0
    most_open: int = 0

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        content, seed = body["messages"][0]["content"], body["seed"]
        self.asked[content, seed] += 1
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        await asyncio.sleep(0.001 * (hash((content, seed)) % 4))
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
        yield Question(key=f"{place}-{number}", messages=messages)


def _ask(
    teacher: _Teacher, folder: Path, numbers: Sequence[int] = range(6), **changes: Any
) -> dict[str, Reply]:
    """Returns the replies by key."""

    async def ask() -> dict[str, Reply]:
        async with teacher.serving() as url:
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
            judge = JudgeConfig(**{**values, **changes})
            with AnswerStore(folder) as store:
                replies = ask_all(
                    _questions(numbers),
                    judge,
                    seed=7,
                    api_key=None,
                    store=store,
                    is_readable=lambda answer: answer.text != _GARBAGE,
                    num_questions=len(numbers),
                    title="discover modules",
                )
                return {reply.key: reply async for reply in replies}

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


def test_ask_all_unreadable_answers_are_asked_for_again_with_the_next_seed(
    tmp_path: Path,
) -> None:
    teacher = _Teacher(reply=lambda number, seed: "fine" if seed >= 7 + number else _GARBAGE)
    replies = _ask(teacher, tmp_path, range(4), max_attempts=3)
    assert [replies[f"{n}-{n}"].num_attempts for n in range(4)] == [1, 2, 3, 3]
    assert [replies[f"{n}-{n}"].is_readable for n in range(4)] == [True, True, True, False]
    assert replies["3-3"].answer.text == _GARBAGE
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
    async def ask() -> list[Reply]:
        async with _Teacher().serving() as url:
            judge = JudgeConfig(
                engine="endpoint",
                model="m",
                temperature=0,
                top_p=1,
                max_tokens=5,
                endpoints=[url],
                max_failed_fraction=1.0,
            )
            broken = Question(key="b", messages=[{"role": "user", "content": "\ud800"}])
            with AnswerStore(tmp_path) as store:
                replies = ask_all(
                    [broken, *_questions([1])],
                    judge,
                    seed=7,
                    api_key=None,
                    store=store,
                    is_readable=lambda answer: True,
                    num_questions=2,
                    title="t",
                )
                return [reply async for reply in replies]

    failures = {reply.key: reply.answer.failure for reply in asyncio.run(ask())}
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


def test_ask_all_spend_ceiling_stops_and_a_raised_one_goes_on_without_repeating(
    tmp_path: Path,
) -> None:
    # An answer costs 10 + 5 tokens, and at most 31 bytes + 50 tokens.
    prices = {"price_per_million_prompt_tokens": 1e6, "price_per_million_output_tokens": 1e6}
    teacher = _Teacher()
    message = r"150\.0000 of spend_ceiling=220.0 .* up to 8\d\.0000; 10 of 20 records are left"
    with pytest.raises(ValueError, match=message):
        _ask(teacher, tmp_path, range(20), spend_ceiling=220.0, **prices)
    assert len(_ask(teacher, tmp_path, range(20), spend_ceiling=400.0, **prices)) == 20
    assert set(teacher.asked.values()) == {1}


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
            price_per_million_prompt_tokens=1e6,
            price_per_million_output_tokens=1e6,
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
