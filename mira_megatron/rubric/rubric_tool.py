"""`mira rubric show | diff | freeze`: looking at a group's anchors, and editing them.

What is asked for is a file of anchors, a folder that holds anchors.jsonl (or a run folder, or any
folder between), or the name of a published table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from mira_megatron import layout
from mira_megatron.config import nearest
from mira_megatron.records import Anchor
from mira_megatron.rubric.anchor_diff import diff_markdown, diff_table, differences
from mira_megatron.rubric.anchor_files import (
    CLUSTERS,
    has_its_version,
    read_draft,
)
from mira_megatron.rubric.anchor_files import (
    freeze as freeze_file,
)
from mira_megatron.rubric.anchor_tables import rubric_markdown, rubric_table
from mira_megatron.rubric.given_anchors import PUBLISHED, published_names

_EDITED = "(edited; `mira rubric freeze` gives it a version)"


def show(console: Console, paths: Sequence[Path], *, markdown: bool = False) -> None:
    """Prints the rubric of every group that the paths hold."""
    for path in [file for given in paths for file in anchor_files(given)]:
        anchors = read_draft(path)
        clusters = _clusters(path, anchors)
        title = _title(path, anchors)
        if markdown:
            _print_lines(console, rubric_markdown(title, anchors, clusters))
        else:
            console.print(rubric_table(title, anchors, clusters))


def diff(console: Console, before: Path, after: Path, *, markdown: bool = False) -> None:
    """Prints what changed from one group's anchors to another version of them."""
    old_path, new_path = _one_file(before), _one_file(after)
    old, new = read_draft(old_path), read_draft(new_path)
    title = " → ".join(_version(anchors) for anchors in (old, new))
    found = differences(old, new)
    if markdown:
        _print_lines(console, diff_markdown(title, found))
    else:
        console.print(diff_table(title, found))


def freeze(console: Console, path: Path, *, output: Path | None = None) -> None:
    """Gives an edited file its version, and says what to do with it."""
    frozen = freeze_file(path, output)
    previous = frozen.previous_version or "no version"
    _print_lines(
        console,
        f"{frozen.path}: {previous} -> {frozen.rubric_version}\n"
        "Name it in the recipe as scorers.<group>.anchors_path and run again: that group is "
        "labelled and rated anew, and what it had is kept aside.",
    )


def anchor_files(given: Path) -> list[Path]:
    """Returns the anchor files that are meant; FileNotFoundError where there are none."""
    if given.is_file():
        return [given]
    if str(given) in published_names():
        return [PUBLISHED / f"{given}.jsonl"]
    for pattern in ("", "*/", "*/*/", "anchors/*/*/"):
        found = [
            path
            for path in sorted(given.glob(f"{pattern}{layout.ANCHORS}"))
            if ".superseded-" not in path.parent.name
        ]
        if found:
            return found
    tail = "" if given.parent != Path() else nearest(str(given), published_names())
    raise FileNotFoundError(
        f"{given}: no file of anchors, no folder with {layout.ANCHORS}, no published table.{tail}"
    )


def _one_file(given: Path) -> Path:
    found = anchor_files(given)
    if len(found) > 1:
        groups = ", ".join(path.parent.name for path in found)
        raise ValueError(f"{given}: holds the anchors of {groups}. Name one of these folders")
    return found[0]


def _title(path: Path, anchors: Sequence[Anchor]) -> str:
    name = path.parent.name if path.name == layout.ANCHORS else path.stem
    return name if has_its_version(anchors) else f"{name} {_EDITED}"


def _version(anchors: Sequence[Anchor]) -> str:
    version = anchors[0].rubric_version
    return version if has_its_version(anchors) else f"{version or 'no version'} {_EDITED}"


def _clusters(path: Path, anchors: Sequence[Anchor]) -> dict[str, Any] | None:
    """Returns what is known about the clusters; None for a file edited since, or kept elsewhere."""
    clusters = path.with_name(CLUSTERS)
    if path.name != layout.ANCHORS or not clusters.is_file() or not has_its_version(anchors):
        return None
    content: dict[str, Any] = orjson.loads(clusters.read_bytes())
    return content if content["rubric_version"] == anchors[0].rubric_version else None


def _print_lines(console: Console, text: str) -> None:
    # Neither wrapped nor coloured: a pipe and a browser get the same bytes.
    console.out(text, highlight=False)
