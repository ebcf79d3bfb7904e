"""The golden prompts are rewritten by `python tests/unit/rubric/test_discovery_prompts.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.records import FAMILIES, PARTS_OF_THINK
from mira_megatron.rubric.discovery_prompts import (
    PART_BY_LETTER,
    discover_messages,
    discover_prompt_key,
    proposal_template,
    record_from_discover_message,
)
from mira_megatron.rubric.prompts import user_message

_GOLDEN = Path(__file__).parents[2] / "golden"
_VIEWS = {
    "text": "# 说明\n\n这是一个文件。\n",
    "qa": '{"answer":"Four.","question":"What is 2 + 2?"}',
    "qa_with_think": '{"answer":"Four.","question":"What is 2 + 2?","think":"2 + 2 = 4"}',
    "agent": '{"messages":[{"content":"Delete the file.","role":"user"},'
    '{"content":"Which <|im_end|> one?","role":"assistant"}]}',
}


def _written(family: str) -> str:
    messages = discover_messages(family, _VIEWS[family])
    return "".join(f"=== {each['role']} ===\n{each['content']}\n" for each in messages)


@pytest.mark.parametrize("family", FAMILIES)
def test_discover_messages_are_the_golden_prompt(family: str) -> None:
    golden = _GOLDEN / f"discover_prompt_{family}.txt"
    assert _written(family) == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_discover_messages_share_all_before_the_record(family: str) -> None:
    first, second = (discover_messages(family, view) for view in ("a", "b"))
    assert first[0] == second[0]
    head = f"{proposal_template(family)}\n\nfamily: {family}\n-----BEGIN RECORD "
    assert first[1]["content"].startswith(head)
    assert second[1]["content"].startswith(head)


@pytest.mark.parametrize("family", FAMILIES)
def test_discover_messages_fill_in_every_placeholder(family: str) -> None:
    assert not re.search(r"\{\w*\}", discover_messages(family, "view")[0]["content"])


@pytest.mark.parametrize("family", ["text", "qa", "agent"])
def test_proposal_template_has_fifteen_lines(family: str) -> None:
    lines = proposal_template(family).split("\n")
    assert lines == [f"[D{n}] <dimension>: <score>/10 — <reason>" for n in range(1, 16)]


def test_proposal_template_think_has_five_lines_of_each_part() -> None:
    lines = proposal_template("qa_with_think").split("\n")
    parts = [PART_BY_LETTER[line[1]] for line in lines]
    assert parts == [part for part in PARTS_OF_THINK for _ in range(5)]
    assert [line[2] for line in lines] == list("12345" * 3)


def test_proposal_template_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="family='audio' must be one of text"):
        proposal_template("audio")


@given(family=st.sampled_from(FAMILIES), view=st.text(st.characters(exclude_categories=())))
def test_record_from_discover_message_returns_any_view(family: str, view: str) -> None:
    message = discover_messages(family, view)[1]["content"]
    assert record_from_discover_message(message) == (family, view)


@pytest.mark.parametrize("text", ["", "hello"])
def test_record_from_discover_message_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no fenced record"):
        record_from_discover_message(text)


def test_record_from_discover_message_of_another_question_is_refused() -> None:
    with pytest.raises(ValueError, match="template of family text"):
        record_from_discover_message(user_message(proposal_template("qa_with_think"), "text", "v"))


def test_discover_prompt_key_is_the_key_of_the_released_prompts() -> None:
    # A change here means that judgments made before cannot be mixed with judgments made after.
    assert {family: discover_prompt_key(family) for family in FAMILIES} == {
        "text": "da97fc885fe6aef8",
        "qa": "425e4d4c865caf33",
        "qa_with_think": "2deb5dc6e9f799b5",
        "agent": "42933f9b3f129d59",
    }


if __name__ == "__main__":
    for each_family in FAMILIES:
        path = _GOLDEN / f"discover_prompt_{each_family}.txt"
        path.write_text(_written(each_family), encoding="utf-8", newline="\n")
