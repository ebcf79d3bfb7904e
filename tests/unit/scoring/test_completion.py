from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.completion import Answer, Failure, read_completion, read_error, shown

_KEY = "sk-very/secret\\key"


def _read(message: dict[str, Any], finish_reason: str = "stop", **more: Any) -> Answer:
    choice = {"message": message, "finish_reason": finish_reason}
    answer = read_completion(orjson.dumps({"choices": [choice], **more}), "r0", _KEY)
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_read_completion_keeps_reasoning_apart_from_the_text(name: str) -> None:
    answer = _read({"content": "[A1] x: 3/10 — y", name: "First I drafted [A1] x: 9/10"})
    assert answer.text == "[A1] x: 3/10 — y"
    assert answer.reasoning == "First I drafted [A1] x: 9/10"


def test_read_completion_that_ended_before_its_text_began_is_no_content() -> None:
    answer = _read({"content": "", "reasoning": "on and on"}, "length")
    assert (answer.failure, answer.reasoning) == ("no_content", "on and on")
    assert answer.failure_detail == "finish_reason: length"
    assert answer.is_completion


def test_read_completion_refusal_is_a_typed_failure_with_its_words() -> None:
    answer = _read({"content": None, "refusal": "I cannot judge this."})
    assert (answer.failure, answer.text) == ("refused", "I cannot judge this.")
    assert answer.is_completion


def test_read_completion_stopped_by_a_content_filter_is_refused() -> None:
    answer = _read({"content": "[A1] x: 3/1"}, "content_filter")
    assert (answer.failure, answer.text) == ("refused", "[A1] x: 3/1")


@pytest.mark.parametrize("wrong", [-5, True, "7", 1.5, 1 << 50, None])
def test_read_completion_count_that_is_none_is_missing(wrong: Any) -> None:
    answer = _read({"content": "x"}, usage={"prompt_tokens": wrong, "completion_tokens": 4})
    assert (answer.num_prompt_tokens, answer.num_output_tokens) == (None, 4)


def test_read_completion_api_key_in_any_part_is_replaced() -> None:
    answer = _read({"content": f"a {_KEY} b", "reasoning": _KEY}, f"stop {_KEY}")
    assert answer.text == "a <api key> b"
    assert answer.reasoning == "<api key>"
    assert answer.finish_reason == "stop <api key>"


def test_read_completion_word_that_local_servers_take_for_a_key_stays() -> None:
    body = {"choices": [{"message": {"content": "The list is EMPTY."}}]}
    answer = read_completion(orjson.dumps(body), "r0", "EMPTY")
    assert isinstance(answer, Answer)
    assert answer.text == "The list is EMPTY."


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "usage", "finish_reason"]), inner
            )
        ),
    )
)
def test_read_completion_any_json_is_an_answer_or_a_typed_failure(content: Any) -> None:
    outcome = read_completion(orjson.dumps(content), "r0", None)
    assert isinstance(outcome, Answer) or outcome.kind == "bad_body"


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        "the request exceeds the available context size",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "`inputs` tokens + `max_new_tokens` must be <= 4096",
        "The input token count (40000) exceeds the maximum number of tokens allowed (32768).",
    ],
)
def test_read_error_record_too_long_for_the_model_is_typed(said: str) -> None:
    body = orjson.dumps({"error": {"message": said, "type": "BadRequestError", "code": 400}})
    assert read_error(400, body, 0, None).kind == "too_long"
    assert read_error(500, body, 0, None).kind == "http_500"


def test_read_error_prompt_stopped_by_a_content_filter_is_refused() -> None:
    body = b'{"error": {"code": "content_filter", "message": "content management policy"}}'
    assert read_error(400, body, 0, None).kind == "refused"


@pytest.mark.parametrize(
    ("status", "is_passing"),
    [(400, False), (401, False), (404, False), (408, True), (429, True), (500, True), (501, False)],
)
def test_read_error_is_passing_where_another_attempt_may_help(
    status: int, is_passing: bool
) -> None:
    failure = read_error(status, b"no", 3.0, None)
    assert failure == Failure(
        kind=f"http_{status}", detail="no", is_passing=is_passing, wait_seconds=3.0
    )


@pytest.mark.parametrize("escaped", [r"sk-very\/secret\\key", "\\u0073k-very/secret\\\\key"])
def test_read_error_api_key_written_with_escapes_is_replaced(escaped: str) -> None:
    failure = read_error(401, f'{{"error": "bad key {escaped}"}}'.encode(), 0, _KEY)
    assert failure.detail == '{"error":"bad key <api key>"}'


def test_read_error_key_across_the_end_of_what_is_shown_is_not_cut_into_it() -> None:
    failure = read_error(401, f"{'x' * 295}{_KEY}".encode(), 0, _KEY)
    assert "sk-" not in failure.detail


@pytest.mark.parametrize("char", ["\n", "\r", "\x1b", "\x9b", "\u202e", "\u2028", "\x00"])
def test_shown_is_one_line_that_prints(char: str) -> None:
    assert shown(f"no{char}2026 INFO all is well 好", None) == "no 2026 INFO all is well 好"


def test_read_error_words_that_could_forge_a_log_line_are_on_one() -> None:
    body = b"no\x1b[2K\r\n12:00 INFO discover: done"
    assert read_error(500, body, 0, None).detail == "no [2K  12:00 INFO discover: done"


def test_error_with_more_nesting_than_can_be_written_again_is_a_failure() -> None:
    body = b"[" * 300 + b"]" * 300
    assert read_error(500, body, 0.0, None).kind == "http_500"
    found = read_completion(body, "key", None)
    assert isinstance(found, Failure)
    assert found.kind == "bad_body"
