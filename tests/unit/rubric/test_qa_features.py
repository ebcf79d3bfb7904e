from __future__ import annotations

import pytest

from mira_megatron.rubric.qa_features import measure_qa

_QUESTION = "Implement the Python function `area(width)`.\n\nArea of a square of this width."
_ANSWER = 'def area(width):\n    """Area of a square of this width."""\n    return width**2\n'


def test_measure_qa_docstring_and_signature_are_not_the_answers_own_words() -> None:
    answer = measure_qa({"question": _QUESTION, "answer": _ANSWER}, has_think=False).answer
    assert answer.own_terms == {"return", "width"}
    assert "square" in answer.terms


def test_measure_qa_identifiers_are_split_into_words() -> None:
    payload = {"question": "x", "answer": "Use squared_norm or SquaredSum here."}
    terms = measure_qa(payload, has_think=False).answer.terms
    assert {"squared", "norm", "here"} <= terms


def test_measure_qa_signature_line_explains_nothing() -> None:
    payload = {"question": "Implement `f(depth)`.\n\nWalks to this height.", "answer": _ANSWER}
    explained = measure_qa(payload, has_think=False).question.explained
    assert "depth" not in explained
    assert "height" in explained


@pytest.mark.parametrize("payload", [None, [], {"question": "Why?"}, {"question": 1, "answer": ""}])
def test_measure_qa_other_payloads_are_refused(payload: object) -> None:
    with pytest.raises(ValueError, match=r"question|answer|payload"):
        measure_qa(payload, has_think=False)


def test_measure_qa_given_numbers_include_those_in_words() -> None:
    payload = {"question": "Three pens at 4 each?", "answer": "12"}
    features = measure_qa(payload, has_think=False)
    assert features.given_numbers == {3.0, 4.0}
    assert features.answer.last_number == 12.0
