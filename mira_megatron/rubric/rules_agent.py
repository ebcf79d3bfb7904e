"""Dimensions of tool-calling traces.

They see form and consequences: whether arguments are JSON, whether tools answered with errors and
what was done next, whether the trace comes to an end. Whether the user's goal was met is not known
here. The scales end at quantiles measured on 1,360 doctest sessions of the installed Python and its
packages (p5, p50, p95 in the comments), widened where the 200 airline conversations of tau-bench,
a real agent's, lie beyond them (tau).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mira_megatron.rubric.agent_features import AgentFeatures
from mira_megatron.rubric.verdict import Finding, balanced, scaled, scaled_log, unmeasurable

_DESTRUCTIVE = re.compile(
    r"rm -[a-zA-Z]{1,3} [/~]|DROP (?:TABLE|DATABASE)|git push (?:-f|--force)|mkfs\.|chmod -R 777"
)
_CLOSING_MARKS = ("###stop###", "thank", "bye", "that's all", "that is all")
_UNSHOWN_SCORE = 6  # the best ending when the last result says nothing or reports an error
_RECOVERED_WEIGHT = 0.5  # of an error that a later call made good
_SEVERAL_VALUES_SCORE = 3  # the best for JSON values in a row, which no tool can be called with

Rule = Callable[[AgentFeatures], Finding]


def _call_validity(features: AgentFeatures) -> Finding:
    trace = features.trace
    if not trace.calls:
        return unmeasurable("no tool call")
    num_valid = sum(
        call.is_valid and bool(call.name) and result is not None
        for call, result in zip(trace.calls, trace.results, strict=True)
    )
    num_joined = sum(call.num_values > 1 for call in trace.calls)
    num_stray = trace.num_orphan_results + trace.num_early_messages
    score = max(0, scaled(num_valid / len(trace.calls), worst=0.5, best=1) - min(5, num_stray))
    return Finding(
        score=min(score, _SEVERAL_VALUES_SCORE) if num_joined else score,
        reason=f"{num_valid} of {len(trace.calls)} tool calls have a name, one JSON object as "
        f"arguments and a result; {num_joined} have several JSON values in a row; {num_stray} "
        "results without a call or messages before a result",
    )


def _success(features: AgentFeatures) -> Finding:
    results = features.trace.results
    num_results = sum(result is not None for result in results)
    if not num_results:
        return unmeasurable("no tool result")
    failed = [index for index, has_failed in enumerate(features.failures) if has_failed]
    last_success = max(
        (
            index
            for index, result in enumerate(results)
            if result is not None and not features.failures[index]
        ),
        default=-1,
    )
    num_recovered = sum(index < last_success for index in failed)
    loss = len(failed) - num_recovered + _RECOVERED_WEIGHT * num_recovered
    return Finding(
        score=max(0, scaled(loss / num_results, worst=0.5, best=0) - 2 * features.num_retries),
        reason=f"{len(failed)} of {num_results} tool results report an error, {num_recovered} of "
        f"them before a later success; {features.num_retries} failed calls were made again "
        "unchanged",
    )


def _grounding(features: AgentFeatures) -> Finding:
    num_words = sum(call.num_argument_words for call in features.trace.calls)
    if not num_words:
        return unmeasurable("no words in tool arguments")
    num_grounded = sum(call.num_grounded_words for call in features.trace.calls)
    return Finding(
        # p5 0.09, p50 0.35, p95 0.73; tau p50 0.94
        score=scaled(num_grounded / num_words, worst=0.1, best=0.9),
        reason=f"{num_grounded} of {num_words} words in tool arguments occur earlier in a message "
        "or result",
    )


def _use_of_results(features: AgentFeatures) -> Finding:
    later = features.trace.calls[1:]
    if not later:
        return unmeasurable("fewer than two tool calls")
    num_using = sum(call.num_resulting_words > 0 for call in later)
    return Finding(
        score=scaled(num_using / len(later), worst=0, best=0.6),  # p75 0.1, p95 0.5; tau p50 0.5
        reason=f"{num_using} of {len(later)} later calls use a word that an earlier result brought",
    )


def _call_variety(features: AgentFeatures) -> Finding:
    later = features.trace.calls[1:]
    num_words = sum(call.num_argument_words for call in later)
    if not num_words:
        return unmeasurable("fewer than two tool calls with words")
    num_new = sum(call.num_new_words for call in later)
    return Finding(
        score=scaled(num_new / num_words, worst=0.15, best=0.85),  # p5 0.17, p50 0.5, p95 0.82
        reason=f"{num_new} of {num_words} words in later calls are in no earlier one; "
        f"{sum(features.repeats)} calls repeat an earlier one exactly",
    )


def _call_substance(features: AgentFeatures) -> Finding:
    calls = features.trace.calls
    if not calls:
        return unmeasurable("no tool call")
    per_call = sum(call.num_argument_words for call in calls) / len(calls)
    return Finding(
        score=balanced(per_call, least=1, low=9, high=25, most=100),  # p5 3, p50 6, p95 10; tau 24
        reason=f"{per_call:.1f} words in the arguments of a tool call",
    )


def _steps(features: AgentFeatures) -> Finding:
    num_calls = len(features.trace.calls)
    return Finding(
        score=balanced(num_calls, least=0, low=7, high=15, most=50),  # p5 1, p50 5, p95 12; tau 14
        reason=f"{num_calls} tool calls",
    )


def _informative_results(features: AgentFeatures) -> Finding:
    results = features.trace.results
    if not results:
        return unmeasurable("no tool call")
    num_informative = sum(bool(result and result.strip()) for result in results)
    return Finding(
        score=scaled(num_informative / len(results), worst=0, best=1),  # p5 0, p50 0.4, p95 1
        reason=f"{num_informative} of {len(results)} tool calls show a result",
    )


def _result_size(features: AgentFeatures) -> Finding:
    sizes = [len(result.split()) for result in features.trace.results if result and result.strip()]
    if not sizes:
        return unmeasurable("no tool result that says anything")
    mean_words = sum(sizes) / len(sizes)
    return Finding(
        # p25 1, p50 3, p75 6, p95 16; tau p50 54, p95 97
        score=balanced(mean_words, least=0, low=10, high=100, most=500),
        reason=f"{len(sizes)} results of {mean_words:.1f} words on average",
    )


def _explanation(features: AgentFeatures) -> Finding:
    calls = features.trace.calls
    if not calls:
        return unmeasurable("no tool call")
    num_explained = sum(call.has_text for call in calls)
    return Finding(
        score=scaled(num_explained / len(calls), worst=0, best=0.5),  # p75 0, p95 0.25; tau p90 0.3
        reason=f"{num_explained} of {len(calls)} tool calls come with words of explanation",
    )


def _request_specificity(features: AgentFeatures) -> Finding:
    num_words = features.asked.words.num_content_terms
    return Finding(
        score=scaled_log(num_words, worst=9, best=90),  # p5 9, p50 28, p95 92
        reason=f"{num_words} different words of four letters or more from the user",
    )


def _communication(features: AgentFeatures) -> Finding:
    spoken = features.trace.spoken
    if not spoken:
        return Finding(score=0, reason="the assistant never says anything")
    mean_words = features.spoken.words.num_words / len(spoken)
    by_least = scaled_log(mean_words, worst=5, best=40)  # p5 5, p50 7, p90 26; tau p50 50
    return Finding(
        score=min(by_least, scaled(mean_words, worst=600, best=150)),
        reason=f"{len(spoken)} assistant messages of {mean_words:.0f} words on average",
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


def _task_closure(features: AgentFeatures) -> Finding:
    trace = features.trace
    if trace.last_role == "assistant" and any(result is None for result in trace.results):
        return Finding(score=1, reason="the trace ends on a tool call without a result")
    score, reason = _ending(features)
    shown = [bool(result and result.strip()) for result in trace.results]
    if not shown or (shown[-1] and not features.failures[-1]):
        return Finding(score=score, reason=reason)
    return Finding(
        score=min(score, _UNSHOWN_SCORE),
        reason=f"{reason}; the last tool result {'reports an error' if shown[-1] else 'is empty'}",
    )


def _ending(features: AgentFeatures) -> tuple[int, str]:
    last_user = features.trace.users[-1].lower() if features.trace.users else ""
    match features.trace.last_role:
        case "assistant":
            return 10, "the trace ends with an assistant message"
        case "user" if any(mark in last_user for mark in _CLOSING_MARKS):
            return 9, "the user closes the conversation"
        case "user":
            return 3, "the last user message has no answer"
        case role:
            return 4, f"the trace ends with a {role[:20]!r} message"


RULES: tuple[tuple[str, Rule], ...] = (
    ("Tool Call Validity", _call_validity),
    ("Result Success & Recovery", _success),
    ("Tool Argument Grounding", _grounding),
    ("Use of Results", _use_of_results),
    ("Call Variety", _call_variety),
    ("Call Substance", _call_substance),
    ("Step Count", _steps),
    ("Informative Results", _informative_results),
    ("Result Size Balance", _result_size),
    ("Explanation Before Calls", _explanation),
    ("Request Specificity", _request_specificity),
    ("User-Facing Communication Clarity", _communication),
    ("Trace Non-Repetition", _non_repetition),
    ("Safety & Scope", _safety),
    ("Task Closure", _task_closure),
)
