from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.records import Record
from mira_megatron.rubric.token_cuts import TokenCounter
from mira_megatron.rubric.views import MIN_TOKENS, POLICIES, View, ViewMaker
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe

_CHARS = 'abc 09\n"\\<|[A1]>é中文😀·\u2028'
_texts = st.text(_CHARS, max_size=60).map(lambda text: text * 12)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_byte_level_bpe(["the words of the question and of the answer"], 300).save(str(path))
    return path


def _record(family: str, text: str, payload: object = None) -> Record:
    return Record(
        record_id="0",
        content_hash="0",
        source="s",
        family=family,
        text=text,
        payload=None if payload is None else _dumps(payload),
        meta=None,
        control_spans=(),
        num_chars=len(text),
        origin="f:0",
    )


def _dumps(payload: object) -> str:
    return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS).decode()


def _qa(question: str, answer: str) -> Record:
    return _record("qa", "as trained on", {"question": question, "answer": answer})


def _parts(view: View) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(view.text)
    return parts


def test_view_without_a_limit_is_the_whole_record_uncounted() -> None:
    maker = ViewMaker(None, None)
    for record, text in (
        (_record("text", "x" * 10_000), "x" * 10_000),
        (_qa("q", "a"), '{"answer":"a","question":"q"}'),
    ):
        view = maker.view(record)
        assert (view.text, view.policy) == (text, "whole")
        assert (view.num_record_tokens, view.num_shown_tokens) == (None, None)


def test_view_of_a_record_that_fits_is_whole(tokenizer_file: Path) -> None:
    view = ViewMaker(MIN_TOKENS, tokenizer_file).view(_record("text", "0" * MIN_TOKENS))
    assert (view.text, view.policy) == ("0" * MIN_TOKENS, "whole")
    assert (view.num_record_tokens, view.num_shown_tokens) == (MIN_TOKENS, MIN_TOKENS)


def test_view_of_a_longer_text_is_head_and_tail(tokenizer_file: Path) -> None:
    text = "".join(f"{number:04d}\n" for number in range(1000))
    view = ViewMaker(1000, tokenizer_file).view(_record("text", text))
    head, note, tail = view.text.partition("\n[…: 4,0")
    assert note
    assert text.startswith(head)
    assert text.endswith(tail.partition("left out]\n")[2])
    assert (view.policy, view.num_record_tokens) == ("head_tail", 5000)
    assert view.num_shown_tokens is not None
    assert 990 <= view.num_shown_tokens <= 1000


def test_view_counts_control_tokens_as_they_are_sent(tokenizer_file: Path) -> None:
    # A tokenizer makes one token of <|im_end|>, but of the quoted form some ten.
    view = ViewMaker(100, tokenizer_file).view(_record("text", "<|im_end|>" * 50))
    assert view.policy == "head_tail"
    assert view.num_record_tokens is not None
    assert view.num_record_tokens > 400


@settings(deadline=None)
@given(text=_texts, max_tokens=st.integers(MIN_TOKENS, 200))
def test_view_of_any_text_keeps_the_limit(tokenizer_file: Path, text: str, max_tokens: int) -> None:
    view = ViewMaker(max_tokens, tokenizer_file).view(_record("text", text))
    assert view.num_shown_tokens == TokenCounter(tokenizer_file).count(view.text) <= max_tokens
    assert view.policy in POLICIES
    assert (view.policy == "whole") == (view.text == text)


@settings(deadline=None)
@given(
    parts=st.fixed_dictionaries({"question": _texts, "think": _texts, "answer": _texts}),
    max_tokens=st.integers(MIN_TOKENS, 400),
)
def test_view_of_any_thinking_keeps_the_limit_and_its_shape(
    tokenizer_file: Path, parts: dict[str, str], max_tokens: int
) -> None:
    view = ViewMaker(max_tokens, tokenizer_file).view(_record("qa_with_think", "t", parts))
    assert view.num_shown_tokens == TokenCounter(tokenizer_file).count(view.text) <= max_tokens
    assert _parts(view).keys() == parts.keys()
    if view.policy == "whole":
        assert _parts(view) == parts


def test_view_keeps_a_short_question_whole_and_cuts_the_answer(tokenizer_file: Path) -> None:
    answer = "".join(f"line {number}\n" for number in range(500))
    view = ViewMaker(300, tokenizer_file).view(_qa("Why? " * 10, answer))
    parts = _parts(view)
    assert (view.policy, parts["question"]) == ("head_tail", "Why? " * 10)
    assert parts["answer"].startswith("line 0\nline 1\n")
    assert parts["answer"].endswith("line 498\nline 499\n")
    assert "tokens left out]" in parts["answer"]


def test_view_gives_a_long_question_what_a_short_answer_leaves(tokenizer_file: Path) -> None:
    parts = _parts(ViewMaker(1000, tokenizer_file).view(_qa("0" * 5000, "Yes.")))
    assert parts["answer"] == "Yes."
    assert parts["question"].count("0") > 900


def test_view_shares_between_think_and_answer_what_the_question_leaves(
    tokenizer_file: Path,
) -> None:
    payload = {"question": "0" * 5000, "think": "1" * 5000, "answer": "2" * 100}
    view = ViewMaker(1000, tokenizer_file).view(_record("qa_with_think", "t", payload))
    parts = _parts(view)
    assert parts["answer"] == "2" * 100
    assert 440 < parts["question"].count("0") <= 500
    assert 340 < parts["think"].count("1") <= 400


def test_view_is_the_same_for_any_maker(tokenizer_file: Path) -> None:
    record = _qa("0" * 300, "中文" * 300)
    views = {ViewMaker(128, tokenizer_file).view(record) for _ in range(2)}
    assert len(views) == 1


@pytest.mark.parametrize("family", ["qa", "qa_with_think", "agent"])
def test_view_of_a_payload_of_another_family_is_refused(tokenizer_file: Path, family: str) -> None:
    record = _record(family, "t", {"something": "else " * 100})
    with pytest.raises(ValueError, match=r"record 0 .* does not hold"):
        ViewMaker(MIN_TOKENS, tokenizer_file).view(record)


def test_view_maker_limit_and_tokenizer_go_together(tokenizer_file: Path) -> None:
    with pytest.raises(ValueError, match="go together"):
        ViewMaker(100, None)
    with pytest.raises(ValueError, match="go together"):
        ViewMaker(None, tokenizer_file)


def test_view_maker_tiny_limit_is_refused(tokenizer_file: Path) -> None:
    with pytest.raises(ValueError, match="max_tokens=63 must be at least 64"):
        ViewMaker(63, tokenizer_file)
