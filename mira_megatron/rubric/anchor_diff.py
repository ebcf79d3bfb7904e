"""What changed between two versions of a rubric, slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from mira_megatron.records import Anchor
from mira_megatron.written_numbers import grouped
from mira_megatron.written_tables import markdown_table, markdown_text, terminal_table

_HEADINGS = ("Before", "After", "Change", "Name", "Judgments before", "Judgments after")


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One slot in both versions, or in one of them."""

    before: Anchor | None
    after: Anchor | None

    @property
    def change(self) -> str:
        """Returns what happened: same, moved, renamed, added or removed, and what else did."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        is_moved = self.before.anchor_id != self.after.anchor_id
        changes = [
            *(["moved"] if is_moved else []),
            *(["renamed"] if self.before.name != self.after.name else []),
            *(
                field
                for field in ("description", "references")
                if getattr(self.before, field) != getattr(self.after, field)
            ),
        ]
        return ", ".join(changes) or "same"

    @property
    def name(self) -> str:
        """Returns the name, or both where it changed."""
        names = [side.name for side in (self.before, self.after) if side is not None]
        return " → ".join(dict.fromkeys(names))


def differences(before: Sequence[Anchor], after: Sequence[Anchor]) -> list[Difference]:
    """Returns every slot of both versions once, in the order of the later one, removed ones last.

    Slots belong together that have one name: at the same place first, then in order. What is left
    over at the same place was renamed; what is left after that was added or removed.
    """
    open_before, open_after = list(range(len(before))), list(range(len(after)))
    partner: dict[int, int] = {}

    def pair(*, same_name: bool, same_slot: bool) -> None:
        for new in list(open_after):
            for old in open_before:
                is_named_so = before[old].name == after[new].name or not same_name
                if is_named_so and (old == new or not same_slot):
                    partner[new] = old
                    open_before.remove(old)
                    open_after.remove(new)
                    break

    pair(same_name=True, same_slot=True)
    pair(same_name=True, same_slot=False)
    pair(same_name=False, same_slot=True)
    found = [
        Difference(before=before[partner[new]] if new in partner else None, after=anchor)
        for new, anchor in enumerate(after)
    ]
    return [*found, *(Difference(before=before[old], after=None) for old in open_before)]


def diff_table(title: str, found: Sequence[Difference]) -> Table:
    """Returns the differences for the terminal."""
    table = terminal_table(title)
    for heading in _HEADINGS:
        is_number = heading.startswith("Judgments")
        table.add_column(
            heading.replace(" ", "\n"),
            justify="right" if is_number else "left",
            overflow="fold",
            min_width=20 if heading == "Name" else None,
        )
    for row in map(_cells, found):
        table.add_row(*map(Text, row), style="dim" if row[2] == "same" else "")
    return table


def diff_markdown(title: str, found: Sequence[Difference]) -> str:
    """Returns the differences as Markdown."""
    rows = [list(map(markdown_text, _cells(difference))) for difference in found]
    return "\n".join([f"# {markdown_text(title)}", "", *markdown_table(_HEADINGS, rows), ""])


def _cells(difference: Difference) -> tuple[str, ...]:
    before, after = difference.before, difference.after
    return (
        before.anchor_id if before else "",
        after.anchor_id if after else "",
        difference.change,
        difference.name,
        grouped(before.cluster_size) if before else "",
        grouped(after.cluster_size) if after else "",
    )
