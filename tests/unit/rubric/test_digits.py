"""Answers of digits alone: what is asked for, what guided decoding lets through, what is read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.records import NUM_SLOTS, Anchor
from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.rubric.judge_server import answer
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.rubric.prompts import answer_template, score_messages, system_message
from mira_megatron.rubric.replies import ParsedReply, format_reply, parse_reply
from mira_megatron.rubric.rule_judge import MODEL_NAME
from mira_megatron.rubric.verdict import Verdict

_DIGITS = PromptForm(answers="digits")
_BARE = PromptForm(prompt="bare", references=False, answers="digits")
_NAMES = tuple(f"name {slot}" for slot in range(1, NUM_SLOTS + 1))
_ANCHORS = tuple(
    Anchor(
        anchor_id=f"A{number}",
        name=name,
        description=None,
        part=None,
        cluster_size=None,
        aliases=(),
        medoid=None,
        references=(),
        rubric_version="v",
    )
    for number, name in enumerate(_NAMES, start=1)
)
_SCORES = (7, 8, 10, 0, 5, 5, 6, 7, 9, 3, 4, 8, 1, 2, 7)
_ANSWER = "7 8 10 0 5 5 6 7 9 3 4 8 1 2 7"
_NOTHING = (None,) * NUM_SLOTS


def _parsed(text: str) -> ParsedReply:
    return parse_reply(text, _NAMES, _DIGITS)


def test_prompt_for_digits_asks_for_one_line_of_them() -> None:
    system, user = score_messages("text", _ANCHORS, "view", _DIGITS)
    template = " ".join(f"<A{slot}>" for slot in range(1, 16))
    assert answer_template(_NAMES, _DIGITS) == template
    assert user["content"].startswith(f"{template}\n\nfamily: text\n")
    assert '[A15] "name 15"' in system["content"]
    assert "15 whole numbers from 0 to 10 with one space between them" in system["content"]
    assert system["content"] == system_message("text", _ANCHORS, _DIGITS)


def test_prompt_for_digits_of_a_bare_scorer_stays_the_quoted_record() -> None:
    assert score_messages("text", _ANCHORS, "x", _BARE) == ({"role": "user", "content": "x"},)


def test_judge_server_asked_for_digits_says_who_gives_them() -> None:
    messages = list(score_messages("text", _ANCHORS, "view", _DIGITS))
    with pytest.raises(ValueError, match="ask with answer_mode: full"):
        answer({"model": MODEL_NAME, "messages": messages})


def test_parse_reply_digits_reads_every_slot_in_order() -> None:
    parsed = _parsed(_ANSWER)
    assert (parsed.scores, parsed.status, parsed.reason) == (_SCORES, "ok", None)
    assert (parsed.rationales, parsed.overall, parsed.brief) == (_NOTHING, None, None)


@pytest.mark.parametrize(
    "written", [f" {_ANSWER}\n", _ANSWER.replace(" ", ", "), _ANSWER.replace(" ", "\n")]
)
def test_parse_reply_digits_reads_what_a_server_without_guidance_may_write(written: str) -> None:
    assert (_parsed(written).scores, _parsed(written).status) == (_SCORES, "ok")


@pytest.mark.parametrize("word", ["11", "7.5", "-1", "n/a", "07", "100"])
def test_parse_reply_digits_number_that_is_no_score_is_null_alone(word: str) -> None:
    parsed = _parsed(_ANSWER.replace("10", word, 1))
    assert parsed.scores == (*_SCORES[:2], None, *_SCORES[3:])
    assert parsed.status == "partial"
    assert parsed.reason == f"A3: {word} is no whole number from 0 to 10"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 numbers for 15 slots"),
        (_ANSWER.removesuffix(" 7"), "14 numbers for 15 slots"),  # any of them may be missing
        (f"{_ANSWER} 7", "16 numbers for 15 slots"),
        (f"{_ANSWER}\n{_ANSWER}", "30 numbers for 15 slots"),
        ("11 " * 14 + "12", "A1: 11 is no whole number"),
        ("\n".join(f"[A{slot}] a: 7/10" for slot in range(1, 6)), "not 15 numbers alone"),
        (f"Scores: {_ANSWER}", "not 15 numbers alone"),
        (_ANSWER.replace("10", "10/10"), "not 15 numbers alone"),
        (" ".join(f"<A{slot}>" for slot in range(1, 16)), "not 15 numbers alone"),
        ("I would give this record a 7 because it is short and clear enough on all", "not 15 num"),
    ],
)
def test_parse_reply_digits_answer_whose_places_are_not_known_is_unparsed(
    text: str, reason: str
) -> None:
    parsed = _parsed(text)
    assert (parsed.scores, parsed.status) == (_NOTHING, "unparsed")
    assert (parsed.reason or "").startswith(reason)


@given(st.lists(st.integers(0, 10), min_size=15, max_size=15))
def test_digits_regex_lets_every_answer_through_and_it_is_read_back(scores: list[int]) -> None:
    verdict = Verdict(
        scores=tuple(scores),
        rationales=("",) * 15,
        overall=None,
        training_recommendation="",
        domain_tag="",
        brief="",
    )
    text = format_reply(_NAMES, verdict, _DIGITS)
    assert re.fullmatch(SCORES_REGEX, text)
    assert (_parsed(text).scores, _parsed(text).status) == (tuple(scores), "ok")


@given(st.from_regex(SCORES_REGEX, fullmatch=True))
def test_digits_regex_lets_nothing_else_through(text: str) -> None:
    assert _parsed(text).status == "ok"
    assert text == " ".join(f"{score:g}" for score in _parsed(text).scores if score is not None)


@given(st.text(st.sampled_from("0 1,/n.a-7\n７"), max_size=60))
def test_parse_reply_digits_any_text_never_raises(text: str) -> None:
    parsed = _parsed(text)
    assert len(parsed.scores) == NUM_SLOTS
    assert (parsed.status == "ok") == (parsed.reason is None)
