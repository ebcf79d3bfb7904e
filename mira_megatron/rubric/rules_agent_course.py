"""Dimensions of tool-calling traces: how it went.

They see consequences: whether tools answered with errors and what was done next, whether calls led
anywhere, what the user said about it, how the trace ends. Whether the user's goal was met is not
known here, so refusing, handing over to a person and changing nothing count neither for a trace nor
against it: all three can be what the agent's instructions demand. Doctest sessions, on which the
scales of `rules_agent` are measured, hold few errors and no dialogue: the ends of the scales in
this file are this judge's choice.
"""

from __future__ import annotations

from mira_megatron.rubric.agent_features import AgentFeatures
from mira_megatron.rubric.verdict import Finding, quantified, scaled, unmeasurable

_CLOSING_MARKS = ("###stop###", "thank", "bye", "that's all", "that is all")
_UNSHOWN_SCORE = 6  # the best ending when the last result says nothing or reports an error
_SEVERAL_VALUES_SCORE = 3  # the best for JSON values in a row, which no tool can be called with
_UNCONFIRMED_SCORE = 3  # not every user wants to be asked


def call_validity(features: AgentFeatures) -> Finding:
    """Scores calls that a tool can take, each with its result."""
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
    whole = "tool calls have a name, one JSON object as arguments and a result"
    return Finding(
        score=min(score, _SEVERAL_VALUES_SCORE) if num_joined else score,
        reason=f"{quantified(num_valid, len(trace.calls), whole)}; {num_joined} have several JSON "
        f"values in a row; {num_stray} results without a call or messages before a result",
    )


def success(features: AgentFeatures) -> Finding:
    """Scores tool results that report no error."""
    num_results = sum(result is not None for result in features.trace.results)
    if not num_results:
        return unmeasurable("no tool result")
    num_failed = sum(features.outcomes.failures)
    return Finding(
        score=scaled(num_failed / num_results, worst=0.5, best=0),
        reason=quantified(num_failed, num_results, "tool results report an error"),
    )


def recovery(features: AgentFeatures) -> Finding:
    """Scores what is done about errors: another call of the same tool that works."""
    outcomes = features.outcomes
    num_failed = sum(outcomes.failures)
    if not num_failed:
        return unmeasurable("no tool result reports an error")
    by_share = scaled(outcomes.num_recovered / num_failed, worst=0, best=1)
    what = "failed calls are made good by a later call of the same tool"
    return Finding(
        score=max(0, by_share - 2 * outcomes.num_retries),
        reason=f"{quantified(outcomes.num_recovered, num_failed, what)}; {outcomes.num_retries} "
        "failed calls were made again unchanged",
    )


def efficiency(features: AgentFeatures) -> Finding:
    """Scores calls that are not made again for what is known already."""
    num_calls, num_idle = len(features.trace.calls), sum(features.outcomes.idle_repeats)
    if num_calls < 2:
        return unmeasurable("fewer than two tool calls")
    what = "tool calls repeat an earlier one unchanged and get the same result"
    return Finding(
        score=scaled(num_idle / num_calls, worst=0.3, best=0),
        reason=quantified(num_idle, num_calls, what),
    )


def follow_through(features: AgentFeatures) -> Finding:
    """Scores assistants that do what they announce, at once and not when asked again."""
    trace = features.trace
    if not trace.num_announcements:
        return unmeasurable("the assistant announces no step")
    num_idle = trace.num_idle_announcements
    what = "announced steps (I will now …, let me …) are followed by no tool call"
    return Finding(
        score=scaled(num_idle / trace.num_announcements, worst=1, best=0),
        reason=quantified(num_idle, trace.num_announcements, what),
    )


def corrections(features: AgentFeatures) -> Finding:
    """Scores conversations in which the user has nothing to put right."""
    num_later = len(features.trace.users) - 1
    if num_later < 1:
        return unmeasurable("fewer than two user messages")
    what = "later user messages say that something is wrong or was said before"
    return Finding(
        score=scaled(features.num_corrections / num_later, worst=0.5, best=0),
        reason=quantified(features.num_corrections, num_later, what),
    )


def change_success(features: AgentFeatures) -> Finding:
    """Scores changes that were tried and made; whether they were the right ones is not known."""
    outcomes = features.outcomes
    steps = zip(outcomes.changes, outcomes.failures, features.trace.results, strict=True)
    made = [
        result is not None and not has_failed
        for is_change, has_failed, result in steps
        if is_change
    ]
    if not made:
        return unmeasurable("no call of a tool that is named by a change it makes (update_…)")
    return Finding(
        score=scaled(sum(made) / len(made), worst=0.5, best=1),
        reason=quantified(sum(made), len(made), "calls that change something succeed"),
    )


def confirmation(features: AgentFeatures) -> Finding:
    """Scores changes that the user has agreed to just before."""
    calls = zip(features.trace.calls, features.outcomes.changes, strict=True)
    if len(features.trace.users) < 2:
        return unmeasurable("fewer than two user messages")
    asked = [
        is_confirmed
        for (_, is_change), is_confirmed in zip(calls, features.outcomes.confirmed, strict=True)
        if is_change
    ]
    if not asked:
        return unmeasurable("no call that changes something")
    what = "calls that change something follow a user message that agrees"
    return Finding(
        score=max(_UNCONFIRMED_SCORE, scaled(sum(asked) / len(asked), worst=0, best=1)),
        reason=quantified(sum(asked), len(asked), what),
    )


def closure(features: AgentFeatures) -> Finding:
    """Scores traces that come to an end, with a result to show."""
    trace = features.trace
    if trace.last_role == "assistant" and any(result is None for result in trace.results):
        return Finding(score=1, reason="the trace ends on a tool call without a result")
    score, reason = _ending(features)
    shown = [bool(result and result.strip()) for result in trace.results]
    if not shown or (shown[-1] and not features.outcomes.failures[-1]):
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
        case "tool" | "function" if features.outcomes.ends_on_handover:
            return 9, "the trace ends by handing the task over to a person"
        case "tool" | "function":
            return 4, "the trace ends with a tool result that nobody takes up"
        case _:
            return 4, "the trace ends with a message of an unusual role"
