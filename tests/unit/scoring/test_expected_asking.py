"""Expected scores from an endpoint: a server with known probabilities, and what becomes of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mira_megatron.scoring.answer_store import AnswerStore, Charged
from mira_megatron.scoring.asking import ask_all
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import expected_score
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.questions import Question, Reply

_BEGINNING = "[A1] depth: "
_NINE = {"9": 0.5, "1": 0.5}
_SEVEN = {"7": 0.5, "8": 0.5}


@dataclass(frozen=True)
class Read:
    status: str


@dataclass(slots=True)
class _Scorer:
    """A server whose answer is 9/10 or 7/10, by its odds; after a 1 it goes on with "0" or "/"."""

    odds: dict[str, float]
    zero: float = 0.75
    has_logprobs: bool = True
    branch_status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if body["messages"][-1]["role"] == "assistant":
            if self.branch_status != 200:
                return web.Response(status=self.branch_status, text="no")
            return self._reply([("/", {"0": self.zero, "/": 1 - self.zero})])
        score = next(iter(self.odds))
        sure = ((_BEGINNING, {_BEGINNING: 1.0}), ("/10", {"/10": 1.0}))
        return self._reply([sure[0], (score, self.odds), sure[1]])

    def _reply(self, tokens: list[tuple[str, dict[str, float]]]) -> web.Response:
        choice: dict[str, Any] = {"message": {"content": "".join(text for text, _ in tokens)}}
        if self.has_logprobs:
            choice["logprobs"] = {"content": [_entry(text, odds) for text, odds in tokens]}
        usage = {"prompt_tokens": 10, "completion_tokens": len(tokens)}
        return web.json_response({"choices": [choice], "usage": usage})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        async with TestServer(app) as server:
            yield str(server.make_url("/v1"))


def _entry(text: str, odds: dict[str, float]) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(each)} for token, each in odds.items()]
    return {"token": text, "logprob": 0.0, "top_logprobs": top}


def _judge(url: str, **changes: Any) -> JudgeConfig:
    values = {
        "engine": "endpoint",
        "answer_mode": "expected",
        "model": "m",
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 50,
        "max_failed_fraction": 1.0,
        "max_retries": 0,
        "endpoints": [url],
    }
    return JudgeConfig(**{**values, **changes})


def _ask(scorer: _Scorer, folder: Path, weights: str | None = None, **changes: Any) -> Answer:
    """Returns the answer to one question."""

    async def ask() -> list[Reply]:
        async with scorer.serving() as url:
            with AnswerStore(folder) as store:
                replies = ask_all(
                    [
                        Question(
                            key="r",
                            record_id="r",
                            messages=[{"role": "user", "content": "a record"}],
                        )
                    ],
                    _judge(url, **changes),
                    seed=7,
                    api_key=None,
                    weights=weights,
                    store=store,
                    read=lambda answer: Read("ok" if answer.odds else "unparsed"),
                    num_questions=1,
                    title="score notes",
                )
                return [reply async for reply in replies]

    (reply,) = asyncio.run(ask())
    return reply.answer


def _score(answer: Answer) -> float:
    assert answer.odds is not None
    (odds,) = answer.odds
    return expected_score(odds)


def test_expected_answer_is_asked_for_with_logprobs_and_scored(tmp_path: Path) -> None:
    scorer = _Scorer(_SEVEN)
    assert _score(_ask(scorer, tmp_path)) == pytest.approx(7.5)
    (body,) = scorer.bodies
    assert (body["logprobs"], body["top_logprobs"], body["temperature"]) == (True, 20, 0.0)


def test_expected_answer_beside_a_likely_one_is_asked_what_follows_it(tmp_path: Path) -> None:
    scorer = _Scorer(_NINE)
    answer = _ask(scorer, tmp_path)
    assert answer.text == "[A1] depth: 9/10"
    assert _score(answer) == pytest.approx(0.5 * 9 + 0.5 * (0.75 * 10 + 0.25 * 1))
    _, branch = scorer.bodies
    assert branch["messages"][-1] == {"role": "assistant", "content": "[A1] depth: 1"}
    assert branch["continue_final_message"] is True
    assert branch["add_generation_prompt"] is False
    assert branch["max_tokens"] == 1


def test_expected_answer_is_paid_for_once_with_what_was_asked_about_it(tmp_path: Path) -> None:
    first = _ask(_Scorer(_NINE), tmp_path)
    again = _Scorer(_NINE)
    assert _ask(again, tmp_path) == first
    assert again.bodies == []
    charged = AnswerStore(tmp_path).charged("m")
    assert charged == Charged(num_prompt_tokens=20, num_output_tokens=4)


def test_expected_answer_of_another_training_of_the_same_name_is_asked_for(tmp_path: Path) -> None:
    _ask(_Scorer(_SEVEN), tmp_path, weights="first")
    again = _Scorer(_NINE)
    assert _score(_ask(again, tmp_path, weights="second")) > 8
    assert len(again.bodies) == 2


def test_expected_answer_counts_what_is_asked_about_it_under_the_ceiling(tmp_path: Path) -> None:
    # An answer costs 3, what is asked about it 1.
    price: dict[str, Any] = {"price_per_million_output_tokens": 1e6, "max_tokens": 3}
    with pytest.raises(ValueError, match=r"spend_ceiling=3.* can cost up to 1\.0"):
        _ask(_Scorer(_NINE), tmp_path, spend_ceiling=3.0, **price)
    again = _Scorer(_NINE)
    assert _score(_ask(again, tmp_path, spend_ceiling=4.0, **price)) > 8
    assert len(again.bodies) == 1


def test_expected_answer_whose_question_about_a_one_fails_is_a_failure(tmp_path: Path) -> None:
    assert _ask(_Scorer(_NINE, branch_status=500), tmp_path).failure == "http_500"
    assert _score(_ask(_Scorer(_NINE), tmp_path)) > 8  # and is asked again another time


def test_expected_answer_without_logprobs_stops_the_run_and_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"score notes: http.*gave no log-probabilities.*full"):
        _ask(_Scorer(_SEVEN, has_logprobs=False), tmp_path)
    assert _score(_ask(_Scorer(_SEVEN), tmp_path)) == pytest.approx(7.5)


@pytest.mark.parametrize("logprob", ["-1", None, True, 3.5])
def test_expected_answer_with_logprobs_that_are_none_stops_the_run(
    tmp_path: Path, logprob: Any
) -> None:
    entry = {"token": "7", "top_logprobs": [{"token": "7", "logprob": logprob}]}
    choice = {"message": {"content": "7"}, "logprobs": {"content": [entry]}}

    class _Broken(_Scorer):
        def _reply(self, tokens: list[tuple[str, dict[str, float]]]) -> web.Response:
            return web.json_response({"choices": [choice]})

    with pytest.raises(ValueError, match="gave no log-probabilities"):
        _ask(_Broken(_SEVEN), tmp_path)


def test_answer_store_segment_from_before_expected_scores_is_read(tmp_path: Path) -> None:
    charged = {"num_prompt_tokens": 1, "num_output_tokens": 2}
    line = {
        **{"key": "ab" * 16, "model": "m", "charged": charged, "text": "fine"},
        **dict.fromkeys(("reasoning", "finish_reason", "num_prompt_tokens"), None),
        **dict.fromkeys(("num_output_tokens", "failure", "failure_detail"), None),
    }
    (tmp_path / "old.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    stored = AnswerStore(tmp_path).get("ab" * 16)
    assert stored is not None
    assert (stored.text, stored.odds) == ("fine", None)
