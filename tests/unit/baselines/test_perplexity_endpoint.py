from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from aiohttp import web
from baseline_runs import recipe_over, run_baselines, scores_of, table_of
from hypothesis import given
from hypothesis import strategies as st
from loss_server import LossServer, error, saying, serving, well
from tiny_reference import write_reference

from mira_megatron.baselines.perplexity import NOTHING_TO_PREDICT
from mira_megatron.baselines.token_windows import encoded_for, windows_of
from mira_megatron.config import Recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.completion import Answer, Failure
from mira_megatron.scoring.prompt_losses import (
    PromptLosses,
    num_tokens_of,
    num_windows_of,
    prompt_text,
    read_losses,
    summed_loss,
)
from mira_megatron.stage import Resources

TEXTS = ["for x in y:", "a", "zwölf Boxkämpfer", "<|endoftext|> in a text", "0" * 200, "no " * 9]
TOO_LONG = "This model's maximum context length is 64 tokens. However, you requested 65 tokens"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def server(reference: Path) -> Iterator[LossServer]:
    with serving(LossServer(model=reference)) as server:
        yield server


def asking(server: LossServer, **settings: Any) -> dict[str, Any]:
    return {
        "method": "perplexity",
        "engine": "endpoint",
        "model": "tiny",
        "tokenizer": str(server.model),
        "endpoints": [server.url],
        "window_tokens": 48,
        "max_retries": 1,
        **settings,
    }


def losses(recipe: Recipe, baseline: str = "ppl") -> dict[str, dict[str, Any]]:
    """Returns the row of every record by its text."""
    texts = table_of(recipe.run_folder / "records/s")["text"].to_pylist()
    rows = table_of(recipe.run_folder / "baselines" / baseline / "losses/s").to_pylist()
    return dict(zip(texts, rows, strict=True))


@pytest.mark.parametrize("stride", [None, 16])
def test_losses_of_a_server_are_those_of_transformers(
    tmp_path: Path, server: LossServer, stride: int | None
) -> None:
    here = {"method": "perplexity", "model": str(server.model), "window_tokens": 48}
    baselines = {
        "ppl": asking(server, stride_tokens=stride),
        "here": {**here, "stride_tokens": stride},
    }
    recipe = recipe_over(tmp_path, {"s": TEXTS}, baselines)
    run_baselines(recipe)
    served, measured = losses(recipe), losses(recipe, "here")
    for text in TEXTS:
        assert served[text]["num_targets"] == measured[text]["num_targets"]
        if len(text) > 1:
            assert served[text]["loss"] == pytest.approx(measured[text]["loss"], abs=1e-3)
    assert served["a"]["loss"] is None
    assert scores_of(recipe, "ppl", "s")["a"] == (None, NOTHING_TO_PREDICT)
    assert scores_of(recipe, "ppl", "s") == scores_of(recipe, "here", "s")
    assert len(server.bodies) == len(TEXTS) - 1  # one letter is not asked about
    for body in server.bodies:
        assert (body["max_tokens"], body["prompt_logprobs"]) == (1, 0)
        assert "seed" not in body
        assert all(len(window) <= 48 for window in body["prompt"])
    assert (max(len(body["prompt"]) for body in server.bodies) > 1) == (stride is not None)


def test_failed_requests_are_nulls_with_a_reason(tmp_path: Path, server: LossServer) -> None:
    texts = {
        "b" * 10: (error(429, until_attempt=3), "ok", None),
        "b" * 11: (error(502, until_attempt=2), "ok", None),
        "b" * 12: (error(500), "failed", "http_500: "),
        "b" * 13: (error(400, message=TOO_LONG), "too_long", "too_long: "),
        "b" * 14: (saying(lambda reply: ["no"]), "failed", "bad_body: "),
        "b" * 15: (saying(shifted), "failed", "bad_body: its prompt_logprobs are not of"),
        "b" * 16: (
            saying(lambda reply: {**reply, "choices": reply["choices"] * 2}),
            "failed",
            "bad",
        ),
    }
    server.deal_of = {len(text): deal for text, (deal, _, _) in texts.items()}
    settings = asking(server, max_failed_fraction=1.0)
    recipe = recipe_over(tmp_path, {"s": [*texts, *TEXTS]}, {"ppl": settings})
    run_baselines(recipe)
    rows, scores = losses(recipe), scores_of(recipe, "ppl", "s")
    for text, (_, status, reason) in texts.items():
        assert rows[text]["status"] == status
        assert (rows[text]["loss"] is None) == (status != "ok") == (scores[text][0] is None)
        assert (rows[text]["reason"] or "").startswith(reason or "")
        assert scores[text][1] == (None if status == "ok" else status)


def shifted(reply: dict[str, Any]) -> dict[str, Any]:
    """Returns a reply about other tokens."""
    choice = reply["choices"][0]
    wrong = [
        each and {str(int(token) + 1): said for token, said in each.items()}
        for each in choice["prompt_logprobs"]
    ]
    return {**reply, "choices": [{**choice, "prompt_logprobs": wrong}]}


def test_too_many_failures_stop_the_run_and_the_next_asks_for_them_alone(
    tmp_path: Path, server: LossServer
) -> None:
    server.deal_of = {len(TEXTS[0]): error(500)}
    settings = asking(server, max_failures=0)
    recipe = recipe_over(tmp_path, {"s": TEXTS}, {"ppl": settings})
    with pytest.raises(ValueError, match="http_500") as refused:
        run_baselines(recipe)
    assert "max_failures=0 allows" in str(refused.value)
    answered = {prompt for prompt in server.asked if len(orjson.loads(prompt)[0]) != len(TEXTS[0])}
    server.deal_of = {}
    before = server.asked.copy()
    run_baselines(recipe)
    again = server.asked - before
    assert not answered & set(again)
    assert all(row["status"] == "ok" for row in losses(recipe).values())
    total = server.asked.total()
    run_baselines(recipe)
    assert server.asked.total() == total


def test_killed_and_run_again_nothing_is_lost_or_asked_twice(
    tmp_path: Path, server: LossServer
) -> None:
    texts = [f"text {number:03d}" for number in range(40)]
    folders = [tmp_path / name for name in ("undisturbed", "killed")]
    recipes = []
    for folder in folders:
        folder.mkdir()
        settings = asking(server, max_in_flight=2)
        recipes.append(recipe_over(folder, {"s": texts}, {"ppl": settings}))
    undisturbed, recipe = recipes
    run_baselines(undisturbed)
    server.asked.clear()
    run_stages(recipe, ["ingest"], Resources())
    for num_asked in (5, 17):
        kill_after(num_asked, server, recipe)
    num_kept = len(AnswerStore(recipe.run_folder / "answers"))
    num_asked = server.asked.total()
    assert 0 < num_kept < len(texts)
    assert num_asked - num_kept <= 2 * 2 * 2  # in flight, and standing by, at two kills
    run_baselines(recipe)
    assert server.asked.total() - num_asked == len(texts) - num_kept
    assert losses(recipe) == losses(undisturbed)


def kill_after(num_asked: int, server: LossServer, recipe: Recipe) -> None:
    """Runs `mira baseline` until so many requests came, and ends it as kill -9 does."""

    def slow(body: dict[str, Any], attempt: int, reply: dict[str, Any]) -> web.Response | None:
        time.sleep(0.05)
        return None

    server.deal = slow
    words = ["-m", "mira_megatron.cli", "baseline", str(recipe.path), "--workers=1"]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    try:
        while server.asked.total() < num_asked:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        server.deal = well
    time.sleep(0.2)  # the server ends what was in flight


def test_answers_are_read_again_without_asking(tmp_path: Path, server: LossServer) -> None:
    recipe = recipe_over(tmp_path, {"s": TEXTS}, {"ppl": asking(server)})
    run_baselines(recipe)
    before, num_asked = losses(recipe), server.asked.total()
    run_stages(recipe, ["baseline"], Resources(), reparses=True)
    assert losses(recipe) == before
    assert server.asked.total() == num_asked


def test_server_without_losses_of_prompts_is_named(tmp_path: Path, server: LossServer) -> None:
    def without(reply: dict[str, Any]) -> dict[str, Any]:
        (choice,) = reply["choices"]
        return {"choices": [{**choice, "prompt_logprobs": None}]}

    server.deal = saying(without)
    recipe = recipe_over(tmp_path, {"s": TEXTS}, {"ppl": asking(server)})
    with pytest.raises(ValueError, match="prompt_logprobs") as refused:
        run_baselines(recipe)
    assert server.url in str(refused.value)
    assert "engine: transformers" in str(refused.value)


def test_ceiling_on_tokens_stops_before_it_is_broken(tmp_path: Path, server: LossServer) -> None:
    settings = asking(server, prompt_token_ceiling=60, max_in_flight=1)
    recipe = recipe_over(tmp_path, {"s": TEXTS}, {"ppl": settings})
    with pytest.raises(ValueError, match="prompt_token_ceiling"):
        run_baselines(recipe)
    sent = sum(len(window) for body in server.bodies for window in body["prompt"])
    assert 0 < sent <= 60


def test_several_endpoints_share_the_records_and_one_may_be_dead(
    tmp_path: Path, server: LossServer, reference: Path
) -> None:
    texts = [f"text {number:04d}" for number in range(60)]
    with serving(LossServer(model=reference)) as second:
        endpoints = [server.url, second.url, "http://127.0.0.1:9/v1"]
        settings = asking(server, endpoints=endpoints, max_in_flight=2)
        recipe = recipe_over(tmp_path, {"s": texts}, {"ppl": settings})
        run_baselines(recipe)
        assert server.asked
        assert second.asked
        assert server.asked.total() + second.asked.total() == len(texts)
    assert all(row["status"] == "ok" for row in losses(recipe).values())


def test_equal_windows_are_asked_about_once_and_kept(tmp_path: Path, server: LossServer) -> None:
    recipe = recipe_over(tmp_path, {"s": ["same text"] * 9}, {"ppl": asking(server)})
    run_baselines(recipe)
    assert server.asked.total() == 1
    settings = asking(server, answers_folder=str(recipe.run_folder / "answers"), band="low")
    other = replace(recipe, run_folder=tmp_path / "other")
    run_baselines(replace(other, values={**other.values, "baselines": {"low": settings}}))
    assert server.asked.total() == 1
    wider = {**settings, "window_tokens": 8}
    third = replace(recipe, run_folder=tmp_path / "third")
    run_baselines(replace(third, values={**third.values, "baselines": {"low": wider}}))
    assert server.asked.total() == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": None}, "engine=endpoint needs tokenizer"),
        ({"endpoints": []}, "engine=endpoint needs endpoints"),
        ({"endpoint": ["http://a/v1"]}, "unknown key 'endpoint'. Did you mean 'endpoints'?"),
        ({"temperature": 0.5}, "unknown key 'temperature'"),
        ({"engine": "vllm"}, "engine"),
        ({"engine": "transformers"}, "is for engine=endpoint"),
        ({"dtype": "bfloat16"}, "dtype=bfloat16 is the server's to choose"),
        ({"tokenizer": "nowhere"}, "ppl.tokenizer: "),
    ],
)
def test_settings_that_are_wrong_are_named(
    tmp_path: Path, server: LossServer, settings: dict[str, Any], message: str
) -> None:
    recipe = recipe_over(tmp_path, {"s": TEXTS}, {"ppl": asking(server, **settings)})
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        run_baselines(recipe)
    assert "baselines.ppl" in str(refused.value)
    assert message in str(refused.value)


@given(st.lists(st.lists(st.integers(0, 200_000), min_size=2, max_size=30), min_size=1, max_size=4))
def test_prompt_is_counted_without_being_read(windows: list[list[int]]) -> None:
    prompt = prompt_text(windows).encode()
    assert orjson.loads(prompt) == windows
    assert num_tokens_of(prompt) == sum(map(len, windows))
    assert num_windows_of(prompt) == len(windows)


@given(st.integers(2, 60), st.integers(3, 12), st.data())
def test_summed_loss_is_of_every_token_but_the_first_once(
    num_tokens: int, window_tokens: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window_tokens - 1))
    ids = list(range(num_tokens))
    windows = [list(each.ids) for each in windows_of(ids, window_tokens, stride)]
    reply = {
        "choices": [
            {"index": at, "prompt_logprobs": [None, *({str(i): {"logprob": -i}} for i in each[1:])]}
            for at, each in enumerate(windows)
        ]
    }
    sent = orjson.dumps({"prompt": windows})
    losses = PromptLosses(context_tokens=window_tokens - stride)
    answer = read_losses(orjson.dumps(reply), sent, "k", None, losses)
    assert isinstance(answer, Answer)
    found = summed_loss(answer.text or "")
    assert (found.nats, found.num_targets) == (sum(ids), num_tokens - 1)


@pytest.mark.parametrize("logprob", [0.5, True, None, "-1", [1]])
def test_what_is_no_logarithm_of_a_probability_is_refused(logprob: Any) -> None:
    reply = {"choices": [{"index": 0, "prompt_logprobs": [None, {"7": {"logprob": logprob}}]}]}
    sent = orjson.dumps({"prompt": [[3, 7]]})
    failure = read_losses(orjson.dumps(reply), sent, "k", None, PromptLosses(context_tokens=0))
    assert isinstance(failure, Failure)
    assert failure.kind == "bad_body"


@given(st.text(alphabet="ab ", max_size=400), st.integers(2, 5))
def test_text_is_encoded_as_far_as_its_window_needs(text: str, window_tokens: int) -> None:
    def words(texts: Any) -> list[list[int]]:
        return [[len(word) for word in each.split()] for each in texts]

    (found,) = encoded_for([text], words, window_tokens, None)
    assert found[:window_tokens] == words([text])[0][:window_tokens]


def test_schema_of_served_losses_has_those_of_measured_ones(
    tmp_path: Path, server: LossServer
) -> None:
    server.deal = well
    recipe = recipe_over(tmp_path, {"s": TEXTS[:2]}, {"ppl": asking(server)})
    run_baselines(recipe)
    schema = table_of(recipe.run_folder / "baselines/ppl/losses/s").schema
    assert schema.field("loss").type == pa.float64()
    assert schema.names == ["record_id", "loss", "num_targets", "status", "reason", "num_attempts"]
