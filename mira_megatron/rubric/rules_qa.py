"""Dimensions of question-answer records, with and without a thinking part.

An answer that is code is measured as code, a worked answer by its steps. Arithmetic that is written
out is checked; whether the answer is the right one is not known here, and no dimension claims it.
The scales end at quantiles measured on 3,000 docstring questions whose answer is code, drawn from
the installed Python and its packages (p5, p50, p95 in the comments), widened where the first 1,500
worked answers of GSM8K's training part lie beyond them (math). No corpus with thinking parts was at
hand: the ends of the scales that read them are this judge's choice.
"""

from __future__ import annotations

from collections.abc import Callable

from mira_megatron.rubric import rules_code, rules_prose, rules_text
from mira_megatron.rubric.arithmetic import numbers_in
from mira_megatron.rubric.prose_features import ProseFeatures
from mira_megatron.rubric.qa_features import Part, QaFeatures
from mira_megatron.rubric.text_features import TextFeatures
from mira_megatron.rubric.verdict import Finding, balanced, scaled, scaled_log, unmeasurable

_MAX_QUOTE_CHARS = 60
_CLOSING_CHARS = 300  # where a final result is looked for
_CHECKING_WORDS = (
    *("wait", "check", "verify", "let me re", "double-check", "alternatively", "actually"),
    *("检查", "验证", "等等"),
)

Rule = Callable[[QaFeatures], Finding]


def _question_specificity(features: QaFeatures) -> Finding:
    num_terms = len(features.question.terms)
    if not num_terms:
        return unmeasurable("the question has no word of four Latin letters")
    return Finding(
        score=scaled_log(num_terms, worst=9, best=60),  # p5 9, p50 19, p95 60
        reason=f"{num_terms} different words of four letters or more in the question",
    )


def _overlap(features: QaFeatures) -> Finding:
    asked = features.question.terms
    if not asked:
        return unmeasurable("the question has no word of four Latin letters")
    shared = asked & features.answer.own_terms
    return Finding(
        score=scaled(len(shared) / len(asked), worst=0.05, best=0.6),  # p5 0.05, p50 0.27, p95 0.61
        reason=f"{len(shared)} of {len(asked)} words of the question recur in the answer, outside "
        "imports, signatures and docstrings",
    )


def _given_values_used(features: QaFeatures) -> Finding:
    answer = features.answer
    if answer.features.python and answer.features.python.functions.parameters:
        given = answer.features.python.functions.parameters
        used = given & answer.own_identifiers & features.question.explained
        what = "parameters are explained by the question and used by the code"
        return Finding(
            score=scaled(len(used) / len(given), worst=0, best=1),  # p25 0, p50 0.5, p75 1
            reason=f"{len(used)} of {len(given)} {what}",
        )
    numbers = features.question.numbers
    if not numbers:
        return unmeasurable("no number in the question, no parameter in the answer")
    num_used = len(numbers & (answer.numbers | features.think.numbers))
    return Finding(
        score=scaled(num_used / len(numbers), worst=0, best=1),
        reason=f"{num_used} of {len(numbers)} numbers of the question are used",
    )


def _answer_proportion(features: QaFeatures) -> Finding:
    asked, told = features.question.features.words.num_words, features.answer.num_own_words
    if not asked or not told:
        return Finding(score=0, reason=f"{asked} words of question, {told} of answer")
    return Finding(
        # p5 0.06, p25 0.3, p50 1, p75 2.5, p95 8; math p50 1.1
        score=balanced(told / asked, least=0, low=0.8, high=3, most=9),
        reason=f"{told / asked:.2f} words of the answer, outside imports, signatures and "
        "docstrings, per word of the question",
    )


def _answer_substance(features: QaFeatures) -> Finding:
    num_terms = len(features.answer.own_terms)
    return Finding(
        score=scaled_log(num_terms, worst=4, best=60),  # p5 4, p50 17, p95 60; math p50 11
        reason=f"{num_terms} different words of four letters or more in the answer, outside "
        "imports, signatures and docstrings",
    )


def _answer_completeness(features: QaFeatures) -> Finding:
    answer = features.answer.features
    if not answer.words.num_words:
        return Finding(score=0, reason="the answer has no words")
    return rules_text.weaker(rules_text.completeness(answer), rules_text.cleanliness(answer))


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


def _step_size(features: TextFeatures, prose: ProseFeatures) -> Finding:
    num_words = features.words.num_words
    if not num_words:
        return unmeasurable("no words")
    num_steps = max(features.lines.num_filled, prose.num_sentences)
    return Finding(
        # math: p5 7, p50 12, p95 20
        score=balanced(num_words / num_steps, least=3, low=9, high=16, most=40),
        reason=f"{num_steps} lines or sentences of {num_words / num_steps:.1f} words",
    )


def _explanation(features: TextFeatures) -> Finding:
    python = features.python
    if python is None:
        return rules_text.explanatory_content(features)
    num_lines = len(python.body.split("\n"))
    return Finding(
        score=scaled(python.num_comments / num_lines, worst=0, best=0.2),  # p75 0.08, p90 0.19
        reason=f"{python.num_comments} comments in {num_lines} lines of code",
    )


def _reasoning_depth(features: QaFeatures) -> Finding:
    think = features.think.features
    if not think.words.num_words:
        return Finding(score=0, reason="no words")
    num_sentences = think.prose.num_sentences if think.prose else 0
    num_steps = max(think.lines.num_filled, num_sentences)
    return Finding(
        score=scaled_log(num_steps, worst=1, best=40), reason=f"{num_steps} lines or sentences"
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


def _think_proportion(features: QaFeatures) -> Finding:
    think = features.think.features.words.num_words
    answer = features.answer.features.words.num_words
    if not think or not answer:
        return unmeasurable(f"{think} words of thinking, {answer} of answer")
    return Finding(
        score=balanced(think / answer, least=0, low=1, high=15, most=60),
        reason=f"{think / answer:.1f} words of thinking per word of the answer",
    )


def _answer(rule: rules_text.Rule) -> Rule:
    return lambda features: rule(features.answer.features)


def _think(rule: rules_text.Rule) -> Rule:
    return lambda features: rule(features.think.features)


RULES: tuple[tuple[str, Rule], ...] = (
    ("Question Specificity", _question_specificity),
    ("Question-Answer Overlap", _overlap),
    ("Given Values Used", _given_values_used),
    ("Question-Answer Proportion", _answer_proportion),
    ("Answer Substance", _answer_substance),
    ("Answer Completeness & Hygiene", _answer_completeness),
    ("Arithmetic Consistency", lambda features: _arithmetic(features.answer)),
    (
        "Function & Step Size",
        _answer(rules_text.by_kind(rules_code.function_size, _step_size)),
    ),
    ("Control-Flow Balance", _answer(rules_text.by_kind(rules_code.control_flow))),
    ("Naming Clarity", _answer(rules_text.by_kind(rules_code.naming_clarity))),
    ("Type Annotation Coverage", _answer(rules_text.by_kind(rules_code.type_annotations))),
    ("Checks & Error Handling", _answer(rules_text.by_kind(rules_code.checks))),
    ("Explanatory Content", _answer(_explanation)),
    ("Readability", _answer(rules_text.readability)),
    ("Vocabulary Richness", _answer(rules_text.vocabulary)),
)

# Nine about the thinking part or its relation to the answer, six about the question and its answer.
THINK_RULES: tuple[tuple[str, Rule], ...] = (
    ("Reasoning Depth", _reasoning_depth),
    ("Reasoning Arithmetic Consistency", lambda features: _arithmetic(features.think)),
    ("Reasoning Explanation", _think(rules_text.explanatory_content)),
    ("Reasoning Vocabulary", _think(rules_text.vocabulary)),
    ("Reasoning Non-Repetition", _think(rules_text.non_repetition)),
    ("Self-Verification", _self_checks),
    ("Reasoning Closure", _closure),
    ("Reasoning-Answer Agreement", _agreement),
    ("Reasoning-Answer Proportion", _think_proportion),
    ("Given Values Used", _given_values_used),
    ("Question Specificity", _question_specificity),
    ("Question-Answer Overlap", _overlap),
    ("Answer Substance", _answer_substance),
    ("Answer Completeness & Hygiene", _answer_completeness),
    ("Answer Readability", _answer(rules_text.readability)),
)
