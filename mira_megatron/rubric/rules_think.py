"""Dimensions of records with a thinking part: of the thinking, of the two together, of the answer.

No corpus with thinking parts was at hand: the ends of these scales, and what is usual on them, are
this judge's choice.
"""

from __future__ import annotations

from mira_megatron.rubric import rules_prose, rules_qa, rules_text, rules_words
from mira_megatron.rubric.arithmetic import numbers_in
from mira_megatron.rubric.dimension import CONSEQUENCE, Dimension
from mira_megatron.rubric.qa_features import QaFeatures
from mira_megatron.rubric.verdict import (
    Finding,
    balanced,
    placed,
    quantified,
    scaled,
    scaled_log,
    unmeasurable,
)

_CLOSING_CHARS = 300  # where a final result is looked for
_FEW_WORDS = 20  # below, a share says nothing
_CUT_SCORE = 2
_CHECKING_WORDS = (
    *("wait", "check", "verify", "let me re", "double-check", "alternatively", "actually"),
    *("检查", "验证", "等等"),
)


def _reasoning_depth(features: QaFeatures) -> Finding:
    think = features.think.features
    if not think.words.num_words:
        return Finding(score=0, reason="no words")
    num_sentences = think.prose.num_sentences if think.prose else 0
    num_steps = max(think.lines.num_filled, num_sentences)
    return Finding(
        score=scaled_log(num_steps, worst=1, best=40),
        reason=f"{placed(num_steps, low=5, high=40, words=('shallow', 'some', 'deep'))} reasoning: "
        f"{num_steps} lines or sentences",
    )


def _self_checks(features: QaFeatures) -> Finding:
    if not features.think.features.words.num_words:
        return unmeasurable("no thinking part")
    lowered = features.think.text.lower()
    num_checks = sum(map(lowered.count, _CHECKING_WORDS))
    return Finding(
        score=scaled(num_checks, worst=0, best=4),
        reason=f"{placed(num_checks, low=1, high=6, words=('no', 'some', 'many'))} checking words "
        f"(wait, verify …): {num_checks}",
    )


def _closure(features: QaFeatures) -> Finding:
    if not features.think.features.words.num_words:
        return unmeasurable("no thinking part")
    is_cut = rules_prose.ends_mid_sentence(features.think.features)
    return Finding(
        score=_CUT_SCORE if is_cut else 10,
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
        reason=f"{placed(think / answer, low=1, high=20, words=('brief', 'fitting', 'long'))} "
        f"thinking: {think / answer:.1f} words per word of the answer",
    )


def _step_size(features: QaFeatures) -> Finding:
    think = features.think.features
    if think.prose is None:
        return unmeasurable("the thinking part is code")
    return rules_qa.step_size(think, think.prose)


def _question_taken_up(features: QaFeatures) -> Finding:
    asked = features.question.terms
    if not asked:
        return unmeasurable("the question has no word of four Latin letters")
    what = "words of the question recur in the thinking"
    return _recurring(asked, features, what, worst=0.05, best=0.7)


def _answer_prepared(features: QaFeatures) -> Finding:
    told = features.answer.terms
    if not told:
        return unmeasurable("the answer has no word of four Latin letters")
    what = "words of the answer occur in the thinking"
    return _recurring(told, features, what, worst=0.1, best=0.8)


def _recurring(
    terms: frozenset[str], features: QaFeatures, what: str, *, worst: float, best: float
) -> Finding:
    num_shared = len(terms & features.think.terms)
    return Finding(
        score=scaled(num_shared / len(terms), worst=worst, best=best),
        reason=quantified(num_shared, len(terms), what),
    )


def _answer_written_anew(features: QaFeatures) -> Finding:
    sequences = features.answer.own_sequences
    if not sequences:
        return unmeasurable("the answer has fewer than five words")
    num_copied = len(sequences & features.think.own_sequences)
    what = "five-word sequences of the answer stand in the thinking"
    return Finding(
        # Code and equations may well be taken over; a whole answer may not.
        score=scaled(num_copied / len(sequences), worst=1, best=0.3),
        reason=quantified(num_copied, len(sequences), what),
    )


def _one_language(features: QaFeatures) -> Finding:
    parts = (features.think.features.words, features.answer.features.words)
    if min(words.num_words for words in parts) < _FEW_WORDS:
        return unmeasurable(f"fewer than {_FEW_WORDS} words of thinking or of answer")
    think, answer = (words.num_cjk / words.num_words for words in parts)
    return Finding(
        score=scaled(abs(think - answer), worst=0.6, best=0.1),
        reason=f"{think:.0%} of the words of the thinking and {answer:.0%} of the answer's are "
        "Chinese, Japanese or Korean",
    )


def _of_think(rule: rules_text.Rule) -> rules_qa.Rule:
    return lambda features: rule(features.think.features)


DIMENSIONS: tuple[Dimension[QaFeatures], ...] = (
    Dimension(name="Reasoning Depth", rule=_reasoning_depth, usual=5, part="think"),
    Dimension(name="Reasoning Step Size", rule=_step_size, usual=5, part="think"),
    Dimension(
        name="Reasoning Arithmetic Consistency",
        rule=lambda features: rules_qa.arithmetic(features.think),
        usual=10,
        part="think",
        weight=CONSEQUENCE,
    ),
    Dimension(
        name="Reasoning Explanation",
        rule=_of_think(rules_text.explanatory_content),
        usual=5,
        part="think",
    ),
    Dimension(
        name="Reasoning Vocabulary", rule=_of_think(rules_words.vocabulary), usual=5, part="think"
    ),
    Dimension(
        name="Reasoning Non-Repetition",
        rule=_of_think(rules_words.non_repetition),
        usual=8,
        part="think",
    ),
    Dimension(name="Self-Verification", rule=_self_checks, usual=3, part="think"),
    Dimension(name="Reasoning Closure", rule=_closure, usual=10, part="think"),
    Dimension(
        name="Reasoning-Answer Agreement",
        rule=_agreement,
        usual=10,
        part="combined",
        weight=CONSEQUENCE,
    ),
    Dimension(name="Reasoning-Answer Proportion", rule=_think_proportion, usual=7, part="combined"),
    Dimension(
        name="Given Values Used",
        rule=rules_qa.given_values_used,
        usual=10,
        part="combined",
        weight=CONSEQUENCE,
    ),
    Dimension(
        name="Question Taken Up in Reasoning", rule=_question_taken_up, usual=7, part="combined"
    ),
    Dimension(name="Answer Prepared by Reasoning", rule=_answer_prepared, usual=7, part="combined"),
    Dimension(name="Answer Written Anew", rule=_answer_written_anew, usual=9, part="combined"),
    Dimension(name="One Language", rule=_one_language, usual=10, part="combined"),
    Dimension(name="Question Specificity", rule=rules_qa.question_specificity, usual=5, part="qa"),
    Dimension(name="Question-Answer Overlap", rule=rules_qa.overlap, usual=5, part="qa"),
    Dimension(
        name="Question-Answer Proportion", rule=rules_qa.answer_proportion, usual=5, part="qa"
    ),
    Dimension(name="Answer Substance", rule=rules_qa.answer_substance, usual=5, part="qa"),
    Dimension(
        name="Answer Completeness & Hygiene",
        rule=rules_qa.answer_completeness,
        usual=10,
        part="qa",
        weight=CONSEQUENCE,
    ),
    Dimension(
        name="Answer Structure & Formatting",
        rule=rules_qa.of_answer(rules_text.structure),
        usual=5,
        part="qa",
    ),
    Dimension(
        name="Answer Readability",
        rule=rules_qa.of_answer(rules_text.readability),
        usual=5,
        part="qa",
    ),
)
