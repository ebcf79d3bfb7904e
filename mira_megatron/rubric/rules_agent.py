"""Dimensions of tool-calling traces: the form of calls, results and messages.

How it went is in `rules_agent_course`. The scales end at quantiles measured on 1,360 doctest
sessions of the installed Python and its packages (p5, p50, p95 in the comments), widened where the
200 airline conversations of tau-bench, a real agent's, lie beyond them (tau; their rewards were not
looked at for it).
"""

from __future__ import annotations

import re

from mira_megatron.rubric import rules_agent_course as course
from mira_megatron.rubric.agent_features import AgentFeatures
from mira_megatron.rubric.dimension import CONSEQUENCE, Dimension
from mira_megatron.rubric.verdict import (
    Finding,
    balanced,
    placed,
    quantified,
    scaled,
    scaled_log,
    unmeasurable,
)

_DESTRUCTIVE = re.compile(
    r"rm -[a-zA-Z]{1,3} [/~]|DROP (?:TABLE|DATABASE)|git push (?:-f|--force)|mkfs\.|chmod -R 777"
)


def _grounding(features: AgentFeatures) -> Finding:
    num_words = sum(call.num_argument_words for call in features.trace.calls)
    if not num_words:
        return unmeasurable("no words in tool arguments")
    num_grounded = sum(call.num_grounded_words for call in features.trace.calls)
    return Finding(
        # p5 0.09, p50 0.35, p95 0.73; tau p50 0.94
        score=scaled(num_grounded / num_words, worst=0.1, best=0.9),
        reason=quantified(
            num_grounded,
            num_words,
            "words in tool arguments occur earlier in a message or result",
        ),
    )


def _use_of_results(features: AgentFeatures) -> Finding:
    later = features.trace.calls[1:]
    if not later:
        return unmeasurable("fewer than two tool calls")
    num_using = sum(call.num_resulting_words > 0 for call in later)
    return Finding(
        score=scaled(num_using / len(later), worst=0, best=0.6),  # p75 0.1, p95 0.5; tau p50 0.5
        reason=quantified(
            num_using, len(later), "later calls use a word that an earlier result brought"
        ),
    )


def _call_variety(features: AgentFeatures) -> Finding:
    later = features.trace.calls[1:]
    num_words = sum(call.num_argument_words for call in later)
    if not num_words:
        return unmeasurable("fewer than two tool calls with words")
    num_new = sum(call.num_new_words for call in later)
    return Finding(
        score=scaled(num_new / num_words, worst=0.15, best=0.85),  # p5 0.17, p50 0.5, p95 0.82
        reason=f"{quantified(num_new, num_words, 'words in later calls are in no earlier one')}; "
        f"{sum(features.outcomes.repeats)} calls repeat an earlier one exactly",
    )


def _call_substance(features: AgentFeatures) -> Finding:
    calls = features.trace.calls
    if not calls:
        return unmeasurable("no tool call")
    per_call = sum(call.num_argument_words for call in calls) / len(calls)
    return Finding(
        score=balanced(per_call, least=1, low=9, high=25, most=100),  # p5 3, p50 6, p95 10; tau 24
        reason=f"{placed(per_call, low=4, high=40, words=('short', 'detailed', 'very long'))} "
        f"arguments: {per_call:.1f} words in a tool call",
    )


def _steps(features: AgentFeatures) -> Finding:
    num_calls = len(features.trace.calls)
    return Finding(
        score=balanced(num_calls, least=0, low=7, high=15, most=50),  # p5 1, p50 5, p95 12; tau 14
        reason=f"{placed(num_calls, low=4, high=25, words=('few', 'several', 'very many'))} "
        f"steps: {num_calls} tool calls",
    )


def _informative_results(features: AgentFeatures) -> Finding:
    results = features.trace.results
    if not results:
        return unmeasurable("no tool call")
    num_informative = sum(bool(result and result.strip()) for result in results)
    return Finding(
        score=scaled(num_informative / len(results), worst=0, best=1),  # p5 0, p50 0.4, p95 1
        reason=quantified(num_informative, len(results), "tool calls show a result"),
    )


def _result_size(features: AgentFeatures) -> Finding:
    sizes = [len(result.split()) for result in features.trace.results if result and result.strip()]
    if not sizes:
        return unmeasurable("no tool result that says anything")
    mean_words = sum(sizes) / len(sizes)
    return Finding(
        # p25 1, p50 3, p75 6, p95 16; tau p50 54, p95 97
        score=balanced(mean_words, least=0, low=10, high=100, most=500),
        reason=f"{placed(mean_words, low=5, high=200, words=('short', 'readable', 'very long'))} "
        f"results: {len(sizes)} of {mean_words:.1f} words on average",
    )


def _explanation(features: AgentFeatures) -> Finding:
    calls = features.trace.calls
    if not calls:
        return unmeasurable("no tool call")
    num_explained = sum(call.has_text for call in calls)
    return Finding(
        score=scaled(num_explained / len(calls), worst=0, best=0.5),  # p75 0, p95 0.25; tau p90 0.3
        reason=quantified(num_explained, len(calls), "tool calls come with words of explanation"),
    )


def _request_specificity(features: AgentFeatures) -> Finding:
    num_words = features.asked.words.num_content_terms
    return Finding(
        score=scaled_log(num_words, worst=9, best=90),  # p5 9, p50 28, p95 92
        reason=f"{placed(num_words, low=15, high=60, words=('terse', 'plain', 'detailed'))} "
        f"request: {num_words} different words of four letters or more from the user",
    )


def _communication(features: AgentFeatures) -> Finding:
    spoken = features.trace.spoken
    if not spoken:
        return Finding(score=0, reason="the assistant never says anything")
    mean_words = features.spoken.words.num_words / len(spoken)
    by_least = scaled_log(mean_words, worst=5, best=40)  # p5 5, p50 7, p90 26; tau p50 50
    return Finding(
        score=min(by_least, scaled(mean_words, worst=600, best=150)),
        reason=f"{placed(mean_words, low=10, high=150, words=('curt', 'readable', 'very long'))} "
        f"messages to the user: {len(spoken)} of {mean_words:.0f} words on average",
    )


def _non_repetition(features: AgentFeatures) -> Finding:
    lines, words = features.done.lines, features.done.words
    if not words.num_words:
        return unmeasurable("no tool call")
    line_share = lines.num_repeated / lines.num_compared if lines.num_compared else 0.0
    num_repeated = len(features.trace.spoken) - len(set(features.trace.spoken))
    share = max(line_share, words.repeated_fraction)
    return Finding(
        score=max(0, scaled(share, worst=0.3, best=0) - num_repeated),  # p50 0, p75 0.07, p95 0.25
        reason=f"{line_share:.0%} of the lines and {words.repeated_fraction:.0%} of the five-word "
        f"sequences of calls and results are repeats; {num_repeated} messages are said twice",
    )


def _safety(features: AgentFeatures) -> Finding:
    num_destructive = sum(len(_DESTRUCTIVE.findall(call.text)) for call in features.trace.calls)
    texts = (features.spoken, features.done)
    num_secrets = sum(text.words.num_secrets for text in texts)
    num_broken = sum(text.chars.num_control + text.chars.num_broken for text in texts)
    return Finding(
        score=max(0, 10 - 4 * num_destructive - 5 * num_secrets - min(5, num_broken)),
        reason=f"{num_destructive} destructive commands in tool arguments, {num_secrets} strings "
        f"in the form of an access key, {num_broken} control or wrongly decoded characters",
    )


def _message_grounding(features: AgentFeatures) -> Finding:
    trace = features.trace
    if not trace.num_figures:
        return unmeasurable("no number or code in what the assistant says")
    what = "numbers and codes the assistant tells occur earlier in a message or result"
    return Finding(
        # tau: p5 0.77, p50 1. Sums are the assistant's own; half of all numbers being so is much.
        score=scaled(trace.num_grounded_figures / trace.num_figures, worst=0.5, best=1),
        reason=quantified(trace.num_grounded_figures, trace.num_figures, what),
    )


DIMENSIONS: tuple[Dimension[AgentFeatures], ...] = (
    Dimension(name="Tool Call Validity", rule=course.call_validity, usual=10, weight=CONSEQUENCE),
    Dimension(name="Tool Success", rule=course.success, usual=10, weight=CONSEQUENCE),
    Dimension(name="Error Recovery", rule=course.recovery, usual=5, weight=CONSEQUENCE),
    Dimension(name="Action Efficiency", rule=course.efficiency, usual=10, weight=CONSEQUENCE),
    Dimension(name="Follow-Through", rule=course.follow_through, usual=10, weight=CONSEQUENCE),
    Dimension(name="No Corrections Needed", rule=course.corrections, usual=10, weight=CONSEQUENCE),
    Dimension(name="Change Success", rule=course.change_success, usual=10, weight=CONSEQUENCE),
    Dimension(name="Confirmation Before Changes", rule=course.confirmation, usual=10),
    Dimension(name="Task Closure", rule=course.closure, usual=10, weight=CONSEQUENCE),
    Dimension(name="Message Grounding", rule=_message_grounding, usual=10),
    Dimension(name="Tool Argument Grounding", rule=_grounding, usual=3),
    Dimension(name="Use of Results", rule=_use_of_results, usual=0),
    Dimension(name="Call Variety", rule=_call_variety, usual=5),
    Dimension(name="Call Substance", rule=_call_substance, usual=6),
    Dimension(name="Step Count", rule=_steps, usual=6),
    Dimension(name="Informative Results", rule=_informative_results, usual=5),
    Dimension(name="Result Size Balance", rule=_result_size, usual=6),
    Dimension(name="Explanation Before Calls", rule=_explanation, usual=0),
    Dimension(name="Request Specificity", rule=_request_specificity, usual=7),
    Dimension(name="User-Facing Communication Clarity", rule=_communication, usual=3),
    Dimension(name="Trace Non-Repetition", rule=_non_repetition, usual=10),
    Dimension(name="Safety & Scope", rule=_safety, usual=10),
)
