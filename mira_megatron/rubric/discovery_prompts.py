"""The free-form prompt, with no preset rubric, and its inverse for the judge server.

system  per family, from `prompt_files`: what the material is, how a dimension is given, the rules
user    the answer template, the fenced record, a closing line, as in the scoring prompt

The prompts name no dimension, not even as an example. Anchors are the centres of clusters of what
the teacher answers; a name in the prompt would come back thousands of times and make a cluster of
its own, and the rubric would be ours and no longer found in the data. For the same reason they say
how to point at a record ("a name, a number or a place"), but not what to look for in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from mira_megatron.records import FAMILIES, NUM_SLOTS, PARTS_OF_THINK
from mira_megatron.rubric.prompts import (
    messages_key,
    prompt_text,
    split_user_message,
    user_message,
)

_VERSION = 1  # raised when the meaning of a prompt changes but its text does not

DIMENSION = "<dimension>"
REASON = "<reason>"

# Of a slot such as [T2]: which part of a record it judges; None for families without parts.
PART_BY_LETTER: Mapping[str, str | None] = {"D": None, "T": "think", "C": "combined", "Q": "qa"}


def discover_messages(family: str, view_text: str) -> tuple[dict[str, str], ...]:
    """Returns the chat messages that ask for the dimensions that decide one record's quality."""
    return (
        {"role": "system", "content": _system_message(family)},
        {"role": "user", "content": user_message(proposal_template(family), family, view_text)},
    )


@cache
def discover_prompt_key(family: str) -> str:
    """Returns 16 hex digits that change whenever the texts sent, or their version, do."""
    return messages_key(_VERSION, discover_messages(family, "view"))


def record_from_discover_message(text: str) -> tuple[str, str]:
    """Returns family and view of the user message of `discover_messages`.

    Raises ValueError for any other text, and where the record was altered on its way.
    """
    template, family, view = split_user_message(text)
    if template != proposal_template(family):
        raise ValueError(f"the user message does not open with the template of family {family}")
    return family, view


@cache
def proposal_template(family: str) -> str:
    """Returns the lines of a free-form answer, blanks as <…>; ValueError for another family."""
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} must be one of {', '.join(FAMILIES)}")
    slots_per_part = NUM_SLOTS // len(PARTS_OF_THINK)
    has_parts = family == "qa_with_think"
    slots = [
        f"{letter}{number}"
        for letter, part in PART_BY_LETTER.items()
        if has_parts == (part is not None)
        for number in range(1, (slots_per_part if has_parts else NUM_SLOTS) + 1)
    ]
    return "\n".join(f"[{slot}] {DIMENSION}: <score>/10 — {REASON}" for slot in slots)


@cache
def _system_message(family: str) -> str:
    rules = {name: prompt_text(name) for name in ("discover_rules", "record_rules")}
    return prompt_text(f"discover_{family}").format(**rules).rstrip("\n")
