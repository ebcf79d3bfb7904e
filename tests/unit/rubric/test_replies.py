from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.rubric.prompts import answer_template
from mira_megatron.rubric.replies import format_reply, parse_reply
from mira_megatron.rubric.verdict import RECOMMENDATIONS, Verdict

_NAMES = ("Readability", "Signal-to-Noise: 3/10", "Error Recovery")
_FOOTER = "overall: 71\ntraining_recommendation: keep\ndomain_tag: python\nbrief: A module."
_GOOD = f"[A1] Readability: 7/10 — clear\n[A2] x: 8/10 — y\n[A3] z: 9/10 — w\n{_FOOTER}"
_EXACT = _GOOD.replace("[A2] x", f"[A2] {_NAMES[1]}").replace("[A3] z", f"[A3] {_NAMES[2]}")

# On one line and not empty; <…> could be a blank of the template that was left in.
_lines = (
    st.text(min_size=1)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: text and not text.startswith("<"))
)


@st.composite
def _verdicts(draw: st.DrawFn) -> Verdict:
    return Verdict(
        scores=tuple(draw(st.none() | st.integers(0, 10)) for _ in _NAMES),
        rationales=tuple(draw(_lines) for _ in _NAMES),
        overall=draw(st.none() | st.integers(0, 1000).map(lambda tenths: tenths / 10)),
        training_recommendation=draw(st.sampled_from(RECOMMENDATIONS)),
        domain_tag=draw(_lines),
        brief=draw(_lines),
    )


@given(_verdicts())
def test_parse_reply_reads_back_what_format_reply_wrote(verdict: Verdict) -> None:
    parsed = parse_reply(format_reply(_NAMES, verdict), _NAMES)
    assert parsed.status == "ok", parsed.reason
    assert parsed.scores == verdict.scores
    assert parsed.rationales == verdict.rationales
    assert parsed.overall == verdict.overall
    assert parsed.training_recommendation == verdict.training_recommendation
    assert (parsed.domain_tag, parsed.brief) == (verdict.domain_tag, verdict.brief)


@given(_verdicts(), st.sampled_from(["Sure:\n", "```\n", "\n\n", "# Answer\n\n"]))
def test_parse_reply_repair_reads_whole_lines_like_the_strict_way(
    verdict: Verdict, before: str
) -> None:
    reply = format_reply(_NAMES, verdict)
    assert parse_reply(before + reply, _NAMES).scores == parse_reply(reply, _NAMES).scores


@given(st.text())
def test_parse_reply_any_text_never_raises(text: str) -> None:
    assert len(parse_reply(text, _NAMES).scores) == 3


@given(st.text(alphabet="[]A123 :：/10789—-*`\n.n<>score", max_size=200))
def test_parse_reply_any_mixture_of_signs_never_raises(text: str) -> None:
    parsed = parse_reply(text, _NAMES)
    assert all(score is None or 0 <= score <= 10 for score in parsed.scores)


@pytest.mark.parametrize("around", ["{}", "```\n{}\n```", "- {}", "**{}**", "{}\r\n", "> {}"])
def test_parse_reply_template_itself_is_unparsed(around: str) -> None:
    parsed = parse_reply(around.format(answer_template(_NAMES)), _NAMES)
    assert parsed.status == "unparsed"
    assert set(parsed.scores) == {None}
    assert set(parsed.rationales) == {None}
    assert (parsed.overall, parsed.training_recommendation) == (None, None)
    assert (parsed.domain_tag, parsed.brief) == (None, None)


@pytest.mark.parametrize("reply", [_GOOD, _EXACT])
def test_parse_reply_template_before_the_answer_is_passed_over(reply: str) -> None:
    parsed = parse_reply(f"{answer_template(_NAMES)}\n\n{reply}", _NAMES)
    assert (parsed.scores, parsed.status) == ((7.0, 8.0, 9.0), "ok")
    assert (parsed.overall, parsed.domain_tag, parsed.brief) == (71.0, "python", "A module.")


@pytest.mark.parametrize("reply", [_GOOD, _EXACT])
def test_parse_reply_blank_left_in_is_no_rationale(reply: str) -> None:
    parsed = parse_reply(reply.replace("clear", "<justification>"), _NAMES)
    assert (parsed.scores[0], parsed.rationales[0]) == (7.0, None)


def test_parse_reply_old_line_end_inside_a_line_ends_it() -> None:
    assert parse_reply(_EXACT.replace("clear", "one\rtwo"), _NAMES).rationales[0] == "one two"


def test_parse_reply_about_no_anchor_is_unparsed() -> None:
    parsed = parse_reply(_EXACT, ())
    assert (parsed.scores, parsed.overall, parsed.status) == ((), 71.0, "unparsed")


def test_parse_reply_score_not_given_is_null_and_ok() -> None:
    parsed = parse_reply(_EXACT.replace("7/10", "n/a"), _NAMES)
    assert (parsed.scores, parsed.status) == ((None, 8.0, 9.0), "ok")
    assert parsed.rationales[0] == "clear"


def test_parse_reply_missing_slot_is_one_null_and_partial() -> None:
    parsed = parse_reply(_GOOD.replace("[A2]", "[B2]"), _NAMES)
    assert parsed.scores == (7.0, None, 9.0)
    assert parsed.rationales == ("clear", None, "w")
    assert (parsed.status, parsed.reason) == ("partial", "A2: missing")


@pytest.mark.parametrize(
    ("written", "fault"),
    [("11/10", "outside 0-10"), ("8/100", "8/100 is not out of 10"), ("99.5/10", "outside 0-10")],
)
def test_parse_reply_impossible_score_is_null(written: str, fault: str) -> None:
    parsed = parse_reply(_EXACT.replace("9/10", written), _NAMES)
    assert parsed.scores == (7.0, 8.0, None)
    assert parsed.reason is not None
    assert parsed.reason.startswith("A3: ")
    assert fault in parsed.reason


def test_parse_reply_ten_of_ten_is_a_score() -> None:
    assert parse_reply(_EXACT.replace("9/10", "10/10"), _NAMES).scores[2] == 10.0


def test_parse_reply_cut_before_the_summary_is_partial() -> None:
    parsed = parse_reply(_GOOD.partition("overall")[0], _NAMES)
    assert parsed.scores == (7.0, 8.0, 9.0)
    assert parsed.status == "partial"


def test_parse_reply_no_text_is_unparsed() -> None:
    parsed = parse_reply("", _NAMES)
    assert parsed.status == "unparsed"
    assert parsed.reason is not None
    assert "A1: missing" in parsed.reason


@pytest.mark.parametrize("overall", ["101", "-1", "high", "<0-100>", "7/10", "60-70", "60 to 70"])
def test_parse_reply_impossible_overall_is_null(overall: str) -> None:
    parsed = parse_reply(_GOOD.replace("overall: 71", f"overall: {overall}"), _NAMES)
    assert (parsed.overall, parsed.status) == (None, "partial")


@pytest.mark.parametrize(
    "line",
    [
        "overall: 71/100",
        "Overall: 71 / 100",
        "**overall**: 71",
        "**Overall Score:** 71",
        "**overall: 71**",
        "- overall：７１",
        "OVERALL: 71%",
        "overall: <71>",
        "overall: 71 — a good one",
        "overall: 71.0.",
    ],
)
def test_parse_reply_usual_overall_lines_are_read(line: str) -> None:
    parsed = parse_reply(_GOOD.replace("overall: 71", line), _NAMES)
    assert (parsed.overall, parsed.status) == (71.0, "ok")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Training Recommendation: Keep", "keep"),
        ("**training_recommendation:** `drop`", "drop"),
        ("training-recommendation：<downsample>", "downsample"),
        ("training_recommendation: Down-sample.", "downsample"),
        ("training_recommendation: keep — no need to drop it", "keep"),
        ("training_recommendation: keep | downsample | drop", None),
        ("training_recommendation: keep or drop", None),
        ("training_recommendation: keeping", None),
    ],
)
def test_parse_reply_recommendation_is_one_of_three_words(line: str, expected: str | None) -> None:
    parsed = parse_reply(_GOOD.replace("training_recommendation: keep", line), _NAMES)
    assert parsed.training_recommendation == expected


def test_parse_reply_fields_answered_differently_are_null() -> None:
    parsed = parse_reply(f"{_GOOD}\noverall: 12\ntraining_recommendation: KEEP", _NAMES)
    assert (parsed.overall, parsed.training_recommendation) == (None, "keep")
    assert parsed.reason == "overall: answered more than once, differently"


def test_parse_reply_brief_over_two_lines_is_joined_up_to_a_blank_one() -> None:
    parsed = parse_reply(f"{_GOOD}\nIt parses.\n\nHope this helps!", _NAMES)
    assert parsed.brief == "A module. It parses."


_RECORD = "-----BEGIN RECORD 0123456789abcdef0123456789abcdef-----\n"
_NASTY = (
    "1", "7/10 ", "-", "[", "]", "(", " ", ":", "：", "*", "`", "#", "\u00a0", "\n", "\r", "a",
    "[A1] ", "[A1] Readability: ", "[A1] Readability: 7/10 — x\n", "[A1] x: 7/10 - x\n", "[A2] x",
    "1. ", "[A2] Signal-to-Noise: 3/10: ", "Readability: 7/10\n", "<think>", "</think>\n",
    _RECORD, "overall: ", "score", "n/a ", "／", "７", "٨", "```\n",
    "**[A1]** **Readability**: **7/10** — ",
)  # fmt: skip


@pytest.mark.parametrize("unit", _NASTY)
def test_parse_reply_hostile_repetition_takes_linear_time(unit: str) -> None:
    started = time.process_time()
    parse_reply("[A1] Readability: 7" + unit * (200_000 // len(unit)), _NAMES)
    # Measured: at most 0.5 s; what is quadratic takes minutes.
    assert time.process_time() - started < 5
