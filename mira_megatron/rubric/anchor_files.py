"""A group's anchors on disk: anchors.jsonl, one line per slot, A1 first.

Each line has the fields of `records.Anchor`, and all lines one `rubric_version`:
`<name>-<8 hex digits>`, the digits a digest of everything but the versions themselves. So a file
that was edited by hand is told by its version, and `mira rubric freeze` gives it a new one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from mira_megatron.atomic_files import write_bytes
from mira_megatron.manifest import MANIFEST
from mira_megatron.records import NUM_SLOTS, Anchor
from mira_megatron.rubric.anchor_json import anchor_from_json, check_parts, json_line
from mira_megatron.shards import json_digest

CLUSTERS = "clusters.json"  # beside anchors.jsonl: what the anchor stage knows about its clusters

_VERSION_DIGITS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VERSION = re.compile(rf"({_NAME.pattern})-[0-9a-f]{{{_VERSION_DIGITS}}}")
_NO_VERSION = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frozen:
    """An edited file that got a version of its own."""

    path: Path
    rubric_version: str
    previous_version: str | None  # None: the file had none


def read_anchors(path: Path) -> tuple[Anchor, ...]:
    """Returns the anchors of a file whose version fits its content.

    Raises FileNotFoundError, or ValueError with the file, the line and what was expected.
    """
    anchors = read_draft(path)
    expected = [f"A{slot}" for slot in range(1, NUM_SLOTS + 1)]
    found = [anchor.anchor_id for anchor in anchors]
    fault = None
    if found != expected:
        fault = f"its slots are {', '.join(found)}; expected A1..A{NUM_SLOTS} in this order"
    elif not has_its_version(anchors):
        versions = ", ".join(sorted({anchor.rubric_version or "null" for anchor in anchors}))
        fault = f"its rubric_version ({versions}) does not fit its content"
    if fault:
        raise ValueError(
            f"{path}: {fault}. If it was edited, give it a version of its own: "
            f"`mira rubric freeze {path} --output NEW.jsonl`"
        )
    return anchors


def has_its_version(anchors: Sequence[Anchor]) -> bool:
    """Returns whether all anchors bear the one version that fits what they say."""
    version = _VERSION.fullmatch(anchors[0].rubric_version)
    return version is not None and {anchor.rubric_version for anchor in anchors} == {
        version_of(version[1], anchors)
    }


def read_draft(path: Path) -> tuple[Anchor, ...]:
    """Returns the anchors of a file that may have been edited: any ids, any version or none.

    Raises FileNotFoundError, or ValueError where the content of a line cannot be an anchor.
    """
    lines = path.read_bytes().split(b"\n")
    rows = {f"{path}:{number}": line for number, line in enumerate(lines, 1) if line.strip()}
    if len(rows) != NUM_SLOTS:
        raise ValueError(f"{path}: {len(rows)} anchors; expected {NUM_SLOTS}, one per line")
    anchors = [anchor_from_json(json_line(line, where), where) for where, line in rows.items()]
    check_parts(anchors, str(path))
    return tuple(anchors)


def write_anchors(path: Path, anchors: Sequence[Anchor]) -> None:
    """Writes a whole file atomically; equal anchors are equal bytes."""
    write_bytes(path, b"".join(orjson.dumps(asdict(anchor)) + b"\n" for anchor in anchors))


def with_version(name: str, anchors: Sequence[Anchor]) -> tuple[Anchor, ...]:
    """Returns the anchors as slots A1.. in their order, under the version that is theirs."""
    slots = [replace(anchor, anchor_id=f"A{slot}") for slot, anchor in enumerate(anchors, start=1)]
    version = version_of(name, slots)
    return tuple(replace(slot, rubric_version=version) for slot in slots)


def version_of(name: str, anchors: Sequence[Anchor]) -> str:
    """Returns `<name>-<8 hex digits>` for these anchors; their own versions do not count."""
    content = [asdict(replace(anchor, rubric_version=_NO_VERSION)) for anchor in anchors]
    return f"{name}-{json_digest(content)[:_VERSION_DIGITS]}"


def freeze(path: Path, output: Path | None = None) -> Frozen:
    """Gives an edited file its version, in place or as `output`.

    Slots are numbered in the order of the lines. Raises ValueError where nothing was edited, where
    `output` exists, and for a file that a finished unit lists in its manifest.
    """
    anchors = read_draft(path)
    target = output or path
    previous = anchors[0].rubric_version
    frozen = with_version(_name_of(path, previous), anchors)
    if frozen == anchors:
        raise ValueError(f"{path}: nothing was edited, it is {previous} as it stands")
    if output is not None and output.exists() and not output.samefile(path):
        raise ValueError(f"{output}: exists already, and is not overwritten. Give another --output")
    if (target.parent / MANIFEST).exists():
        raise ValueError(
            f"{target}: {target.parent / MANIFEST} lists this file as it was made. Keep the edited "
            "one elsewhere (--output FILE) and name it under scorers.<group>.anchors_path"
        )
    write_anchors(target, frozen)
    return Frozen(
        path=target, rubric_version=frozen[0].rubric_version, previous_version=previous or None
    )


def _name_of(path: Path, version: str) -> str:
    """Returns the name that a new version goes on with: the old one's, or else the file's."""
    known = _VERSION.fullmatch(version)
    if known:
        return known[1]
    return path.stem if _NAME.fullmatch(path.stem) else "edited"
