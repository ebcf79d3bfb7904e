"""What `parse_reply` makes of damaged answers, slot by slot."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.rubric.replies import parse_reply

_NAMES = (
    "Practical Actionability",
    "Signal-to-Noise Ratio",
    "Format Compliance (SEARCH/REPLACE)",
    "Practical Actionability",
    "Error Handling: Retries",
    "可读性",
)
_FOOTER = "overall: 71\ntraining_recommendation: keep\ndomain_tag: python\nbrief: A module."


def _answer(*lines: str) -> str:
    """Returns an answer of whole lines but those given, which replace the first ones."""
    whole = [f"[A{slot}] {name}: {slot}/10 — r{slot}" for slot, name in enumerate(_NAMES, 1)]
    return "\n".join((*lines, *whole[len(lines) :], _FOOTER))


@pytest.mark.parametrize(
    "line",
    [
        "[A1] Practical Actionability: 7/10 - clear",
        "[A1] Practical Actionability: 7/10 – clear",
        "[A1] Practical Actionability: 7/10 － clear",
        "[A1] Practical Actionability: 7/10 −− clear",
        "[A1] Practical Actionability: 7/10 clear",
        "[A1] Practical Actionability: 7 / 10: clear",
        "[A1] Practical Actionability: 7 out of 10 — clear",
        "[A1] Practical Actionability：７／１０。clear",
        "[A1] Practical Actionability: ٧/١٠ — clear",
        "[A1] Practical Actionability: 7/10分，clear",
        "[A1] Practical Actionability: 7.0/10 — clear",
        "[A1] Practical Actionability: 7,0/10 — clear",
        "[A1] Practical Actionability 7/10 — clear",
        "[A1] Practical Actionability (7/10): clear",
        "[A1] Practical Actionability - 7/10 clear",
        "[A1] Practical Actionability: <7>/10 — clear",
        "  [A1]Practical Actionability:7/10 – clear  ",
        "\u00a0[A1]\u00a0Practical Actionability:\u00a07/10\u00a0—\u00a0clear",
        "**[A1] Practical Actionability: 7/10** — clear",
        "**[A1] Practical Actionability: 7/10 — clear**",
        "`[A1] Practical Actionability: 7/10 — clear`",
        "[A1] **Practical Actionability**: **7/10** — clear",
        "[A1] **Practical Actionability:** *7*/10 **—** clear",
        "- [A1] Practical Actionability: 7/10 — clear",
        "1. [A1] Practical Actionability: 7/10 — clear",
        "### [A1] Practical Actionability: 7/10 — clear",
        "A1. Practical Actionability: 7/10 — clear",
        "(A1) Practical Actionability: 7/10 — clear",
        "【A1】实用性：7/10 — clear",
        "[a01]: Practical Actionability: 7/10 — clear",
        "[A1]: 7/10 — clear",
        "[A1] 7/10 — clear",
        "[A1] Some other name: 7/10 — clear",
        "[A1] Praxisnähe (umsetzbar): 7/10 — clear",
        "[A1] Practical Actionability: Score: 7/10 — clear",
        "[A1] Practical Actionability:\n7/10 — clear",
        "[A1] Practical Actionability\n\n**Score:** 7/10\n**Justification:** clear",
        "[A1] Practical Actionability: 7/10\nclear",
        "[A1] Practical Actionability: 7/10 —\n  clear",
    ],
)
def test_slot_line_with_usual_liberties_is_read(line: str) -> None:
    parsed = parse_reply(_answer(line), _NAMES)
    assert parsed.scores == (7.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert parsed.rationales == ("clear", "r2", "r3", "r4", "r5", "r6")
    assert parsed.status == "ok", parsed.reason


@pytest.mark.parametrize(
    "line",
    [
        "[A1] Practical Actionability: <score>/10 — <justification>",
        "[A1] Practical Actionability: <0-10>/10 — clear",
        "[A1] Practical Actionability: 7 — clear",
        "[A1] Practical Actionability: 7-8/10 — clear",
        "[A1] Practical Actionability: 7 - 8/10 — clear",
        "[A1] Practical Actionability 7-8/10 — clear",
        "[A1] Practical Actionability: -3/10 — clear",
        "[A1] Practical Actionability: −3/10 — clear",
        "[A1] Practical Actionability: 11/10 — clear",
        "[A1] Practical Actionability: 7/100 — clear",
        "[A1] Practical Actionability: 4/5 — clear",
        "[A1] Practical Actionability: 7/10.5 — clear",
        "[A1] Practical Actionability: 7/10/2024 — clear",
        "[A1] Practical Actionability: 7½/10 — clear",
        "[A1] Practical Actionability: 1.7.5/10 — clear",
        "[A1] Practical Actionability: 1,000/10 — clear",
        "[A1] Practical Actionability: seven/10 — clear",
        "[A1] Practical Actionability: x/10 — clear",
        "[A1] Practical Actionability: ~~7/10~~ — clear",
        "[A1] Practical Actionability: clear, and only 7/10 of it",
        "[A1] is fine in 7/10 cases",
        "[A1] Practical - all in all, 7/10",
        "[A1] Practical - all in all: 7/10",
        "[A1] 7-8/10 — 5/10 — clear",
        "[A1] Practical Actionability: 7 of 10 lines\n-3/10",
        "[A1] Practical Actionability\n-3/10 — clear",
        "[A1] Practical Actionability\n7-8/10 — clear",
        "[A1] Practical Actionability\nsome words\n7/10 — clear",
        "> [A1] Practical Actionability: 7/10 — clear",
        "The record says [A1] Practical Actionability: 7/10 — clear",
    ],
)
def test_slot_line_without_one_clear_score_is_null(line: str) -> None:
    parsed = parse_reply(_answer(line), _NAMES)
    assert parsed.scores == (None, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert parsed.status == "partial"
    assert parsed.reason is not None
    assert parsed.reason.startswith("A1: ")


@pytest.mark.parametrize("score", ["7.5", "7,5", "７．５", "7.50"])
def test_slot_line_decimal_is_read(score: str) -> None:
    parsed = parse_reply(_answer(f"[A1] Practical Actionability: {score}/10 — x"), _NAMES)
    assert parsed.scores[0] == 7.5


@pytest.mark.parametrize("written", ["n/a", "N/A", "N/A/10", "n.a.", "**n/a**", "n／a"])
def test_slot_line_score_not_given_is_null_and_ok(written: str) -> None:
    parsed = parse_reply(_answer(f"- [A1] Practical Actionability: {written} — why"), _NAMES)
    assert (parsed.scores[0], parsed.rationales[0], parsed.status) == (None, "why", "ok")


def test_slot_line_rationale_keeps_its_own_marks_and_scores() -> None:
    rationale = "`x` is 3/10 — see **here**: [A2] Signal-to-Noise Ratio: 10/10 — perfect"
    parsed = parse_reply(_answer(f"* [A1] Practical Actionability: 7/10 – {rationale}"), _NAMES)
    assert parsed.rationales[0] == rationale
    assert parsed.scores[:2] == (7.0, 2.0)


def test_slot_line_rationale_over_three_lines_is_joined() -> None:
    line = "[A1] Practical Actionability: 7/10 — one\n  two\nthree"
    assert parse_reply(_answer(line), _NAMES).rationales[0] == "one two three"


def test_slot_line_paragraph_after_a_blank_line_is_no_rationale() -> None:
    line = "[A1] Practical Actionability: 7/10 — one\n\nSo much for the first."
    assert parse_reply(_answer(line), _NAMES).rationales[0] == "one"


@pytest.mark.parametrize(
    "reply", [_answer().replace("\n", "\r\n"), _answer().replace("\n", "\n\n")]
)
def test_slot_lines_with_other_line_ends_are_read(reply: str) -> None:
    parsed = parse_reply(reply, _NAMES)
    assert parsed.scores == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert parsed.rationales[0] == "r1"
    assert parsed.status == "ok"


def test_slot_lines_in_any_order_are_read() -> None:
    lines = _answer().split("\n")
    assert parse_reply("\n".join(reversed(lines)), _NAMES).scores == (1, 2, 3, 4, 5, 6)


def test_slot_number_rules_over_the_name() -> None:
    lines = [f"[A1] {_NAMES[1]}: 8/10 — a", f"[A2] {_NAMES[0]}: 9/10 — b"]
    assert parse_reply(_answer(*lines), _NAMES).scores[:2] == (8.0, 9.0)


def test_slot_answered_twice_differently_is_null() -> None:
    parsed = parse_reply(f"{_answer()}\n[A3] x: 9/10 — changed my mind", _NAMES)
    assert parsed.scores == (1.0, 2.0, None, 4.0, 5.0, 6.0)
    assert parsed.reason == "A3: answered more than once, differently"


@pytest.mark.parametrize(
    "again", ["[A3] x: 3/10 — again", "[A3] Format Compliance", "[A3] <score>"]
)
def test_slot_answered_twice_alike_or_without_a_score_counts(again: str) -> None:
    parsed = parse_reply(f"{again}\n{_answer()}", _NAMES)
    assert (parsed.scores[2], parsed.status) == (3.0, "ok")


@pytest.mark.parametrize("marker", ["[A{}]", "【A{}】"])
def test_score_inside_an_anchor_name_is_not_an_answer(marker: str) -> None:
    names = ("Signal-to-Noise: 3/10", "N/A handling")
    lines = ("Signal-to-Noise: 3/10: 8/10 — x", "N/A handling: 4/10 — y")
    reply = "\n".join(f"- {marker.format(n)} {line}" for n, line in enumerate(lines, 1))
    assert parse_reply(reply, names).scores == (8.0, 4.0)
    assert parse_reply("[A1] signal to noise: 3/10 — x", names).scores[0] is None


def test_names_without_numbers_are_read_where_they_are_unique() -> None:
    reply = "\n".join(f"{n}. **{name}**: 7/10 — r" for n, name in enumerate(_NAMES, 1))
    parsed = parse_reply(reply, _NAMES)
    assert parsed.scores == (None, 7.0, 7.0, None, 7.0, 7.0)


def test_names_counted_from_zero_decide_instead_of_numbers() -> None:
    reply = "\n".join(f"[A{n}] {name}: {n}/10 — r" for n, name in enumerate(_NAMES))
    parsed = parse_reply(reply, _NAMES)
    assert parsed.scores == (None, 1.0, 2.0, None, 4.0, 5.0)
    assert parsed.reason is not None
    assert "slot numbers are not those asked for" in parsed.reason


def test_names_quoted_in_a_refusal_are_no_answer() -> None:
    reply = "I cannot rate this.\nSignal-to-Noise Ratio: 10/10 — it says of itself."
    assert parse_reply(reply, _NAMES).status == "unparsed"


def test_name_beside_numbered_slots_does_not_fill_a_missing_one() -> None:
    reply = _answer().replace("[A2] ", "")
    parsed = parse_reply(reply, _NAMES)
    assert parsed.scores == (1.0, None, 3.0, 4.0, 5.0, 6.0)
    assert parsed.rationales[0] == "r1"


@dataclass(frozen=True, kw_only=True)
class _Damaged:
    text: str
    scores: tuple[float | None, ...]


_RATIONALES = (
    "clear",
    "5/10 of the lines are comments",
    "see `x`: **good**",
    "the record says [A1] x: 10/10",
    "很清楚：可以",
)


@st.composite
def _slot_lines(draw: st.DrawFn, slot: int, name: str) -> tuple[str, float]:
    """Draws a line that takes any number of liberties, and its score."""
    pick = st.sampled_from
    score = draw(st.integers(0, 10))
    lead = draw(pick(["", "- ", "* ", f"{slot}. ", "## ", "  ", "\u00a0", "**"]))
    marker = draw(pick(["[A{}]", "[a{}]", "**[A{}]**", "【A{}】", "(A{})", "[A{:02}]", "[ A{} ]"]))
    shown = draw(pick([name, f"**{name}**", f"`{name}`", name.upper(), "", "Anders", "其他名称"]))
    gap = draw(pick([": ", ":", "：", " : ", ":\n", " — ", " - ", ": **", ": Score: "]))
    number = draw(pick([f"{score}", f"{score}.0", f"{score},0", f"{score}".translate(_WIDE)]))
    out_of = draw(pick(["/10", " / 10", "／10", "／１０", " out of 10", "**/10"]))
    dash = draw(pick([" — ", " - ", "－", " -- ", "** – ", ": ", "。", " ", " —\n"]))
    rationale = draw(pick(_RATIONALES[:3] if "\n" in dash else _RATIONALES))
    return f"{lead}{marker.format(slot)} {shown}{gap}{number}{out_of}{dash}{rationale}", score


_WIDE = {ord("0") + digit: ord("０") + digit for digit in range(10)}


@st.composite
def _damaged_answers(draw: st.DrawFn) -> _Damaged:
    """Draws an answer with damage in every line and around them, and the scores still in it."""
    drawn = [draw(_slot_lines(slot, name)) for slot, name in enumerate(_NAMES, 1)]
    present = draw(st.lists(st.sampled_from(range(len(_NAMES))), min_size=1, max_size=9))
    blocks = [drawn[slot][0] for slot in present]  # in any order, some missing, some doubled
    blocks.insert(draw(st.integers(0, len(blocks))), draw(st.sampled_from([_FOOTER, "", "```"])))
    before = draw(st.sampled_from(["", "Here is my answer:\n\n", "```text\n", "[A1]\n"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    text = before + "\n".join(blocks).replace("\n", end)
    scores = tuple(score if slot in present else None for slot, (_, score) in enumerate(drawn))
    return _Damaged(text=text, scores=scores)


@settings(max_examples=500)
@given(_damaged_answers())
def test_damaged_answer_gives_every_score_in_it_and_no_other(damaged: _Damaged) -> None:
    assert parse_reply(damaged.text, _NAMES).scores == damaged.scores


@given(_damaged_answers())
def test_damaged_answer_reads_alike_in_runs_and_line_by_line(damaged: _Damaged) -> None:
    line_by_line = damaged.text.replace("[A", "【A")  # which no run of lines has
    in_runs, alone = parse_reply(damaged.text, _NAMES), parse_reply(line_by_line, _NAMES)
    assert in_runs.scores == alone.scores
    assert in_runs.reason == alone.reason
