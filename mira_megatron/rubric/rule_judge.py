"""The rule judge: a deterministic judge that scores what can be counted, and says the counts.

It stands in for a teacher where there is no network and no GPU: fifteen dimensions per family, each
0-10 with a rationale that quotes its measurement. What cannot be measured on a record is None with
the reason. It never runs or believes anything a record says, and never claims to see correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import orjson

from mira_megatron.records import FAMILIES
from mira_megatron.rubric import rules_agent, rules_qa, rules_text
from mira_megatron.rubric.agent_features import measure_agent
from mira_megatron.rubric.qa_features import measure_qa
from mira_megatron.rubric.text_features import measure_text
from mira_megatron.rubric.verdict import Finding, Verdict, unmeasurable

# Raised when any rule or scale changes: ratings are told apart by it.
MODEL_NAME = "rule-judge-1"

Features = TypeVar("Features")
Rules = tuple[tuple[str, Callable[[Features], Finding]], ...]

# Overall is 0-100. Of the 3,171 records of the demo corpus a tenth lies below the first and the
# next quarter below the second; selection reads neither.
_DROP_BELOW = 43.0
_DOWNSAMPLE_BELOW = 56.0


def anchor_names(family: str) -> tuple[str, ...]:
    """Returns the fifteen dimensions of a family in slot order; ValueError for another family."""
    match family:
        case "text":
            return _names(rules_text.RULES)
        case "qa":
            return _names(rules_qa.RULES)
        case "qa_with_think":
            return _names(rules_qa.THINK_RULES)
        case "agent":
            return _names(rules_agent.RULES)
        case _:
            raise ValueError(f"family={family!r} must be one of {', '.join(FAMILIES)}")


def judge(family: str, view: str) -> Verdict:
    """Returns the verdict of a record's view (see `prompts.record_view`), slots as anchor_names.

    A view that does not hold what its family needs gets no scores, and the reason in every slot.
    """
    names = anchor_names(family)
    try:
        tag, subject, findings = _findings(family, view)
    except ValueError as error:
        return _summarise(names, [unmeasurable(str(error))] * len(names), family, str(error))
    return _summarise(names, findings, tag, subject)


def _findings(family: str, view: str) -> tuple[str, str, list[Finding]]:
    """Returns a domain tag, what the record is in a few words, and the findings in slot order."""
    match family:
        case "text":
            text = measure_text(view)
            subject = f"{text.kind} of {text.lines.num_lines} lines, {text.words.num_words} words"
            return text.kind, subject, _apply(rules_text.RULES, text)
        case "agent":
            agent = measure_agent(_payload(view))
            num_calls, num_users = len(agent.trace.calls), len(agent.trace.users)
            tag = "agent/tool-calling" if num_calls else "agent/chat"
            subject = f"trace of {num_calls} tool calls and {num_users} user messages"
            return tag, subject, _apply(rules_agent.RULES, agent)
        case _:
            has_think = family == "qa_with_think"
            pair = measure_qa(_payload(view), has_think=has_think)
            num_words = pair.answer.features.words.num_words
            num_equations = pair.answer.equations.num_checked + pair.think.equations.num_checked
            has_code = (
                pair.answer.features.prose is None or pair.answer.features.snippets.num_closed > 0
            )
            topic = "math" if num_equations else "code" if has_code else "general"
            rules = rules_qa.THINK_RULES if has_think else rules_qa.RULES
            return f"qa/{topic}", f"answer of {num_words} words", _apply(rules, pair)


def _payload(view: str) -> object:
    try:
        return orjson.loads(view)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the payload is not JSON ({error.msg})") from error


def _names(rules: Rules[Features]) -> tuple[str, ...]:
    return tuple(name for name, _ in rules)


def _apply(rules: Rules[Features], features: Features) -> list[Finding]:
    return [rule(features) for _, rule in rules]


def _summarise(
    names: Sequence[str], findings: Sequence[Finding], tag: str, subject: str
) -> Verdict:
    measured = [
        (finding.score, name)
        for finding, name in zip(findings, names, strict=True)
        if finding.score is not None
    ]
    overall = (
        round(10 * sum(score for score, _ in measured) / len(measured), 1) if measured else None
    )
    weakest = ", ".join(f"{name} {score}/10" for score, name in sorted(measured)[:2])
    return Verdict(
        scores=tuple(finding.score for finding in findings),
        rationales=tuple(finding.reason for finding in findings),
        overall=overall,
        training_recommendation=_recommendation(overall),
        domain_tag=tag,
        brief=f"{subject}; weakest: {weakest}" if weakest else f"nothing measurable: {subject}",
    )


def _recommendation(overall: float | None) -> str:
    if overall is None or overall < _DROP_BELOW:
        return "drop"
    return "downsample" if overall < _DOWNSAMPLE_BELOW else "keep"
