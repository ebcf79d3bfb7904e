"""The rule judge: a deterministic judge that scores what can be counted, and says the counts.

It stands in for a teacher and a scorer where there is no network and no GPU: it proposes the
dimensions that a record stands out in, and rates records on any of its dimensions, each 0-10 with a
reason that quotes its measurement. What cannot be measured on a record is None with the reason. It
never runs or believes anything a record says, and never claims to see correctness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mira_megatron.records import FAMILIES, NUM_SLOTS, PARTS_OF_THINK
from mira_megatron.rubric import rules_agent, rules_qa, rules_text, rules_think
from mira_megatron.rubric.agent_features import AgentFeatures, measure_agent
from mira_megatron.rubric.dimension import Dimension
from mira_megatron.rubric.qa_features import QaFeatures, measure_qa
from mira_megatron.rubric.text_features import measure_text
from mira_megatron.rubric.verdict import Finding, Proposal, Verdict, unmeasurable

# Raised when any rule or scale changes: judgments and ratings are told apart by it.
MODEL_NAME = "rule-judge-2"

# Overall is 0-100. Of the records of the demo corpus a tenth lies below the first and the next
# quarter below the second (benchmarks/rule_judge_scales.py); selection reads neither.
_DROP_BELOW = 55.0
_DOWNSAMPLE_BELOW = 65.0

_DIMENSIONS: Mapping[str, Mapping[str, Dimension[Any]]] = {
    family: {dimension.name: dimension for dimension in dimensions}
    for family, dimensions in (
        ("text", rules_text.DIMENSIONS),
        ("qa", rules_qa.DIMENSIONS),
        ("qa_with_think", rules_think.DIMENSIONS),
        ("agent", rules_agent.DIMENSIONS),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Assessment:
    """Everything the judge knows about one record."""

    domain_tag: str
    subject: str  # what the record is, in a few words
    findings: Mapping[str, Finding]  # by dimension, all of the family's


def dimension_names(family: str) -> tuple[str, ...]:
    """Returns all dimensions the judge can measure; ValueError for an unknown family."""
    return tuple(_dimensions(family))


def check_names(family: str, names: Sequence[str]) -> None:
    """Raises ValueError where there is no name, or one that is no dimension of the family."""
    dimensions = _dimensions(family)
    unknown = sorted({name for name in names if name not in dimensions})
    if unknown or not names:
        fault = f"not {', '.join(map(repr, unknown))}" if unknown else "and was asked for none"
        raise ValueError(
            f"{MODEL_NAME} rates its own dimensions of family {family} only, {fault}. "
            f"Use anchors named {', '.join(dimensions)}, or another judge."
        )


def propose(family: str, view: str) -> tuple[Proposal, ...]:
    """Returns the dimensions that tell most about a record, the most telling first.

    At most 15; of qa_with_think at most five of each part, part by part. Nothing for a view that
    does not hold what its family needs.
    """
    dimensions = _dimensions(family)
    findings = _assess(family, view).findings
    parts = PARTS_OF_THINK if family == "qa_with_think" else (None,)
    chosen: list[Proposal] = []
    for part in parts:
        told = [
            (abs(finding.score - dimension.usual), _proposal(dimension, finding.score, finding))
            for dimension, finding in zip(dimensions.values(), findings.values(), strict=True)
            if dimension.part == part and finding.score is not None
        ]
        # The sort is stable: among equals, the order of the family's table.
        told.sort(key=lambda entry: -entry[0])
        chosen += [proposal for _, proposal in told[: NUM_SLOTS // len(parts)]]
    return tuple(chosen)


def rate(family: str, view: str, names: Sequence[str]) -> Verdict:
    """Returns the verdict of a record's view, slots in the order of `names`, which may repeat.

    Overall, recommendation and brief are about the record, whatever is asked for. A view that does
    not hold what its family needs gets no scores, and the reason in every slot.

    Raises ValueError for names that `check_names` refuses.
    """
    check_names(family, names)
    assessment = _assess(family, view)
    asked = [assessment.findings[name] for name in names]
    overall = _overall(family, assessment.findings)
    return Verdict(
        scores=tuple(finding.score for finding in asked),
        rationales=tuple(finding.reason for finding in asked),
        overall=overall,
        training_recommendation=_recommendation(overall),
        domain_tag=assessment.domain_tag,
        brief=_brief(assessment),
    )


def _dimensions(family: str) -> Mapping[str, Dimension[Any]]:
    if family not in _DIMENSIONS:
        raise ValueError(f"family={family!r} must be one of {', '.join(FAMILIES)}")
    return _DIMENSIONS[family]


def _proposal(dimension: Dimension[Any], score: float, finding: Finding) -> Proposal:
    return Proposal(
        part=dimension.part, dimension=dimension.name, score=score, reason=finding.reason
    )


def _assess(family: str, view: str) -> _Assessment:
    try:
        tag, subject, features = _measured(family, view)
    except ValueError as error:
        fault = unmeasurable(str(error))
        return _Assessment(
            domain_tag=family,
            subject=str(error),
            findings=dict.fromkeys(_dimensions(family), fault),
        )
    return _Assessment(
        domain_tag=tag,
        subject=subject,
        findings={
            name: dimension.rule(features) for name, dimension in _dimensions(family).items()
        },
    )


def _measured(family: str, view: str) -> tuple[str, str, object]:
    """Returns a domain tag, what the record is in a few words, and its features."""
    match family:
        case "text":
            text = measure_text(view)
            subject = f"{text.kind} of {text.lines.num_lines} lines, {text.words.num_words} words"
            return text.kind, subject, text
        case "agent":
            agent = measure_agent(_payload(view))
            return *_about_agent(agent), agent
        case _:
            pair = measure_qa(_payload(view), has_think=family == "qa_with_think")
            return *_about_pair(pair), pair


def _about_agent(agent: AgentFeatures) -> tuple[str, str]:
    num_calls, num_users = len(agent.trace.calls), len(agent.trace.users)
    tag = "agent/tool-calling" if num_calls else "agent/chat"
    return tag, f"trace of {num_calls} tool calls and {num_users} user messages"


def _about_pair(pair: QaFeatures) -> tuple[str, str]:
    answer = pair.answer.features
    num_equations = pair.answer.equations.num_checked + pair.think.equations.num_checked
    has_code = answer.prose is None or answer.snippets.num_closed > 0
    topic = "math" if num_equations else "code" if has_code else "general"
    return f"qa/{topic}", f"answer of {answer.words.num_words} words"


def _payload(view: str) -> object:
    try:
        return orjson.loads(view)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the payload is not JSON ({error.msg})") from error


def _overall(family: str, findings: Mapping[str, Finding]) -> float | None:
    """Returns the weighted mean of what could be measured, 0-100."""
    measured = [
        (dimension.weight, findings[name].score) for name, dimension in _dimensions(family).items()
    ]
    total = sum(weight * score for weight, score in measured if score is not None)
    weights = sum(weight for weight, score in measured if score is not None)
    return round(10 * total / weights, 1) if weights else None


def _brief(assessment: _Assessment) -> str:
    measured = sorted(
        (finding.score, name)
        for name, finding in assessment.findings.items()
        if finding.score is not None
    )
    weakest = ", ".join(f"{name} {score}/10" for score, name in measured[:2])
    subject = assessment.subject
    return f"{subject}; weakest: {weakest}" if weakest else f"nothing measurable: {subject}"


def _recommendation(overall: float | None) -> str:
    if overall is None or overall < _DROP_BELOW:
        return "drop"
    return "downsample" if overall < _DOWNSAMPLE_BELOW else "keep"
