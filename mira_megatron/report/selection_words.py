"""How an arm chose, in sentences: what its certificate has beside rank and budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mira_megatron.retention.arms import NULLS_MEDIAN, NULLS_SHARE
from mira_megatron.retention.unlike_masks import in_words
from mira_megatron.written_numbers import grouped

_DENIED = "denied_by_"
_OF_NULLS = {
    NULLS_SHARE: "Records without a score are kept at random, in the proportion in which scored "
    "ones of their source are.",
    NULLS_MEDIAN: "Records without a score are ranked at the lower median of their source’s "
    "candidates.",
}


def selection_sentences(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns how the budget was shared, what was a candidate, and what else decided."""
    sources = certificate["sources"]

    def named(how: str) -> str:
        return ", ".join(source for source, decided in sources.items() if decided["how"] == how)

    def bounds(name: str) -> str:
        found = {source: decided.get(name) for source, decided in sources.items()}
        return ", ".join(
            f"{source} {_tokens(tokens)}" for source, tokens in found.items() if tokens
        )

    is_equal = certificate.get("shares", "proportional") == "equal"
    pinned, excluded, left_out = named("pinned"), named("excluded"), named("left_out")
    budget = _tokens(certificate["budget_tokens"])
    shared = f"What pinned sources leave of the {budget}" if pinned else f"The budget of {budget}"
    told = [
        f"{shared} is shared among the scopes "
        + ("in equal parts." if is_equal else "in proportion to their candidate tokens."),
        f"Candidates are all records but {'; '.join(_barred(certificate))}.",
        _OF_NULLS.get(certificate.get("nulls", ""), "Records without a score are not kept."),
    ]
    if certificate.get("unspent", "leave") != "leave":
        told.append("What a scope cannot spend goes to the others.")
    for text, found in (
        ("Pinned, kept whole", pinned),
        ("Excluded, not trained on", excluded),
        ("Left out, as they have no scores", left_out),
        ("Floors, reserved for a source’s best before anything is ranked", bounds("floor_tokens")),
        ("Caps, beyond which a source offers nothing", bounds("cap_tokens")),
    ):
        if found:
            told.append(f"{text}: {found}.")
    if certificate["repeat_times"] is not None:
        told.append(
            f"The best {certificate['repeat_fraction']:g} of the tokens kept in each scope are "
            f"seen {certificate['repeat_times']} times."
        )
    for group, of_group in certificate.get("unlike_masks", {}).items():
        told.append(
            f"Sources of {group} are ranked together under unlike reliability masks (masked: "
            f"{in_words(of_group)}): their scores are means over different anchors and not on one "
            "scale."
        )
    return tuple(told)


def _barred(certificate: Mapping[str, Any]) -> list[str]:
    """Returns what is no candidate of the arm, held-out records first."""
    told = ["those held out for validation and their repeats"]
    if certificate["without"]:
        told.append(f"those that {', '.join(certificate['without'])} keeps, and copies of them")
    masks = [
        name.removeprefix(_DENIED)
        for name in certificate.get("decisions", ())
        if name.startswith(_DENIED)
    ]
    if masks:
        noun = "mask" if len(masks) == 1 else "masks"
        told.append(f"those denied by the {noun} {', '.join(masks)}")
    if any(each["how"] in ("excluded", "left_out") for each in certificate["sources"].values()):
        told.append("those of sources that are not trained on")
    return told


def _tokens(number: int) -> str:
    return f"{grouped(number)} token" + ("" if number == 1 else "s")
