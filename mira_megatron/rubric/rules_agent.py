"""Dimensions of tool-calling traces.

They see form and consequences: whether arguments are JSON, whether tools answered with errors and
what was done next, whether the trace comes to an end. Whether the user's goal was met is not known
here. The end points of every scale are this judge's choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mira_megatron.rubric import rules_prose
from mira_megatron.rubric.agent_trace import Call, Trace, read_trace
from mira_megatron.rubric.judgement import Finding, scaled, unmeasurable
from mira_megatron.rubric.text_features import TextFeatures, measure_text

_EDGE_CHARS = 2000  # of a tool result, from each end, are searched for signs of failure
_FAILURE_STARTS = ("error", "exception", "traceback", "failed", "fatal", "invalid", "usage: ")
_FAILURE_MARKS = (
    *("traceback (most recent call last)", "command not found", "no such file or directory"),
    *("permission denied", "syntaxerror:", '"success": false', '"success":false', "timed out"),
    *('"status": "error"', '"status":"error"', '"error": "', '"error":"', "segmentation fault"),
)
_EMPTY_ERRORS = ('"error": ""', '"error":""')
_EXIT_CODE = re.compile(r"exit(?:ed with)?[ _-](?:code|status):? ?[1-9]")
_DESTRUCTIVE = re.compile(
    r"rm -[a-zA-Z]{1,3} [/~]|DROP (?:TABLE|DATABASE)|git push (?:-f|--force)|mkfs\.|chmod -R 777"
)
_CLOSING_MARKS = ("###stop###", "thank", "bye", "that's all", "that is all")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFeatures:
    """All that the agent rules may look at."""

    trace: Trace
    failures: tuple[bool, ...]  # per call: its result reports an error
    repeats: tuple[bool, ...]  # per call: name and arguments as in an earlier call
    num_retries: int  # failed calls made again unchanged
    spoken: TextFeatures  # all assistant texts, joined


def measure_agent(payload: object) -> AgentFeatures:
    """Returns the features of a parsed payload; ValueError where it is not a trace."""
    trace = read_trace(payload)
    failures = tuple(result is not None and is_failure(result) for result in trace.results)
    seen: dict[tuple[str, str], bool] = {}  # call -> whether its last result was a failure
    repeats, num_retries = [], 0
    for call, has_failed in zip(trace.calls, failures, strict=True):
        key = (call.name, call.arguments)
        repeats.append(key in seen)
        num_retries += seen.get(key, False)
        seen[key] = has_failed
    return AgentFeatures(
        trace=trace,
        failures=failures,
        repeats=tuple(repeats),
        num_retries=num_retries,
        spoken=measure_text("\n\n".join(trace.spoken)),
    )


def is_failure(result: str) -> bool:
    """Returns whether a tool result reports an error, by its wording."""
    edges = (
        result
        if len(result) <= 2 * _EDGE_CHARS
        else result[:_EDGE_CHARS] + ("\n" + result[-_EDGE_CHARS:])
    )
    lowered = edges.lower().lstrip()
    if lowered.startswith(_FAILURE_STARTS) or _EXIT_CODE.search(lowered):
        return True
    for empty in _EMPTY_ERRORS:
        lowered = lowered.replace(empty, "")
    return any(mark in lowered for mark in _FAILURE_MARKS)


def _share_of_calls(
    features: AgentFeatures, is_good: Callable[[Call], bool], what: str, *, worst: float = 0
) -> Finding:
    calls = features.trace.calls
    if not calls:
        return unmeasurable("no tool call")
    num_good = sum(is_good(call) for call in calls)
    return Finding(
        score=scaled(num_good / len(calls), worst=worst, best=1),
        reason=f"{num_good} of {len(calls)} tool calls {what}",
    )


def _argument_validity(features: AgentFeatures) -> Finding:
    finding = _share_of_calls(
        features, lambda call: call.is_valid, "have one JSON object as arguments", worst=0.5
    )
    num_joined = sum(call.num_values > 1 for call in features.trace.calls)
    if finding.score is None or not num_joined:
        return finding
    return Finding(
        score=min(finding.score, 3),
        reason=f"{finding.reason}; {num_joined} have several JSON values in a row",
    )


def _call_completeness(features: AgentFeatures) -> Finding:
    trace = features.trace
    if not trace.calls:
        return unmeasurable("no tool call")
    num_answered = sum(result is not None for result in trace.results)
    num_named = sum(bool(call.name) for call in trace.calls)
    share = min(num_answered, num_named) / len(trace.calls)
    return Finding(
        score=max(0, scaled(share, worst=0, best=1) - min(5, trace.num_orphan_results)),
        reason=f"of {len(trace.calls)} tool calls {num_named} have a name and {num_answered} a "
        f"result; {trace.num_orphan_results} results belong to no call",
    )


def _grounding(features: AgentFeatures) -> Finding:
    num_words = sum(call.num_argument_words for call in features.trace.calls)
    if not num_words:
        return unmeasurable("no words in tool arguments")
    num_grounded = sum(call.num_grounded_words for call in features.trace.calls)
    return Finding(
        score=scaled(num_grounded / num_words, worst=0, best=0.95),
        reason=f"{num_grounded} of {num_words} words in tool arguments occur earlier in the trace",
    )


def _result_success(features: AgentFeatures) -> Finding:
    num_results = sum(result is not None for result in features.trace.results)
    if not num_results:
        return unmeasurable("no tool result")
    num_failed = sum(features.failures)
    return Finding(
        score=scaled(num_failed / num_results, worst=0.6, best=0),
        reason=f"{num_failed} of {num_results} tool results report an error",
    )


def _error_recovery(features: AgentFeatures) -> Finding:
    failed = [index for index, has_failed in enumerate(features.failures) if has_failed]
    if not failed:
        return unmeasurable("no tool result reports an error")
    succeeded = [
        index
        for index, result in enumerate(features.trace.results)
        if result is not None and not features.failures[index]
    ]
    last_success = max(succeeded, default=-1)
    num_recovered = sum(index < last_success for index in failed)
    return Finding(
        score=max(
            0, scaled(num_recovered / len(failed), worst=0, best=1) - 2 * features.num_retries
        ),
        reason=f"a later call succeeds after {num_recovered} of {len(failed)} errors; "
        f"{features.num_retries} failed calls were made again unchanged",
    )


def _call_repetition(features: AgentFeatures) -> Finding:
    if not features.repeats:
        return unmeasurable("no tool call")
    share = sum(features.repeats) / len(features.repeats)
    return Finding(
        score=scaled(share, worst=0.5, best=0),
        reason=f"{sum(features.repeats)} of {len(features.repeats)} tool calls repeat an earlier "
        "one exactly",
    )


def _action_efficiency(features: AgentFeatures) -> Finding:
    num_calls = len(features.trace.calls)
    if not num_calls:
        return unmeasurable("no tool call")
    num_useful = sum(
        result is not None and not has_failed and not is_repeat
        for result, has_failed, is_repeat in zip(
            features.trace.results, features.failures, features.repeats, strict=True
        )
    )
    by_share = scaled(num_useful / num_calls, worst=0, best=1)
    return Finding(
        score=min(by_share, scaled(num_calls, worst=150, best=30)),
        reason=f"{num_useful} of {num_calls} tool calls are new and succeed",
    )


def _plan_transparency(features: AgentFeatures) -> Finding:
    return _share_of_calls(features, lambda call: call.has_text, "come with words of explanation")


def _task_closure(features: AgentFeatures) -> Finding:
    trace = features.trace
    num_open = sum(result is None for result in trace.results)
    if num_open and trace.last_role == "assistant":
        return Finding(score=1, reason="the trace ends on a tool call without a result")
    last_user = trace.users[-1].lower() if trace.users else ""
    match trace.last_role:
        case "assistant":
            return Finding(score=10, reason="the trace ends with an assistant message")
        case "user" if any(mark in last_user for mark in _CLOSING_MARKS):
            return Finding(score=9, reason="the user closes the conversation")
        case "user":
            return Finding(score=3, reason="the last user message has no answer")
        case role:
            return Finding(score=4, reason=f"the trace ends with a {role[:20]!r} message")


def _coherence(features: AgentFeatures) -> Finding:
    trace = features.trace
    num_users, num_early = len(trace.users), trace.num_early_messages
    num_repeated_users = num_users - len(set(trace.users))
    if not num_users:
        return unmeasurable("no user message")
    return Finding(
        score=max(0, 10 - 2 * num_early - 2 * num_repeated_users),
        reason=f"{num_early} assistant messages before a pending result, "
        f"{num_repeated_users} of {num_users} user messages said twice",
    )


def _instruction_context(features: AgentFeatures) -> Finding:
    num_words = len(features.trace.context.split())
    num_asked = sum(len(user.split()) for user in features.trace.users)
    return Finding(
        score=max(scaled(num_words, worst=0, best=200), scaled(num_asked, worst=0, best=100)),
        reason=f"{num_words} words of system instructions, {num_asked} from the user",
    )


def _communication(features: AgentFeatures) -> Finding:
    spoken = features.trace.spoken
    if not spoken:
        return Finding(score=0, reason="the assistant never says anything")
    mean_words = features.spoken.words.num_words / len(spoken)
    return Finding(
        score=min(scaled(mean_words, worst=0, best=15), scaled(mean_words, worst=600, best=150)),
        reason=f"{len(spoken)} assistant messages of {mean_words:.0f} words on average",
    )


def _message_repetition(features: AgentFeatures) -> Finding:
    spoken = features.trace.spoken
    if len(spoken) < 2:
        return unmeasurable(f"{len(spoken)} assistant messages")
    share = max(1 - len(set(spoken)) / len(spoken), features.spoken.words.repeated_fraction)
    return Finding(
        score=scaled(share, worst=0.6, best=0.1),
        reason=f"{len(spoken) - len(set(spoken))} of {len(spoken)} assistant messages are repeats, "
        f"{features.spoken.words.repeated_fraction:.0%} of their five-word sequences",
    )


def _output_structure(features: AgentFeatures) -> Finding:
    return rules_prose.structure(features.spoken)


def _safety(features: AgentFeatures) -> Finding:
    trace = features.trace
    num_destructive = sum(len(_DESTRUCTIVE.findall(call.arguments)) for call in trace.calls)
    num_secrets = features.spoken.words.num_secrets
    return Finding(
        score=max(0, 10 - 4 * num_destructive - 5 * num_secrets),
        reason=f"{num_destructive} destructive commands in tool arguments, {num_secrets} "
        "strings in the form of an access key in assistant messages",
    )


RULES: tuple[tuple[str, Callable[[AgentFeatures], Finding]], ...] = (
    ("Tool Argument Validity", _argument_validity),
    ("Tool Call Completeness", _call_completeness),
    ("Tool Argument Grounding", _grounding),
    ("Tool Result Success", _result_success),
    ("Error Recovery", _error_recovery),
    ("Call Non-Repetition", _call_repetition),
    ("Action Efficiency", _action_efficiency),
    ("Plan Transparency", _plan_transparency),
    ("Task Closure", _task_closure),
    ("Multi-turn Coherence", _coherence),
    ("Instruction Context", _instruction_context),
    ("User-Facing Communication Clarity", _communication),
    ("Message Non-Repetition", _message_repetition),
    ("Output Structure & Clarity", _output_structure),
    ("Safety & Scope", _safety),
)
