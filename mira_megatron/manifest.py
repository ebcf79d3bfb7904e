"""What a finished unit of work says about itself.

`manifest.json` is written last and atomically: no manifest, not finished. It lists every file of
the unit with its digest, so that a file that went missing or changed is an error that names it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from mira_megatron import __version__
from mira_megatron.atomic_files import is_temporary, write_json
from mira_megatron.shards import changed_part, file_digest, json_digest

MANIFEST = "manifest.json"
INTENT = "intent.json"
# Packages whose release may change bytes or numbers; recorded, not part of a fingerprint.
_RECORDED_PACKAGES = ("megatron-core", "numpy", "pyarrow", "tokenizers", "torch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file of a finished unit."""

    path: str  # relative to the unit's folder
    size_bytes: int
    digest: str  # xxh3_128 of the bytes
    num_rows: int | None  # records or documents, where that means something


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What went in, what came out and what was dropped for which reason; totals are extra sums."""

    num_in: int
    num_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A finished unit: how it was made, from what, and what it holds."""

    stage: str
    unit: str
    stage_version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]  # name -> digest of what was read
    fingerprint: str
    output_digest: str  # of the list of parts: what the next stage fingerprints
    parts: tuple[Part, ...]
    counts: Counts
    seconds: float
    code: Mapping[str, Any]
    packages: Mapping[str, str]
    reused_from: str | None = None


def fingerprint(
    *,
    stage: str,
    unit: str,
    stage_version: int,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> str:
    """Returns the digest of everything that decides a unit's bytes."""
    return json_digest([stage, unit, stage_version, config, inputs])


def list_parts(folder: Path, rows: Mapping[str, int]) -> tuple[Part, ...]:
    """Returns every visible file under `folder`, sorted by path, with its size and digest.

    Of a link it is the link that is listed: its target belongs to another unit's manifest.
    """
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not _is_bookkeeping(path.relative_to(folder))
    )
    return tuple(_part(folder, path, rows) for path in paths)


def output_digest(parts: Iterable[Part]) -> str:
    """Returns one digest for a list of parts: equal content under equal names."""
    return json_digest([[part.path, part.digest] for part in parts])


def read_manifest(folder: Path) -> Manifest | None:
    """Returns the manifest in `folder`, or None where the unit is not finished."""
    path = folder / MANIFEST
    try:
        raw = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}). Delete {folder} to recompute it.") from error
    raw["parts"] = tuple(Part(**part) for part in raw["parts"])
    raw["counts"] = Counts(**raw["counts"])
    return Manifest(**raw)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Publishes the manifest; from then on the unit counts as finished."""
    write_json(folder / MANIFEST, asdict(manifest))


def verify_parts(folder: Path, manifest: Manifest) -> None:
    """Raises ValueError naming the first part that is missing or has another size."""
    for part in manifest.parts:
        path = folder / part.path
        size_bytes = _size_bytes(path) if path.is_file() else None
        if size_bytes != part.size_bytes:
            found = "is missing" if size_bytes is None else f"has {size_bytes:,} bytes"
            rows = "" if part.num_rows is None else f", {part.num_rows:,} rows"
            raise ValueError(
                f"{path}: this part {found}, but {folder / MANIFEST} lists it with "
                f"{part.size_bytes:,} bytes{rows}. Restore the file, or delete {folder} to have "
                "it recomputed."
            )


def verify_digests(folder: Path, manifest: Manifest, *, but_for: tuple[str, ...] = ()) -> None:
    """Raises ValueError naming the first part whose bytes are not those it was listed with.

    Every byte is read, except of files that end in one of `but_for`.
    """
    for part in manifest.parts:
        if part.path.endswith(but_for):
            continue
        path = folder / part.path
        found = _digest(path)
        if found != part.digest:
            raise changed_part(path, found, part.digest)


def manifest_summary(manifest: Manifest) -> dict[str, Any]:
    """Returns counts, size and time of a finished unit, for status tables."""
    return {
        **asdict(manifest.counts),
        "size_bytes": sum(part.size_bytes for part in manifest.parts),
        "seconds": manifest.seconds,
    }


def code_version() -> dict[str, Any]:
    """Returns this package's version and, from a git checkout, its commit and cleanliness."""
    return {"version": __version__, **_git_state()}


def package_versions() -> dict[str, str]:
    """Returns the installed versions of the packages that may change results."""
    versions = {}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def _git_state() -> dict[str, Any]:
    package = Path(__file__).parent
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"commit": None, "is_dirty": None}
    commit = described.stdout.strip()
    return {"commit": commit.removesuffix("-dirty"), "is_dirty": commit.endswith("-dirty")}


def _part(folder: Path, path: Path, rows: Mapping[str, int]) -> Part:
    name = path.relative_to(folder).as_posix()
    return Part(
        path=name,
        size_bytes=_size_bytes(path),
        digest=_digest(path),
        num_rows=rows.get(name),
    )


def _digest(path: Path) -> str:
    return json_digest(str(path.readlink())) if path.is_symlink() else file_digest(path)


def _size_bytes(path: Path) -> int:
    return len(str(path.readlink())) if path.is_symlink() else path.stat().st_size


def _is_bookkeeping(relative: Path) -> bool:
    # Further down hidden files count: torch writes a checkpoint's `.metadata`.
    is_own = relative.parts[0].startswith(".") or relative.as_posix() in (MANIFEST, INTENT)
    return is_own or is_temporary(relative)
