from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.rubric.prompts import answer_template
from mira_megatron.rubric.replies import format_reply, parse_reply
from mira_megatron.rubric.rule_judge import anchor_names, judge
from mira_megatron.rubric.verdict import RECOMMENDATIONS, Verdict

_NAMES = ("Readability", "Signal-to-Noise: 3/10", "Error Recovery")
_FOOTER = "overall: 71\ntraining_recommendation: keep\ndomain_tag: python\nbrief: A module."
_GOOD = f"[A1] Readability: 7/10 — clear\n[A2] x: 8/10 — y\n[A3] z: 9/10 — w\n{_FOOTER}"

_lines = st.text(min_size=1).map(lambda text: " ".join(text.split())).filter(bool)


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


@given(st.text())
def test_parse_reply_any_text_never_raises(text: str) -> None:
    assert len(parse_reply(text, _NAMES).scores) == 3


def test_parse_reply_of_the_rule_judge_is_whole() -> None:
    names = anchor_names("agent")
    verdict = judge("agent", json.dumps([{"role": "assistant", "content": "Done."}]))
    parsed = parse_reply(format_reply(names, verdict), names)
    assert (parsed.status, parsed.scores) == ("ok", verdict.scores)


def test_parse_reply_template_itself_is_unparsed() -> None:
    parsed = parse_reply(answer_template(_NAMES), _NAMES)
    assert parsed.status == "unparsed"
    assert set(parsed.scores) == {None}
    assert (parsed.overall, parsed.domain_tag, parsed.brief) == (None, None, None)


@pytest.mark.parametrize(
    "line",
    [
        "[A1] Readability: 7/10 — clear",
        "[A1] Readability: 7/10 - clear",
        "[A1] Readability: 7 / 10: clear",
        "  [A1]Readability:7/10 – clear  ",
        "[A1] Some Other Name: 7.0/10 -- clear",
        "[A1] Readability - 7/10 clear",
    ],
)
def test_parse_reply_usual_separators_are_read(line: str) -> None:
    parsed = parse_reply(f"{line}\n{_GOOD.partition(chr(10))[2]}", _NAMES)
    assert parsed.scores == (7.0, 8.0, 9.0)
    assert parsed.rationales[0] == "clear"
    assert parsed.status == "ok"


def test_parse_reply_score_inside_an_anchor_name_is_not_an_answer() -> None:
    reply = _GOOD.replace("[A2] x", f"[A2] {_NAMES[1]}")
    assert parse_reply(reply, _NAMES).scores == (7.0, 8.0, 9.0)


def test_parse_reply_blank_left_in_is_no_rationale() -> None:
    parsed = parse_reply(_GOOD.replace("clear", "<justification>"), _NAMES)
    assert (parsed.scores[0], parsed.rationales[0]) == (7.0, None)


def test_parse_reply_slot_number_rules_over_the_name() -> None:
    reply = f"[A3] Readability: 1/10 — a\n[A1] Error Recovery: 2/10 — b\n{_FOOTER}"
    assert parse_reply(reply, _NAMES).scores == (2.0, None, 1.0)


def test_parse_reply_missing_slot_is_one_null_and_partial() -> None:
    parsed = parse_reply(_GOOD.replace("[A2]", "[B2]"), _NAMES)
    assert parsed.scores == (7.0, None, 9.0)
    assert (parsed.status, parsed.reason) == ("partial", "A2: missing")


def test_parse_reply_score_out_of_range_is_null() -> None:
    parsed = parse_reply(_GOOD.replace("8/10", "11/10"), _NAMES)
    assert parsed.scores == (7.0, None, 9.0)
    assert parsed.reason == "A2: 11/10 is outside 0-10"


def test_parse_reply_slot_answered_twice_differently_is_null() -> None:
    parsed = parse_reply(f"{_GOOD}\n[A2] x: 3/10 — changed my mind", _NAMES)
    assert parsed.scores == (7.0, None, 9.0)
    assert parsed.reason == "A2: answered more than once, differently"


def test_parse_reply_slot_answered_twice_alike_counts() -> None:
    assert parse_reply(f"{_GOOD}\n[A2] x: 8/10 — again", _NAMES).status == "ok"


def test_parse_reply_cut_before_the_summary_is_partial() -> None:
    parsed = parse_reply(_GOOD.partition("overall")[0], _NAMES)
    assert parsed.scores == (7.0, 8.0, 9.0)
    assert parsed.status == "partial"


@pytest.mark.parametrize("overall", ["101", "-1", "high", "<0-100>"])
def test_parse_reply_impossible_overall_is_null(overall: str) -> None:
    parsed = parse_reply(_GOOD.replace("overall: 71", f"overall: {overall}"), _NAMES)
    assert (parsed.overall, parsed.status) == (None, "partial")
