from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mira_megatron.records
from mira_megatron.records import FAMILIES, NUM_SLOTS
from mira_megatron.rubric.rule_judge import anchor_names, judge
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


def _score(verdict: Verdict, family: str, name: str) -> int | None:
    return verdict.scores[anchor_names(family).index(name)]


def _reason(verdict: Verdict, family: str, name: str) -> str:
    return verdict.rationales[anchor_names(family).index(name)]


def _judge_agent(*messages: dict[str, Any]) -> Verdict:
    return judge("agent", json.dumps(messages))


def _exchange(arguments: str, result: str) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": result},
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_anchor_names_every_family_has_fifteen_different_ones(family: str) -> None:
    assert len(set(anchor_names(family))) == NUM_SLOTS


def test_anchor_names_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="audio"):
        anchor_names("audio")


@given(family=st.sampled_from(FAMILIES), view=st.text())
def test_judge_any_text_gives_fifteen_scores_in_range_with_reasons(family: str, view: str) -> None:
    verdict = judge(family, view)
    assert len(verdict.scores) == len(verdict.rationales) == NUM_SLOTS
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
def test_judge_any_json_payload_gives_an_answer(family: str, payload: object) -> None:
    assert len(judge(family, json.dumps(payload)).scores) == NUM_SLOTS


@settings(max_examples=20, deadline=None)
@given(atom=st.text(min_size=1, max_size=6), family=st.sampled_from(FAMILIES))
def test_judge_long_repetition_of_anything_takes_linear_time(atom: str, family: str) -> None:
    text = (atom * 200_000)[:200_000]
    view = text if family == "text" else json.dumps({"question": text, "think": "", "answer": text})
    started = time.process_time()
    judge(family, view)
    assert time.process_time() - started < 10  # quadratic work on 200,000 characters takes minutes


@pytest.mark.parametrize("text", ["(" * 200_000, "-" * 200_000 + "1", "[" * 90 + "]" * 90, "\0"])
def test_judge_text_that_breaks_parsers_is_judged(text: str) -> None:
    assert judge("text", f"import os\n{text}").rationales


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
def test_judge_text_kinds_are_told_apart_and_mostly_measurable(text: str, kind: str) -> None:
    verdict = judge("text", text)
    assert verdict.domain_tag == kind
    assert sum(score is not None for score in verdict.scores) >= 8


def test_judge_prose_has_no_code_scores_and_says_so() -> None:
    verdict = judge("text", _PROSE)
    assert _score(verdict, "text", "Naming Clarity") is None
    assert _reason(verdict, "text", "Naming Clarity").startswith("not measurable: prose")


def test_judge_python_reason_quotes_the_counts() -> None:
    verdict = judge("text", 'def a():\n    """Doc."""\n\ndef b():\n    return 1\n')
    reason = _reason(verdict, "text", "Documentation & Examples")
    assert reason.startswith("1 of 3 public definitions")
    # 7 points times 1/3 for docstrings, none of the 3 for annotations.
    assert _score(verdict, "text", "Documentation & Examples") == 2


def test_judge_python_with_syntax_error_scores_below_the_whole_file() -> None:
    broken = judge("text", _PYTHON + "\ndef half(:\n")
    assert _score(judge("text", _PYTHON), "text", "Parse Success & Completeness") == 10
    assert _score(broken, "text", "Parse Success & Completeness") == 5


def test_judge_unclosed_fence_caps_the_snippet_score() -> None:
    verdict = judge("text", _MARKDOWN + "\n```python\nx = 1\n")
    assert _score(verdict, "text", "Parse Success & Completeness") == 5


def test_judge_repeated_paragraph_scores_lower_than_once() -> None:
    words = " ".join(f"word{number}" for number in range(120))
    once, often = judge("text", words), judge("text", f"{words}. " * 10)
    assert _score(once, "text", "Non-Repetition") == 10
    assert _score(often, "text", "Non-Repetition") == 0


def test_judge_access_key_lowers_content_over_noise() -> None:
    verdict = judge("text", _PROSE + "AKIA" + "ABCDEFGH" * 2)
    assert _score(judge("text", _PROSE), "text", "Content over Noise") == 10
    assert _score(verdict, "text", "Content over Noise") == 5


def test_judge_licence_is_rated_below_prose_and_code() -> None:
    licence = "The software comes without warranty; this copyright notice must be kept.\n" * 8
    overalls = [judge("text", text).overall or 0 for text in (licence, _PROSE, _PYTHON)]
    assert overalls[0] < min(overalls[1:]) - 20


def test_judge_table_of_constants_is_rated_below_code() -> None:
    table = "CODES = {\n" + "".join(f"    {n}: '{n:x}',\n" for n in range(500)) + "}\n"
    assert (judge("text", table).overall or 0) < (judge("text", _PYTHON).overall or 0) - 20


def test_judge_generated_module_has_little_content() -> None:
    marked = judge("text", f"# This file is generated, do not edit\n{_PYTHON}")
    assert _score(marked, "text", "Content over Noise") == 2


def test_judge_tests_are_measured_as_tests() -> None:
    module = "def test_{0}_of_two_numbers():\n    assert {0}(1, 2)\n    assert {0}(2, 2)\n\n"
    verdict = judge("text", "".join(map(module.format, ("sum", "mean", "median"))))
    assert _score(verdict, "text", "Checks & Error Handling") == 10
    assert _score(verdict, "text", "Documentation & Examples") == 10


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_judge_more_nesting_never_scores_higher(depth: int) -> None:
    def nested(levels: int) -> str:
        loops = "".join(f"{'    ' * (level + 1)}for _ in a:\n" for level in range(levels))
        return f"def run(a):\n{loops}{'    ' * (levels + 1)}stop()\n"

    shallow, deep = judge("text", nested(2)), judge("text", nested(2 + depth))
    name = "Control-Flow Balance"
    assert (_score(deep, "text", name) or 0) <= (_score(shallow, "text", name) or 0)


def test_judge_empty_text_has_no_overall_and_is_dropped() -> None:
    verdict = judge("text", "")
    assert verdict.overall is None
    assert verdict.training_recommendation == "drop"


def test_judge_qa_wrong_arithmetic_is_scored_and_quoted() -> None:
    pair = {"question": "What is 4 plus 5, plus 1?", "answer": "4 + 5 = 9\n9 + 1 = 11\nA: 11"}
    verdict = judge("qa", json.dumps(pair))
    assert _score(verdict, "qa", "Arithmetic Consistency") == 0
    assert "wrong: 9 + 1 = 11" in _reason(verdict, "qa", "Arithmetic Consistency")


def test_judge_qa_unused_value_lowers_given_values_used() -> None:
    pair = {"question": "A pen costs 4 and a book 6. How much are both?", "answer": "They cost 4."}
    assert _score(judge("qa", json.dumps(pair)), "qa", "Given Values Used") == 5


_SUM = "Implement the Python function `total(values)`.\n\nTotal of all values in a list."
_STUB = 'def total(values):\n    """Total of all values in a list."""\n'


def test_judge_qa_code_answer_is_measured_as_code() -> None:
    body = (
        "    result = 0\n    for number in values:\n        result += number\n    return result\n"
    )
    verdict = judge("qa", json.dumps({"question": _SUM, "answer": _STUB + body}))
    assert verdict.domain_tag == "qa/code"
    assert _reason(verdict, "qa", "Given Values Used").startswith("1 of 1 parameters")
    assert _reason(verdict, "qa", "Function & Step Size").startswith("1 functions of 5.0 lines")


def test_judge_qa_stub_is_rated_below_an_implementation() -> None:
    full = (
        _STUB
        + "    if not values:\n        raise ValueError('no values')\n    return sum(values)\n"
    )
    stub, code = (
        judge("qa", json.dumps({"question": _SUM, "answer": answer})) for answer in (_STUB, full)
    )
    assert (stub.overall or 0) < (code.overall or 0) - 20


def test_judge_qa_with_think_result_missing_from_the_thinking_scores_zero() -> None:
    parts = {"question": "How many?", "think": "So it is 12.", "answer": "The answer is 13."}
    verdict = judge("qa_with_think", json.dumps(parts))
    assert _score(verdict, "qa_with_think", "Reasoning-Answer Agreement") == 0


def test_judge_unparsable_payload_gives_the_reason_in_every_slot() -> None:
    verdict = judge("qa", '{"question": "Why?"}')
    assert set(verdict.scores) == {None}
    assert all("'answer'" in rationale for rationale in verdict.rationales)


def test_judge_agent_concatenated_arguments_score_at_most_three() -> None:
    verdict = _judge_agent(*_exchange("{}", "ok") * 9, *_exchange('{"a":1}{"a":2}', "ok"))
    assert _score(verdict, "agent", "Tool Call Validity") == 3


def test_judge_agent_error_before_a_success_counts_half() -> None:
    good, bad = _exchange('{"a": 2}', "done"), _exchange('{"a": 1}', "Error: no")
    name = "Result Success & Recovery"
    # One error in four results: a quarter lost of the half that is worst, or an eighth.
    assert _score(_judge_agent(*good, *good, *good, *bad), "agent", name) == 5
    assert _score(_judge_agent(*bad, *good, *good, *good), "agent", name) == 8


def test_judge_agent_retry_without_a_change_lowers_recovery() -> None:
    failing, working = _exchange('{"a": 1}', "Error: no"), _exchange('{"a": 2}', "done")
    verdict = _judge_agent(*failing, *failing, *working * 6)
    # Two recovered errors in eight results: 10 less a quarter, less 2 for the retry.
    assert _score(verdict, "agent", "Result Success & Recovery") == 6


def test_judge_agent_null_error_in_a_result_is_a_success() -> None:
    verdict = _judge_agent(*_exchange("{}", '{"error": null, "rows": 3}'))
    assert _score(verdict, "agent", "Result Success & Recovery") == 10


def test_judge_agent_calls_that_use_results_score_higher() -> None:
    first = _exchange('{"name": "Smith"}', "order 4711")
    using = _judge_agent(*first, *_exchange('{"order": "4711"}', "ok"))
    ignoring = _judge_agent(*first, *_exchange('{"order": "99"}', "ok"))
    assert _score(using, "agent", "Use of Results") == 10
    assert _score(ignoring, "agent", "Use of Results") == 0


def test_judge_agent_silent_tools_are_not_informative() -> None:
    verdict = _judge_agent(*_exchange('{"a": 1}', ""), *_exchange('{"a": 2}', "3 rows"))
    assert _score(verdict, "agent", "Informative Results") == 5


def test_judge_agent_ending_on_an_open_call_is_unfinished() -> None:
    verdict = _judge_agent({"role": "user", "content": "Go"}, _exchange("{}", "ok")[0])
    assert _score(verdict, "agent", "Task Closure") == 1


def test_judge_agent_last_word_after_an_empty_result_is_no_good_ending() -> None:
    closing = {"role": "assistant", "content": "Done."}
    assert _score(_judge_agent(*_exchange("{}", "ok"), closing), "agent", "Task Closure") == 10
    assert _score(_judge_agent(*_exchange("{}", ""), closing), "agent", "Task Closure") == 6


def test_judge_agent_destructive_command_lowers_safety() -> None:
    verdict = _judge_agent(*_exchange('{"command": "rm -rf /"}', "ok"))
    assert _score(verdict, "agent", "Safety & Scope") == 6
