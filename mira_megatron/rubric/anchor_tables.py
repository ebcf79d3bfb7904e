"""A group's rubric for people: as a table in the terminal, and as a page of Markdown.

Names and reasons are a model's words. In Markdown every character that could be markup is escaped;
in the terminal they are plain text, in which square brackets mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from mira_megatron.records import Anchor
from mira_megatron.written_numbers import MISSING, grouped, percent
from mira_megatron.written_tables import markdown_table, markdown_text, terminal_table

_HEADINGS = (
    "Slot",
    "Part",
    "Name",
    "Judgments",
    "Share",  # of the group's judgments
    "Stable",  # share of the resamples in which some cluster got the same name
    "References",  # their scores
    "Also called",
)
_FOLDED = ("Name", "Also called")
_NUMBERS = ("Judgments", "Share", "Stable")


def slot_rows(anchors: Sequence[Anchor], clusters: Mapping[str, Any] | None) -> list[list[str]]:
    """Returns a row per slot, headings first; columns without a value are left out.

    `clusters` is the clusters.json of these anchors, if there is one.
    """
    whole = sum(anchor.cluster_size or 0 for anchor in anchors)
    slots = clusters.get("slots", ()) if clusters else ()
    shares = {slot["anchor_id"]: slot["name_share"] for slot in slots}
    rows = [
        [
            anchor.anchor_id,
            anchor.part or "",
            anchor.name,
            grouped(anchor.cluster_size),
            percent(anchor.cluster_size, whole),
            _share(shares.get(anchor.anchor_id)),
            " ".join(f"{reference.score:g}" for reference in anchor.references),
            ", ".join(f"{name} ({count:,})" for name, count in anchor.aliases),
        ]
        for anchor in anchors
    ]
    columns = zip(_HEADINGS, *rows, strict=True)
    filled = [column for column in columns if any(cell not in ("", MISSING) for cell in column[1:])]
    return [list(row) for row in zip(*filled, strict=True)]


def rubric_table(
    title: str, anchors: Sequence[Anchor], clusters: Mapping[str, Any] | None
) -> Group:
    """Returns the rubric for the terminal, followed by what is to be known about it."""
    headings, *rows = slot_rows(anchors, clusters)
    table = terminal_table(f"{title}  {anchors[0].rubric_version}")
    for heading in headings:
        is_folded = heading in _FOLDED
        table.add_column(
            heading,
            justify="right" if heading in _NUMBERS else "left",
            overflow="fold" if is_folded else "ellipsis",
            no_wrap=not is_folded,
            min_width=len(heading) if not is_folded else 16,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return Group(table, *(Text(note) for note in notes(clusters)))


def rubric_markdown(
    title: str, anchors: Sequence[Anchor], clusters: Mapping[str, Any] | None
) -> str:
    """Returns the rubric as a page: table, notes, and each slot's medoid and references."""
    headings, *rows = slot_rows(anchors, clusters)
    shown = [f"- {markdown_text(note)}" for note in notes(clusters)]
    return "\n".join(
        [
            f"# {markdown_text(title)}",
            "",
            f"Version {markdown_text(anchors[0].rubric_version)}.",
            "",
            *markdown_table(headings, [list(map(markdown_text, row)) for row in rows]),
            "",
            *([*shown, ""] if shown else []),
            *(line for anchor in anchors for line in _anchor_section(anchor)),
        ]
    )


def notes(clusters: Mapping[str, Any] | None) -> list[str]:
    """Returns what the clusters say beside the table: stability, and slots that are nearly one."""
    if not clusters or "slots" not in clusters:
        return []
    founders = ", ".join(clusters["founders"])
    found = [f"Found in {clusters['num_judgments']:,} judgments of {founders}."]
    for part, resamples in clusters["resamples"].items():
        rands = [one["adjusted_rand"] for one in resamples if one["adjusted_rand"] is not None]
        if rands:
            of_part = "" if part == "all" else f" ({part})"
            found.append(
                f"Stable{of_part}: how often one of {len(rands)} resamples of the records gave a "
                f"cluster of that name. Adjusted Rand index of the clusters: "
                f"{min(rands):.2f} to {max(rands):.2f}; 1 is the same clusters, 0 chance."
            )
    for pair in clusters["near_duplicates"]:
        (one, other), (name, other_name) = pair["anchor_ids"], pair["names"]
        found.append(
            f"Near duplicates: {one} {name} and {other} {other_name} (cosine {pair['cosine']:.2f})"
        )
    return found


def _anchor_section(anchor: Anchor) -> list[str]:
    if anchor.medoid is None and not anchor.references and anchor.description is None:
        return []
    lines = [f"## {anchor.anchor_id} {markdown_text(anchor.name)}", ""]
    if anchor.description is not None:
        lines += [markdown_text(anchor.description), ""]
    if anchor.medoid is not None:
        lines.append(
            f"- named by ({anchor.medoid.score:g}/10) {markdown_text(anchor.medoid.reason)}"
        )
    lines += [
        f"- {reference.level} ({reference.score:g}/10) {markdown_text(reference.reason)}"
        for reference in anchor.references
    ]
    return [*lines, ""]


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.0f}%"
