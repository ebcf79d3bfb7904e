from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mira_megatron.records
from mira_megatron.records import FAMILIES, NUM_SLOTS, PARTS_OF_THINK
from mira_megatron.rubric.rule_judge import check_names, dimension_names, propose, rate
from mira_megatron.rubric.verdict import RECOMMENDATIONS, Verdict

_PROSE = (
    "The cache keeps one entry per key. When an entry is older than an hour, it is read again, "
    "because the table behind it may have changed in the meantime.\n\n"
    "If the table cannot be reached, the old entry stays, so readers never wait for long. This "
    "means that an answer can be out of date, however it is never missing.\n"
)
_MARKDOWN = f"# Cache\n\n{_PROSE}\n## Use\n\n- get(key)\n- drop(key)\n\n```python\nget('a')\n```\n"
_C = "#include <stdio.h>\n\n/* Adds. */\nint add(int a, int b) {\n    return a + b;\n}\n" * 4
_JSON = json.dumps([{"name": f"item {i}", "size": i} for i in range(20)], indent=1)
_CHINESE = "缓存为每个键保存一个条目。因为表可能已经改变，所以一小时后会重新读取。" * 6
_HTML = "<html>\n<body>\n<h1>Title</h1>\n<p>Some words about a page.</p>\n</body>\n</html>\n" * 4
_PYTHON = Path(mira_megatron.records.__file__).read_text(encoding="utf-8")


def _rate(family: str, view: str) -> Verdict:
    return rate(family, view, dimension_names(family))


def _score(verdict: Verdict, family: str, name: str) -> float | None:
    return verdict.scores[dimension_names(family).index(name)]


def _reason(verdict: Verdict, family: str, name: str) -> str:
    return verdict.rationales[dimension_names(family).index(name)]


@pytest.mark.parametrize("family", FAMILIES)
def test_dimension_names_are_different_and_more_than_the_slots(family: str) -> None:
    names = dimension_names(family)
    assert len(set(names)) == len(names) > NUM_SLOTS


def test_dimension_names_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="audio"):
        dimension_names("audio")


def test_check_names_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'Beauty'.*Readability"):
        check_names("text", ["Readability", "Beauty"])


def test_check_names_none_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="asked for none"):
        check_names("agent", [])


def test_rate_slots_follow_the_names_which_may_repeat() -> None:
    names = ("Substance", "Readability", "Substance")
    whole, some = _rate("text", _PROSE), rate("text", _PROSE, names)
    assert some.scores == tuple(_score(whole, "text", name) for name in names)
    assert (some.overall, some.brief) == (whole.overall, whole.brief)


_TAKEN_UP = {"question": "Add 4 and 5.", "think": "Wait: 4 + 5 = 9.", "answer": "It is 4 + 5 = 9."}


@pytest.mark.parametrize("text", [_PYTHON, _PROSE, _MARKDOWN, _C, _JSON, _CHINESE, _HTML])
def test_propose_text_names_up_to_fifteen_that_rate_scores_alike(text: str) -> None:
    proposals = propose("text", text)
    names = [proposal.dimension for proposal in proposals]
    assert 10 <= len(set(names)) == len(names) <= NUM_SLOTS
    verdict = rate("text", text, names)
    assert verdict.scores == tuple(proposal.score for proposal in proposals)
    assert verdict.rationales == tuple(proposal.reason for proposal in proposals)


def test_propose_think_names_up_to_five_of_each_part_in_order() -> None:
    parts = [proposal.part for proposal in propose("qa_with_think", json.dumps(_TAKEN_UP))]
    assert parts == sorted(parts, key=lambda part: PARTS_OF_THINK.index(part or ""))
    assert all(1 <= parts.count(part) <= 5 for part in PARTS_OF_THINK)


def test_propose_without_think_has_no_parts() -> None:
    assert {proposal.part for proposal in propose("text", _PROSE)} == {None}


def test_propose_names_what_stands_out_first() -> None:
    switched_off = "".join(f"# value_{n} = compute(value_{n - 1})\n" for n in range(60))
    first = [proposal.dimension for proposal in propose("text", _PYTHON + switched_off)[:2]]
    assert "Comment Hygiene" in first
    names = [proposal.dimension for proposal in propose("text", _PYTHON)]
    assert "Comment Hygiene" not in names


@pytest.mark.parametrize("view", ["", "not json", "[]", '{"question": "Why?"}'])
@pytest.mark.parametrize("family", ["qa", "qa_with_think", "agent"])
def test_propose_view_of_another_family_has_nothing_to_say(family: str, view: str) -> None:
    assert propose(family, view) == ()


def test_propose_empty_text_has_nothing_to_say() -> None:
    assert propose("text", "") == ()


@given(family=st.sampled_from(FAMILIES), view=st.text())
def test_propose_is_the_same_again_and_fits_one_line(family: str, view: str) -> None:
    proposals = propose(family, view)
    assert proposals == propose(family, view)
    assert not any("\n" in proposal.reason for proposal in proposals)
    assert all(0 <= proposal.score <= 10 for proposal in proposals)


@given(family=st.sampled_from(FAMILIES), view=st.text())
def test_rate_any_text_gives_scores_in_range_with_reasons(family: str, view: str) -> None:
    verdict = _rate(family, view)
    assert len(verdict.scores) == len(verdict.rationales) == len(dimension_names(family))
    assert all(score is None or 0 <= score <= 10 for score in verdict.scores)
    assert all(verdict.rationales)
    assert verdict.overall is None or 0 <= verdict.overall <= 100
    assert verdict.training_recommendation in RECOMMENDATIONS


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: (
        st.lists(children)
        | st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "function", "arguments", "question"])
            | st.text(),
            children | st.sampled_from(["assistant", "tool", "user"]),
        )
    ),
)


@given(family=st.sampled_from(FAMILIES), payload=_JSON_VALUES)
def test_rate_any_json_payload_gives_an_answer(family: str, payload: object) -> None:
    verdict = _rate(family, json.dumps(payload))
    assert len(verdict.scores) == len(dimension_names(family))


@settings(max_examples=20, deadline=None)
@given(atom=st.text(min_size=1, max_size=6), family=st.sampled_from(FAMILIES))
def test_rate_long_repetition_of_anything_takes_linear_time(atom: str, family: str) -> None:
    text = (atom * 200_000)[:200_000]
    view = text if family == "text" else json.dumps({"question": text, "think": "", "answer": text})
    started = time.process_time()
    _rate(family, view)
    assert time.process_time() - started < 10  # quadratic work on 200,000 characters takes minutes


@pytest.mark.parametrize("text", ["(" * 200_000, "-" * 200_000 + "1", "[" * 90 + "]" * 90, "\0"])
def test_rate_text_that_breaks_parsers_is_judged(text: str) -> None:
    assert _rate("text", f"import os\n{text}").rationales


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (_PYTHON, "python"),
        (_PROSE, "prose"),
        (_MARKDOWN, "document"),
        (_C, "code"),
        (_JSON, "code"),
        (_HTML, "code"),
        (_CHINESE, "prose"),
    ],
)
def test_rate_text_kinds_are_told_apart_and_mostly_measurable(text: str, kind: str) -> None:
    verdict = _rate("text", text)
    assert verdict.domain_tag == kind
    assert sum(score is not None for score in verdict.scores) >= 8


def test_rate_prose_has_no_code_scores_and_says_so() -> None:
    verdict = _rate("text", _PROSE)
    assert _score(verdict, "text", "Naming Clarity") is None
    assert _reason(verdict, "text", "Naming Clarity").startswith("not measurable: prose")


def test_rate_python_reason_quotes_the_counts() -> None:
    verdict = _rate("text", 'def a():\n    """Doc."""\n\ndef b():\n    return 1\n')
    reason = _reason(verdict, "text", "Documentation & Examples")
    assert reason.startswith("some public definitions")
    assert reason.endswith(": 1 of 3")
    assert _score(verdict, "text", "Documentation & Examples") == 3


def test_rate_python_with_syntax_error_scores_below_the_whole_file() -> None:
    broken = _rate("text", _PYTHON + "\ndef half(:\n")
    assert _score(_rate("text", _PYTHON), "text", "Parse Success & Completeness") == 10
    assert _score(broken, "text", "Parse Success & Completeness") == 5


def test_rate_unclosed_fence_caps_the_snippet_score() -> None:
    verdict = _rate("text", _MARKDOWN + "\n```python\nx = 1\n")
    assert _score(verdict, "text", "Parse Success & Completeness") == 5


def test_rate_repeated_paragraph_scores_lower_than_once() -> None:
    words = " ".join(f"word{number}" for number in range(120))
    once, often = _rate("text", words), _rate("text", f"{words}. " * 10)
    assert _score(once, "text", "Non-Repetition") == 10
    assert _score(often, "text", "Non-Repetition") == 0


def test_rate_access_key_lowers_hygiene() -> None:
    verdict = _rate("text", _PROSE + "AKIA" + "ABCDEFGH" * 2)
    assert _score(_rate("text", _PROSE), "text", "Encoding & Secret Hygiene") == 10
    assert _score(verdict, "text", "Encoding & Secret Hygiene") == 5


def test_rate_licence_is_rated_below_prose_and_code() -> None:
    licence = "The software comes without warranty; this copyright notice must be kept.\n" * 8
    overalls = [_rate("text", text).overall or 0 for text in (licence, _PROSE, _PYTHON)]
    assert overalls[0] < min(overalls[1:]) - 20


def test_rate_table_of_constants_is_rated_below_code() -> None:
    table = "CODES = {\n" + "".join(f"    {n}: '{n:x}',\n" for n in range(500)) + "}\n"
    assert (_rate("text", table).overall or 0) < (_rate("text", _PYTHON).overall or 0) - 20


def test_rate_generated_module_has_little_content() -> None:
    marked = _rate("text", f"# This file is generated, do not edit\n{_PYTHON}")
    assert _score(marked, "text", "Content over Noise") == 2


def test_rate_tests_are_measured_as_tests() -> None:
    module = "def test_{0}_of_two_numbers():\n    assert {0}(1, 2)\n    assert {0}(2, 2)\n\n"
    verdict = _rate("text", "".join(map(module.format, ("sum", "mean", "median"))))
    assert _score(verdict, "text", "Checks & Error Handling") == 10
    assert _score(verdict, "text", "Documentation & Examples") == 10


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_rate_more_nesting_never_scores_higher(depth: int) -> None:
    def nested(levels: int) -> str:
        loops = "".join(f"{'    ' * (level + 1)}for _ in a:\n" for level in range(levels))
        return f"def run(a):\n{loops}{'    ' * (levels + 1)}stop()\n"

    shallow, deep = _rate("text", nested(2)), _rate("text", nested(2 + depth))
    name = "Control-Flow Balance"
    assert (_score(deep, "text", name) or 0) <= (_score(shallow, "text", name) or 0)


def test_rate_empty_text_has_no_overall_and_is_dropped() -> None:
    verdict = _rate("text", "")
    assert verdict.overall is None
    assert verdict.training_recommendation == "drop"


def test_rate_qa_wrong_arithmetic_is_scored_and_quoted() -> None:
    pair = {"question": "What is 4 plus 5, plus 1?", "answer": "4 + 5 = 9\n9 + 1 = 11\nA: 11"}
    verdict = _rate("qa", json.dumps(pair))
    assert _score(verdict, "qa", "Arithmetic Consistency") == 0
    assert "wrong: 9 + 1 = 11" in _reason(verdict, "qa", "Arithmetic Consistency")


def test_rate_qa_unused_value_lowers_given_values_used() -> None:
    pair = {"question": "A pen costs 4 and a book 6. How much are both?", "answer": "They cost 4."}
    assert _score(_rate("qa", json.dumps(pair)), "qa", "Given Values Used") == 5


def test_rate_qa_number_from_nowhere_lowers_traceability() -> None:
    question = "A pen costs 4 and a dozen books 6 each. How much are all?"
    traced, invented = ("12 * 6 = 72, 72 + 4 = 76", "12 * 6 = 72, 72 + 35 = 107")
    scores = [
        _score(
            _rate("qa", json.dumps({"question": question, "answer": answer})),
            "qa",
            "Number Traceability",
        )
        for answer in (traced, invented)
    ]
    assert scores == [10, 6]  # 5 of 6 numbers are traced, and 0.6 is worst


@pytest.mark.parametrize(("closing", "score"), [("A: 10", 10), ("A: 9", 6), ("A: 11", 2)])
def test_rate_qa_final_result_is_the_last_equations(closing: str, score: int) -> None:
    pair = {"question": "What is 4 + 5 + 1?", "answer": f"4 + 5 = 9\n9 + 1 = 10\n{closing}"}
    assert _score(_rate("qa", json.dumps(pair)), "qa", "Final Result") == score


def test_rate_qa_wrong_answer_with_sound_steps_is_not_seen() -> None:
    pair = {"question": "A pen costs 4 and a book 6. How much more is the book?"}
    right, wrong = (
        _rate("qa", json.dumps({**pair, "answer": answer}))
        for answer in ("6 - 4 = 2\nA: 2", "6 + 4 = 10\nA: 10")
    )
    names = ("Arithmetic Consistency", "Number Traceability", "Final Result")
    assert all(_score(right, "qa", name) == _score(wrong, "qa", name) == 10 for name in names)


_SUM = "Implement the Python function `total(values)`.\n\nTotal of all values in a list."
_STUB = 'def total(values):\n    """Total of all values in a list."""\n'


def test_rate_qa_code_answer_is_measured_as_code() -> None:
    body = (
        "    result = 0\n    for number in values:\n        result += number\n    return result\n"
    )
    verdict = _rate("qa", json.dumps({"question": _SUM, "answer": _STUB + body}))
    assert verdict.domain_tag == "qa/code"
    assert _reason(verdict, "qa", "Given Values Used").endswith(": 1 of 1")
    assert _reason(verdict, "qa", "Function & Step Size").startswith(
        "readable functions: 1 of 5.0 lines"
    )


def test_rate_qa_stub_is_rated_below_an_implementation() -> None:
    full = (
        _STUB
        + "    if not values:\n        raise ValueError('no values')\n    return sum(values)\n"
    )
    stub, code = (
        _rate("qa", json.dumps({"question": _SUM, "answer": answer})) for answer in (_STUB, full)
    )
    assert (stub.overall or 0) < (code.overall or 0) - 20


def test_rate_qa_with_think_result_missing_from_the_thinking_scores_zero() -> None:
    parts = {"question": "How many?", "think": "So it is 12.", "answer": "The answer is 13."}
    verdict = _rate("qa_with_think", json.dumps(parts))
    assert _score(verdict, "qa_with_think", "Reasoning-Answer Agreement") == 0


def test_rate_unparsable_payload_gives_the_reason_in_every_slot() -> None:
    verdict = _rate("qa", '{"question": "Why?"}')
    assert set(verdict.scores) == {None}
    assert all("'answer'" in rationale for rationale in verdict.rationales)


def test_rate_code_behind_a_comment_sign_is_told_from_words() -> None:
    words = "import os\n# The value of the first row is a sum.\n"
    switched_off = "import os\n# value = first_row.sum()\n"
    scores = [
        _score(_rate("text", text), "text", "Comment Hygiene") for text in (words, switched_off)
    ]
    assert scores == [10, 0]


def test_rate_code_in_one_script_is_less_modular_than_in_functions() -> None:
    lines = [f"value_{n} = compute({n})" for n in range(9)]
    script = "\n".join(lines)
    function = "def run():\n" + "\n".join(f"    {line}" for line in lines)
    assert _score(_rate("text", script), "text", "Modularity") == 0
    assert _score(_rate("text", function), "text", "Modularity") == 10


def test_rate_repeated_paragraph_has_little_information() -> None:
    verdict = _rate("text", _PROSE * 20)
    assert _score(verdict, "text", "Information Density") == 0
