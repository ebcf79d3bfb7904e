"""What `mira tokens merge` and `mira tokens materialise` say when they are done."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from mira_megatron.tokenization.merge import MergeInput, MergeReport


def print_merge(console: Console, report: MergeReport) -> None:
    """Prints the inputs in order, the result, and which side files it does without.

    Every path has a line of its own and is never cut: it is how inputs are told apart.
    """
    for part in report.inputs:
        _print_line(console, str(part.path_prefix))
        _print_line(console, f"  {'index view' if part.is_view else 'dataset'}: {_counts(part)}")
    made = "written" if report.is_new else "already there"
    _print_line(console, f"Output: {report.output_prefix}")
    _print_line(console, f"  {made}: {_counts(report)}")
    if report.records:
        _print_line(console, f"Records: {report.records}")
    for prefix in report.without_records:
        _print_line(console, f"No .records.parquet: {prefix} has none")


def _print_line(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)


def _counts(part: MergeInput | MergeReport) -> str:
    return f"{part.num_documents:,} documents, {part.num_tokens:,} tokens, {part.num_bytes:,} bytes"
