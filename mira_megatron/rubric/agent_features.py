"""What can be counted on a tool-calling trace."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mira_megatron.rubric.agent_trace import Trace, read_trace
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


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFeatures:
    """All that the agent rules may look at."""

    trace: Trace
    failures: tuple[bool, ...]  # per call: its result reports an error
    repeats: tuple[bool, ...]  # per call: name and arguments as in an earlier call
    num_retries: int  # failed calls made again unchanged
    asked: TextFeatures  # all user texts, joined
    spoken: TextFeatures  # all assistant texts, joined
    done: TextFeatures  # all call arguments and results in turn, joined


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
    steps = zip(trace.calls, trace.results, strict=True)
    return AgentFeatures(
        trace=trace,
        failures=failures,
        repeats=tuple(repeats),
        num_retries=num_retries,
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
