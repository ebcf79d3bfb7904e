"""What can be counted on the parts of a question-answer record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mira_megatron.rubric.arithmetic import (
    Equations,
    check_equations,
    numbers_in,
    numbers_in_words,
)
from mira_megatron.rubric.text_features import (
    TextFeatures,
    measure_text,
    word_list,
    word_sequences,
)

# Words inside identifiers count: squared_norm and SquaredNorm are about a squared norm.
_TERM = re.compile(r"[A-Z]?[a-z]{3,}")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One text of a record with everything measured on it."""

    text: str
    features: TextFeatures
    equations: Equations
    numbers: frozenset[float]
    last_number: float | None
    terms: frozenset[str]  # lower case, four letters or more
    # What the part says itself: of code, only the body; a docstring repeats the question.
    own_terms: frozenset[str]
    own_identifiers: frozenset[str]
    num_own_words: int
    own_sequences: frozenset[tuple[str, ...]]  # of NGRAM_WORDS words
    explained: frozenset[str]  # identifiers below the first line, which holds a signature


@dataclass(frozen=True, kw_only=True, slots=True)
class QaFeatures:
    """The parts of a question-answer record."""

    question: Part
    think: Part  # empty where the family has none
    answer: Part

    @property
    def given_numbers(self) -> frozenset[float]:
        """The numbers of the question, those spelled out and those its units imply included."""
        return self.question.numbers | numbers_in_words(self.question.text)


def measure_qa(payload: object, *, has_think: bool) -> QaFeatures:
    """Returns the features of a payload {question, [think,] answer}.

    Raises ValueError for anything else, saying what was expected.
    """
    if not isinstance(payload, Mapping):
        raise ValueError(f"the payload is a {type(payload).__name__}, not an object")
    return QaFeatures(
        question=_part(payload, "question"),
        think=_part(payload, "think") if has_think else _measured(""),
        answer=_part(payload, "answer"),
    )


def _part(payload: Mapping[object, object], key: str) -> Part:
    text = payload.get(key)
    if not isinstance(text, str):
        raise ValueError(f"{key!r} is a {type(text).__name__}, not a string")
    return _measured(text)


def _measured(text: str) -> Part:
    features = measure_text(text)
    own = features.python.body if features.python else text
    numbers = numbers_in(text)
    return Part(
        text=text,
        features=features,
        equations=check_equations(text),
        numbers=frozenset(numbers),
        last_number=numbers[-1] if numbers else None,
        terms=_terms(text),
        own_terms=_terms(own),
        own_identifiers=frozenset(_IDENTIFIER.findall(own)),
        num_own_words=len(own.split()),
        own_sequences=frozenset(word_sequences(word_list(own))),
        explained=frozenset(_IDENTIFIER.findall(text.partition("\n")[2])),
    )


def _terms(text: str) -> frozenset[str]:
    return frozenset(term.lower() for term in _TERM.findall(text) if len(term) >= 4)
