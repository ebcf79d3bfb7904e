"""What `mira tokens merge` and `mira tokens materialise` say when they are done."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mira_megatron.tokenization.merge import MergeInput, MergeReport


def print_merge(console: Console, report: MergeReport) -> None:
    """Prints the inputs in order, the result, and which side files it does without."""
    table = Table("Input", "Kind", "Documents", "Tokens", "Bytes")
    for column in table.columns[2:]:
        column.justify = "right"
    for part in report.inputs:
        kind = "index view" if part.is_view else "dataset"
        table.add_row(str(part.path_prefix), kind, *_counts(part))
    table.add_section()
    made = "written" if report.is_new else "already there"
    table.add_row(str(report.output_prefix), made, *_counts(report))
    console.print(table)
    if report.records:
        console.print(f"Records: {report.records}", soft_wrap=True)
    else:
        console.print(
            "No .records.parquet: "
            + ", ".join(f"{prefix} has none" for prefix in report.without_records),
            soft_wrap=True,
        )


def _counts(part: MergeInput | MergeReport) -> tuple[str, str, str]:
    return f"{part.num_documents:,}", f"{part.num_tokens:,}", f"{part.num_bytes:,}"
