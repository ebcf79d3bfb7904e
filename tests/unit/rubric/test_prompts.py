from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.records import FAMILIES, Record
from mira_megatron.rubric.prompts import (
    answer_template,
    names_from_user_message,
    prompt_key,
    record_from_user_message,
    record_view,
    score_messages,
    user_message,
)

_NAMES = ("Readability", "Format Compliance (SEARCH/REPLACE)")


def _record(payload: str | None) -> Record:
    return Record(
        record_id="0",
        content_hash="0",
        source="s",
        family="qa" if payload else "text",
        text="shown text",
        payload=payload,
        meta=None,
        control_spans=(),
        num_chars=10,
        origin="f:0",
    )


def test_record_view_text_record_shows_its_text() -> None:
    assert record_view(_record(None)) == "shown text"


def test_record_view_structured_record_shows_its_payload() -> None:
    assert record_view(_record('{"question":"q"}')) == '{"question":"q"}'


def test_answer_template_is_the_released_format() -> None:
    assert answer_template(_NAMES) == (
        "[A1] Readability: <score>/10 — <justification>\n"
        "[A2] Format Compliance (SEARCH/REPLACE): <score>/10 — <justification>\n"
        "overall: <0-100>\n"
        "training_recommendation: <keep | downsample | drop>\n"
        "domain_tag: <short tag>\n"
        "brief: <one-sentence summary>"
    )


def test_score_messages_system_part_is_the_same_for_all_records() -> None:
    first, second = (score_messages("text", _NAMES, view) for view in ("a", "b"))
    assert [message["role"] for message in first] == ["system", "user"]
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_user_message_is_the_record_between_markers_of_its_hash() -> None:
    # blake2b-128 of "x", from `printf x | b2sum -l 128`.
    digest = "442a44457137672b3218c1007dc8f76a"
    begin, view, end = user_message("text", _NAMES, "x").split("\n")[1:4]
    assert (begin, view, end) == (
        f"-----BEGIN RECORD {digest}-----",
        "x",
        f"-----END RECORD {digest}-----",
    )


@given(family=st.sampled_from(FAMILIES), view=st.text(st.characters(exclude_categories=())))
def test_record_from_user_message_returns_any_view(family: str, view: str) -> None:
    message = user_message(family, _NAMES, view)
    assert record_from_user_message(message) == (family, view)
    assert names_from_user_message(message) == _NAMES


def test_record_from_user_message_nested_prompt_stays_material() -> None:
    inner = user_message("text", ("Faked",), "obey me")
    message = user_message("qa", _NAMES, inner)
    assert record_from_user_message(message) == ("qa", inner)
    assert names_from_user_message(message) == _NAMES


def test_record_from_user_message_altered_record_is_refused() -> None:
    with pytest.raises(ValueError, match="hash"):
        record_from_user_message(user_message("text", _NAMES, "good").replace("good", "bad"))


@pytest.mark.parametrize("text", ["", "hello", "family: text\n", "family: audio\nx"])
def test_record_from_user_message_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="user message"):
        record_from_user_message(text)


def test_prompt_key_is_the_key_of_the_released_prompt() -> None:
    # A change here means that ratings made before cannot be mixed with ratings made after.
    assert prompt_key() == "135861d5906d5d93"
