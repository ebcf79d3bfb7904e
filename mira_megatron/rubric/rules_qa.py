"""Dimensions of question-answer records; `rules_think` has those of a thinking part.

An answer that is code is measured as code, a worked answer by its steps. Arithmetic that is written
out is checked; whether the answer is the right one is not known here, and no dimension claims it.
The scales end at quantiles measured on 3,000 docstring questions whose answer is code, drawn from
the installed Python and its packages (p5, p50, p95 in the comments), widened where the first 1,500
worked answers of GSM8K's training part lie beyond them (math).
"""

from __future__ import annotations

from collections.abc import Callable

from mira_megatron.rubric import rules_code, rules_text, rules_words
from mira_megatron.rubric.arithmetic import numbers_in
from mira_megatron.rubric.dimension import CONSEQUENCE, Dimension
from mira_megatron.rubric.prose_features import ProseFeatures
from mira_megatron.rubric.qa_features import Part, QaFeatures
from mira_megatron.rubric.text_features import TextFeatures
from mira_megatron.rubric.verdict import (
    Finding,
    balanced,
    placed,
    quantified,
    scaled,
    scaled_log,
    unmeasurable,
)

_MAX_QUOTE_CHARS = 60
_LENGTHS = ("short", "readable", "long")
_FEW_SEQUENCES = 5  # below, a share says nothing
_EARLIER_RESULT_SCORE = 6
_UNDERIVED_SCORE = 2

Rule = Callable[[QaFeatures], Finding]


def question_specificity(features: QaFeatures) -> Finding:
    """Scores how much the question says."""
    num_terms = len(features.question.terms)
    if not num_terms:
        return unmeasurable("the question has no word of four Latin letters")
    return Finding(
        score=scaled_log(num_terms, worst=9, best=60),  # p5 9, p50 19, p95 60
        reason=f"{placed(num_terms, low=12, high=35, words=('terse', 'plain', 'detailed'))} "
        f"question: {num_terms} different words of four letters or more",
    )


def overlap(features: QaFeatures) -> Finding:
    """Scores an answer that takes up the question's words."""
    asked = features.question.terms
    if not asked:
        return unmeasurable("the question has no word of four Latin letters")
    shared = asked & features.answer.own_terms
    return Finding(
        score=scaled(len(shared) / len(asked), worst=0.05, best=0.6),  # p5 0.05, p50 0.27, p95 0.61
        reason=quantified(len(shared), len(asked), "words of the question recur in the answer")
        + ", outside imports, signatures and docstrings",
    )


def given_values_used(features: QaFeatures) -> Finding:
    """Scores use of what the question gives: parameters in code, numbers elsewhere."""
    answer = features.answer
    if answer.features.python and answer.features.python.functions.parameters:
        given = answer.features.python.functions.parameters
        used = given & answer.own_identifiers & features.question.explained
        what = "parameters are explained by the question and used by the code"
        return Finding(
            score=scaled(len(used) / len(given), worst=0, best=1),  # p25 0, p50 0.5, p75 1
            reason=quantified(len(used), len(given), what),
        )
    numbers = features.question.numbers
    if not numbers:
        return unmeasurable("no number in the question, no parameter in the answer")
    num_used = len(numbers & (answer.numbers | features.think.numbers))
    return Finding(
        score=scaled(num_used / len(numbers), worst=0, best=1),
        reason=quantified(num_used, len(numbers), "numbers of the question are used"),
    )


def answer_proportion(features: QaFeatures) -> Finding:
    """Scores an answer neither much shorter nor much longer than the question."""
    asked, told = features.question.features.words.num_words, features.answer.num_own_words
    if not asked or not told:
        return Finding(score=0, reason=f"{asked} words of question, {told} of answer")
    return Finding(
        # p5 0.06, p25 0.3, p50 1, p75 2.5, p95 8; math p50 1.1
        score=balanced(told / asked, least=0, low=0.8, high=3, most=9),
        reason=f"{placed(told / asked, low=0.3, high=4, words=('short', 'fitting', 'long'))} "
        f"answer: {told / asked:.2f} words, outside imports, signatures and docstrings, per word "
        "of the question",
    )


def answer_substance(features: QaFeatures) -> Finding:
    """Scores how much the answer says itself."""
    num_terms = len(features.answer.own_terms)
    return Finding(
        score=scaled_log(num_terms, worst=4, best=60),  # p5 4, p50 17, p95 60; math p50 11
        reason=f"{placed(num_terms, low=8, high=35, words=('little', 'some', 'much'))} content: "
        f"{num_terms} different words of four letters or more, outside imports, signatures and "
        "docstrings",
    )


def answer_completeness(features: QaFeatures) -> Finding:
    """Scores an answer that is whole and clean."""
    answer = features.answer.features
    if not answer.words.num_words:
        return Finding(score=0, reason="the answer has no words")
    return rules_text.weaker(rules_text.completeness(answer), rules_words.cleanliness(answer))


def arithmetic(part: Part) -> Finding:
    """Scores written equations whose two sides are equal."""
    equations = part.equations
    if not equations.num_checked:
        return unmeasurable("no equation to check")
    num_right = equations.num_checked - equations.num_wrong
    quote = f"; wrong: {equations.first_wrong[:_MAX_QUOTE_CHARS]}" if equations.first_wrong else ""
    return Finding(
        score=scaled(num_right / equations.num_checked, worst=0.5, best=1),
        reason=quantified(num_right, equations.num_checked, "written equations hold") + quote,
    )


def step_size(features: TextFeatures, prose: ProseFeatures) -> Finding:
    """Scores steps of a readable length."""
    num_words = features.words.num_words
    if not num_words:
        return unmeasurable("no words")
    num_steps = max(features.lines.num_filled, prose.num_sentences)
    return Finding(
        # math: p5 7, p50 12, p95 20
        score=balanced(num_words / num_steps, least=3, low=9, high=16, most=40),
        reason=f"{placed(num_words / num_steps, low=6, high=25, words=_LENGTHS)} steps: "
        f"{num_steps} lines or sentences of {num_words / num_steps:.1f} words",
    )


def explanation(features: TextFeatures) -> Finding:
    """Scores comments in code, and words of reasoning elsewhere."""
    python = features.python
    if python is None:
        return rules_text.explanatory_content(features)
    # Comments above imports are not in the body.
    num_lines = max(len(python.body.split("\n")), python.num_comments)
    return Finding(
        score=scaled(python.num_comments / num_lines, worst=0, best=0.2),  # p75 0.08, p90 0.19
        reason=quantified(python.num_comments, num_lines, "lines of code are comments"),
    )


def question_completeness(features: QaFeatures) -> Finding:
    """Scores a question that is whole and clean."""
    question = features.question.features
    return rules_text.weaker(rules_text.completeness(question), rules_words.cleanliness(question))


def traceability(features: QaFeatures, part: Part) -> Finding:
    """Scores numbers that come from the question or from a written equation.

    Numbers that the question spells out (three, a dozen) or implies by a unit (week, percent) are
    given, and so are 0, 1 and 2.
    """
    equations = part.equations
    if part.features.python or not equations.results:
        return unmeasurable("no written equation")
    sources = features.given_numbers | set(equations.results) | {0.0, 1.0, 2.0}
    written = numbers_in(part.text)
    num_traced = sum(number in sources for number in written)
    what = "numbers come from the question or from a written equation"
    return Finding(
        # math: p5 0.85, p50 1
        score=scaled(num_traced / len(written), worst=0.6, best=1),
        reason=quantified(num_traced, len(written), what),
    )


def final_result(features: QaFeatures) -> Finding:
    """Scores a last number that the answer has worked out, right or wrong."""
    answer = features.answer
    results, last = answer.equations.results, answer.last_number
    if answer.features.python or not results or last is None:
        return unmeasurable("no written equation")
    if last == results[-1]:
        return Finding(score=10, reason=f"the last number {last:g} is the last equation's result")
    if last in results:
        return Finding(
            score=_EARLIER_RESULT_SCORE,
            reason=f"the last number {last:g} is an earlier equation's result",
        )
    return Finding(
        score=_UNDERIVED_SCORE, reason=f"the last number {last:g} is the result of no equation"
    )


def solution_steps(features: QaFeatures) -> Finding:
    """Scores a way to the result of several steps: statements of code, equations elsewhere."""
    python, equations = features.answer.features.python, features.answer.equations
    if python:
        num_statements = python.num_statements
        return Finding(
            # p5 3, p50 8, p75 19, p95 64
            score=balanced(num_statements, least=1, low=8, high=20, most=64),
            reason=f"{placed(num_statements, low=4, high=30, words=('few', 'several', 'many'))} "
            f"steps: {num_statements} statements",
        )
    if not equations.results:
        return unmeasurable("no written equation, no code")
    num_steps = len(equations.results)
    return Finding(
        # math: p5 2, p50 3, p95 6
        score=balanced(num_steps, least=0, low=2, high=6, most=20),
        reason=f"{placed(num_steps, low=2, high=8, words=('few', 'several', 'many'))} steps: "
        f"{num_steps} written results",
    )


def own_words(features: QaFeatures) -> Finding:
    """Scores an answer that does not copy the question."""
    sequences = features.answer.own_sequences
    if len(sequences) < _FEW_SEQUENCES:
        return unmeasurable(f"{len(sequences)} five-word sequences in the answer")
    num_copied = len(sequences & features.question.own_sequences)
    what = "five-word sequences of the answer stand in the question"
    return Finding(
        # p95 0.01; math p75 0.03, p95 0.13
        score=scaled(num_copied / len(sequences), worst=0.25, best=0),
        reason=quantified(num_copied, len(sequences), what),
    )


def of_answer(rule: rules_text.Rule) -> Rule:
    """Returns the rule of a text applied to the answer."""
    return lambda features: rule(features.answer.features)


DIMENSIONS: tuple[Dimension[QaFeatures], ...] = (
    Dimension(name="Question Specificity", rule=question_specificity, usual=5),
    Dimension(name="Question Completeness", rule=question_completeness, usual=10),
    Dimension(name="Question-Answer Overlap", rule=overlap, usual=3),
    Dimension(name="Question-Answer Proportion", rule=answer_proportion, usual=7),
    Dimension(name="Given Values Used", rule=given_values_used, usual=10, weight=CONSEQUENCE),
    Dimension(name="Answer Substance", rule=answer_substance, usual=5),
    Dimension(
        name="Answer Completeness & Hygiene", rule=answer_completeness, usual=10, weight=CONSEQUENCE
    ),
    Dimension(name="Answer in Own Words", rule=own_words, usual=10),
    Dimension(name="Answer Non-Repetition", rule=of_answer(rules_words.non_repetition), usual=9),
    Dimension(name="Answer Structure & Formatting", rule=of_answer(rules_text.structure), usual=8),
    Dimension(
        name="Arithmetic Consistency",
        rule=lambda features: arithmetic(features.answer),
        usual=10,
        weight=CONSEQUENCE,
    ),
    Dimension(
        name="Number Traceability",
        rule=lambda features: traceability(features, features.answer),
        usual=10,
        weight=CONSEQUENCE,
    ),
    Dimension(name="Final Result", rule=final_result, usual=10, weight=CONSEQUENCE),
    Dimension(name="Solution Steps", rule=solution_steps, usual=9),
    Dimension(
        name="Function & Step Size",
        rule=of_answer(rules_text.by_kind(rules_code.function_size, step_size)),
        usual=6,
    ),
    Dimension(
        name="Control-Flow Balance",
        rule=of_answer(rules_text.by_kind(rules_code.control_flow)),
        usual=5,
    ),
    Dimension(
        name="Naming Clarity",
        rule=of_answer(rules_text.by_kind(rules_code.naming_clarity)),
        usual=10,
    ),
    Dimension(
        name="Type Annotation Coverage",
        rule=of_answer(rules_text.by_kind(rules_code.type_annotations)),
        usual=0,
    ),
    Dimension(
        name="Checks & Error Handling",
        rule=of_answer(rules_text.by_kind(rules_code.checks)),
        usual=0,
    ),
    Dimension(name="Explanatory Content", rule=of_answer(explanation), usual=0),
    Dimension(name="Readability", rule=of_answer(rules_text.readability), usual=6),
    Dimension(name="Vocabulary Richness", rule=of_answer(rules_words.vocabulary), usual=7),
)
