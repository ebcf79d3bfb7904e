"""Dimensions of question-answer records, with and without a thinking part.

Arithmetic that is written out is checked; whether the answer is the right one is not known here,
and no dimension claims it. The end points of every scale are this judge's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mira_megatron.rubric import rules_prose
from mira_megatron.rubric.arithmetic import Equations, check_equations, numbers_in
from mira_megatron.rubric.judgement import Finding, scaled, unmeasurable
from mira_megatron.rubric.text_features import TextFeatures, measure_text

_MAX_QUOTE_CHARS = 60
_CLOSING_CHARS = 300  # where a final answer is looked for
_ANSWER_MARKS = ("####", "\\boxed", "answer", "\na:", "答案", "therefore", "in total")
_CHECKING_WORDS = (
    *("wait", "check", "verify", "let me re", "double-check", "alternatively", "actually"),
    *("检查", "验证", "等等"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One text of a record with everything measured on it."""

    text: str
    features: TextFeatures
    equations: Equations
    numbers: frozenset[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class QaFeatures:
    """The parts of a question-answer record."""

    question: Part
    think: Part  # empty where the family has none
    answer: Part


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
    return Part(
        text=text,
        features=measure_text(text),
        equations=check_equations(text),
        numbers=frozenset(numbers_in(text)),
    )


def _question_clarity(features: QaFeatures) -> Finding:
    words = features.question.features.words.num_words
    asks = features.question.text.rstrip().endswith(("?", "？", ".", ":", "。", "!"))
    by_length = min(scaled(words, worst=0, best=12), scaled(words, worst=3000, best=300))
    return Finding(
        score=max(0, by_length - (0 if asks else 2)),
        reason=f"{words} words, {'ends as a sentence' if asks else 'no closing punctuation'}",
    )


def _overlap(features: QaFeatures) -> Finding:
    asked = features.question.features.words.content_words
    if not asked:
        return unmeasurable("the question has no word of four letters")
    shared = asked & features.answer.features.words.content_words
    return Finding(
        score=scaled(len(shared) / len(asked), worst=0, best=0.5),
        reason=f"{len(shared)} of {len(asked)} content words of the question recur in the answer",
    )


def _given_values_used(features: QaFeatures) -> Finding:
    given = features.question.numbers
    if not given:
        return unmeasurable("no number in the question")
    used = given & (features.answer.numbers | features.think.numbers)
    return Finding(
        score=scaled(len(used) / len(given), worst=0, best=1),
        reason=f"{len(used)} of {len(given)} numbers of the question are used",
    )


def _answer_completeness(features: QaFeatures) -> Finding:
    if not features.answer.features.words.num_words:
        return Finding(score=0, reason="the answer has no words")
    return rules_prose.completeness(features.answer.features)


def _final_answer(features: QaFeatures) -> Finding:
    closing = "\n" + features.answer.text[-_CLOSING_CHARS:].lower()
    if not closing.strip():
        return Finding(score=0, reason="the answer is empty")
    marks = [mark.strip() for mark in _ANSWER_MARKS if mark in closing]
    if marks:
        return Finding(score=10, reason=f"the closing part has {marks[0]!r}")
    if not features.question.numbers:
        return unmeasurable("a question without numbers needs no marked result")
    has_number = bool(numbers_in(features.answer.features.lines.last))
    return Finding(
        score=6 if has_number else 2,
        reason=f"no answer mark; the last line has {'a' if has_number else 'no'} number",
    )


def _steps(part: Part) -> Finding:
    features = part.features
    if not features.words.num_words:
        return Finding(score=0, reason="no words")
    num_steps = max(features.lines.num_filled, features.words.num_sentences)
    return Finding(
        score=scaled(num_steps, worst=0, best=5), reason=f"{num_steps} lines or sentences"
    )


def _arithmetic(part: Part) -> Finding:
    equations = part.equations
    if not equations.num_checked:
        return unmeasurable("no equation to check")
    num_right = equations.num_checked - equations.num_wrong
    quote = f"; wrong: {equations.first_wrong[:_MAX_QUOTE_CHARS]}" if equations.first_wrong else ""
    return Finding(
        score=scaled(num_right / equations.num_checked, worst=0.5, best=1),
        reason=f"{num_right} of {equations.num_checked} written equations hold{quote}",
    )


def _code_snippets(features: QaFeatures) -> Finding:
    snippets = features.answer.features.snippets
    if not snippets.num_python:
        return unmeasurable("no Python snippet")
    return Finding(
        score=scaled(snippets.num_parsed / snippets.num_python, worst=0, best=1),
        reason=f"{snippets.num_parsed} of {snippets.num_python} Python snippets parse",
    )


def _self_checks(features: QaFeatures) -> Finding:
    if not features.think.features.words.num_words:
        return unmeasurable("no thinking part")
    lowered = features.think.text.lower()
    num_checks = sum(map(lowered.count, _CHECKING_WORDS))
    return Finding(
        score=scaled(num_checks, worst=0, best=4), reason=f"{num_checks} checking words (wait …)"
    )


def _closure(features: QaFeatures) -> Finding:
    if not features.think.features.words.num_words:
        return unmeasurable("no thinking part")
    is_cut = rules_prose.ends_mid_sentence(features.think.features)
    return Finding(
        score=2 if is_cut else 10,
        reason=f"the thinking part {'stops in mid-sentence' if is_cut else 'comes to an end'}",
    )


def _agreement(features: QaFeatures) -> Finding:
    closing = numbers_in(features.answer.text[-_CLOSING_CHARS:])
    if not closing or not features.think.numbers:
        return unmeasurable("no number in both the thinking part and the answer's end")
    agrees = closing[-1] in features.think.numbers
    return Finding(
        score=10 if agrees else 0,
        reason=f"the answer's last number {closing[-1]:g} "
        f"{'occurs' if agrees else 'does not occur'} in the thinking part",
    )


def _proportion(features: QaFeatures) -> Finding:
    think = features.think.features.words.num_words
    answer = features.answer.features.words.num_words
    if not think or not answer:
        return unmeasurable(f"{think} words of thinking, {answer} of answer")
    ratio = think / answer
    return Finding(
        score=min(scaled(ratio, worst=0, best=1), scaled(ratio, worst=60, best=15)),
        reason=f"{ratio:.1f} words of thinking per word of the answer",
    )


Rule = Callable[[QaFeatures], Finding]


def _answer(rule: Callable[[TextFeatures], Finding]) -> Rule:
    return lambda features: rule(features.answer.features)


def _think(rule: Callable[[TextFeatures], Finding]) -> Rule:
    return lambda features: rule(features.think.features)


RULES: tuple[tuple[str, Rule], ...] = (
    ("Question Clarity", _question_clarity),
    ("Question-Answer Overlap", _overlap),
    ("Given Values Used", _given_values_used),
    ("Answer Completeness", _answer_completeness),
    ("Final Answer Presence", _final_answer),
    ("Step-by-Step Reasoning", lambda features: _steps(features.answer)),
    ("Arithmetic Consistency", lambda features: _arithmetic(features.answer)),
    ("Code Snippet Parse Success", _code_snippets),
    ("Explanatory Content", _answer(rules_prose.explanatory_content)),
    ("Document Structure & Formatting", _answer(rules_prose.structure)),
    ("Readability", _answer(rules_prose.readability)),
    ("Signal-to-Noise Ratio", _answer(rules_prose.signal_to_noise)),
    ("Non-Repetition", _answer(rules_prose.non_repetition)),
    ("Encoding Integrity", _answer(rules_prose.encoding_integrity)),
    ("Secret Hygiene", _answer(rules_prose.secret_hygiene)),
)

# Five about the thinking part, five about both, five about the question and its answer, as the
# paper's qa_with_think group has them.
THINK_RULES: tuple[tuple[str, Rule], ...] = (
    ("Reasoning Depth", lambda features: _steps(features.think)),
    ("Reasoning Arithmetic Consistency", lambda features: _arithmetic(features.think)),
    ("Reasoning Non-Repetition", _think(rules_prose.non_repetition)),
    ("Self-Verification", _self_checks),
    ("Reasoning Closure", _closure),
    ("Reasoning-Answer Agreement", _agreement),
    ("Reasoning-Answer Proportion", _proportion),
    ("Given Values Used", _given_values_used),
    ("Signal-to-Noise Ratio", _think(rules_prose.signal_to_noise)),
    ("Encoding Integrity", _think(rules_prose.encoding_integrity)),
    ("Question Clarity", _question_clarity),
    ("Question-Answer Overlap", _overlap),
    ("Answer Completeness", _answer_completeness),
    ("Final Answer Presence", _final_answer),
    ("Answer Readability", _answer(rules_prose.readability)),
)
