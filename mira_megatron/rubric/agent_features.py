"""What can be counted on a tool-calling trace."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mira_megatron.rubric.agent_trace import Trace, read_trace
from mira_megatron.rubric.text_features import TextFeatures, measure_text
from mira_megatron.rubric.tool_names import names_a_change, names_a_handover

_EDGE_CHARS = 2000  # of a tool result, from each end, are searched for signs of failure
_FAILURE_STARTS = ("error", "exception", "traceback", "failed", "fatal", "invalid", "usage: ")
_FAILURE_MARKS = (
    *("traceback (most recent call last)", "command not found", "no such file or directory"),
    *("permission denied", "syntaxerror:", '"success": false', '"success":false', "timed out"),
    *('"status": "error"', '"status":"error"', '"error": "', '"error":"', "segmentation fault"),
)
_EMPTY_ERRORS = ('"error": ""', '"error":""')
_EXIT_CODE = re.compile(r"exit(?:ed with)?[ _-](?:code|status):? ?[1-9]")
_AGREEMENT = re.compile(
    r"\b(?:yes|yeah|yep|sure|okay|ok|confirm(?:ed)?|proceed|go ahead|please do|correct|agreed?|"
    r"approved?|sounds good|looks good|that works)\b|确认|可以|好的|同意|是的"
)
# What the user says that the assistant got wrong; a mistake of the user's own is none.
_CORRECTION = re.compile(
    r"\b(?:not what i|(?:that|this|it|which)(?:'?s| is| was) (?:wrong|incorrect|not (?:right|"
    r"correct))|"
    r"you (?:misunderstood|got \w+ wrong|made a mistake)|must be a mistake|misunderstanding|"
    r"i already (?:said|told|gave|provided|mentioned)|as i (?:said|mentioned)|i told you|"
    r"still (?:not|doesn'?t|fails)|(?:didn'?t|doesn'?t|does not) work)|不对|错了|不是这"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOutcomes:
    """What came of the calls, one entry per call."""

    failures: tuple[bool, ...]  # its result reports an error
    repeats: tuple[bool, ...]  # name and arguments as in an earlier call
    idle_repeats: tuple[bool, ...]  # … and the same result as that one
    changes: tuple[bool, ...]  # its name says that it changes something
    confirmed: tuple[bool, ...]  # the user's last message before it agrees
    ends_on_handover: bool  # the last call passes the task on to a person
    num_retries: int  # failed calls made again unchanged
    num_recovered: int  # failures after which the same tool succeeds


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFeatures:
    """All that the agent rules may look at."""

    trace: Trace
    outcomes: ToolOutcomes
    num_corrections: int  # user messages after the first that say something is wrong
    asked: TextFeatures  # all user texts, joined
    spoken: TextFeatures  # all assistant texts, joined
    done: TextFeatures  # all call arguments and results in turn, joined


def measure_agent(payload: object) -> AgentFeatures:
    """Returns the features of a parsed payload; ValueError where it is not a trace."""
    trace = read_trace(payload)
    steps = zip(trace.calls, trace.results, strict=True)
    return AgentFeatures(
        trace=trace,
        outcomes=_outcomes(trace),
        num_corrections=sum(map(_is_correction, trace.users[1:])),
        asked=measure_text("\n\n".join(trace.users)),
        spoken=measure_text("\n\n".join(trace.spoken)),
        done=measure_text("\n\n".join(f"{call.text}\n{result or ''}" for call, result in steps)),
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


def _outcomes(trace: Trace) -> ToolOutcomes:
    failures = tuple(result is not None and is_failure(result) for result in trace.results)
    last: dict[tuple[str, str], int] = {}  # call -> index of its latest occurrence
    last_success: dict[str, int] = {}  # tool -> index of its latest call without an error
    repeats, idle_repeats, num_retries = [], [], 0
    for index, (call, result) in enumerate(zip(trace.calls, trace.results, strict=True)):
        before = last.get((call.name, call.arguments))
        repeats.append(before is not None)
        idle_repeats.append(before is not None and trace.results[before] == result)
        num_retries += before is not None and failures[before]
        last[call.name, call.arguments] = index
        if result is not None and not failures[index]:
            last_success[call.name] = index
    named = zip(trace.calls, failures, strict=True)
    return ToolOutcomes(
        failures=failures,
        repeats=tuple(repeats),
        idle_repeats=tuple(idle_repeats),
        changes=tuple(names_a_change(call.name) for call in trace.calls),
        confirmed=tuple(_is_confirmed(trace, call.num_users) for call in trace.calls),
        ends_on_handover=bool(trace.calls) and names_a_handover(trace.calls[-1].name),
        num_retries=num_retries,
        num_recovered=sum(
            has_failed and last_success.get(call.name, -1) > index
            for index, (call, has_failed) in enumerate(named)
        ),
    )


def _is_confirmed(trace: Trace, num_users: int) -> bool:
    return num_users > 1 and _AGREEMENT.search(trace.users[num_users - 1].lower()) is not None


def _is_correction(text: str) -> bool:
    return _CORRECTION.search(text.lower().replace("’", "'")) is not None
