"""What lies in a unit's folder, and whether it may be used, continued or set aside.

A folder belongs to one configuration over one set of inputs: `manifest.json` says so of finished
work, `intent.json` of work that is under way or was interrupted. Nothing is ever overwritten.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.atomic_files import is_temporary, write_json
from mira_megatron.manifest import (
    INTENT,
    Manifest,
    read_manifest,
    verify_parts,
    write_manifest,
)

logger = logging.getLogger(__name__)

SCRATCH = ".scratch"  # files of a unit that only resuming needs


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What decides a unit's bytes; its JSON is `intent.json`."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    stage_version: int
    fingerprint: str
    failure: str | None = None  # the message that ended an attempt which no repetition would mend


def claim_folder(folder: Path, origin: Origin) -> None:
    """Leaves an intent in the folder, so that its parts are never taken for another's.

    Interrupted work of the same origin is continued. Raises ValueError where the folder holds
    interrupted work of another configuration, or files that nothing explains.
    """
    path = folder / INTENT
    if path.exists():
        found = Origin(**orjson.loads(path.read_bytes()))
        if found.fingerprint == origin.fingerprint:
            if found.failure is not None:  # this attempt may be killed, and is then to be finished
                write_json(path, asdict(origin))
            logger.info("%s: going on where it was interrupted", folder)
            return
        if found.failure is None:
            refuse_other_config(folder, origin, found)
        set_aside(folder, origin, found)
    elif _holds_files(folder):
        raise ValueError(
            f"{folder}: holds files but neither {INTENT} nor a manifest says what they belong to. "
            "Move or delete the folder."
        )
    write_json(path, asdict(origin))


def is_under_way(folder: Path, fingerprint: str) -> bool:
    """Returns whether a folder holds unfinished work of this fingerprint."""
    try:
        found = Origin(**orjson.loads((folder / INTENT).read_bytes()))
    except FileNotFoundError:
        return False
    return found.fingerprint == fingerprint


def mark_failed(folder: Path, origin: Origin, failure: str) -> None:
    """Notes in the intent that this attempt ended with a message, so that a repair may follow."""
    write_json(folder / INTENT, asdict(replace(origin, failure=failure)))


def refuse_other_config(folder: Path, origin: Origin, found: Origin) -> None:
    """Raises ValueError naming every setting in which `found` differs, if any does."""
    differences = config_differences(origin, found)
    if differences:
        raise ValueError(
            f"{folder}: made with another configuration: {'; '.join(differences)}. Nothing is "
            "overwritten: set the old value again, delete the folder, or choose another "
            "run_folder=... (for another budget, add an arm; for another trim or reliability "
            "threshold, name another aggregate.scoring; after an upgrade that changed "
            "stage_version, only the last two)."
        )


def config_differences(origin: Origin, found: Origin) -> list[str]:
    """Returns one phrase for every setting in which two origins differ."""
    # Through JSON, as the file holds it: tuples and lists are the same there.
    now = _flat(orjson.loads(orjson.dumps(origin.config)))
    then = _flat(found.config)
    if origin.stage_version != found.stage_version:
        now["stage_version"], then["stage_version"] = origin.stage_version, found.stage_version
    absent = "(absent)"
    return [
        f"{origin.stage}.{key} was {then.get(key, absent)!r} and is {now.get(key, absent)!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key, absent) != then.get(key, absent)
    ]


def set_aside(folder: Path, origin: Origin, found: Origin) -> None:
    """Renames the folder of an origin that is no longer wanted; nothing in it is lost."""
    changed = [
        *config_differences(origin, found),
        *(
            name
            for name in sorted(found.inputs.keys() | origin.inputs.keys())
            if found.inputs.get(name) != origin.inputs.get(name)
        ),
    ]
    kept_as = _aside(folder, found.fingerprint)
    logger.info(
        "%s: changed (%s); what lay there is kept as %s", folder, "; ".join(changed), kept_as
    )


@contextmanager
def made_beside(folder: Path) -> Iterator[Path]:
    """Yields an empty folder for a unit that is made again; what is left of it at the end goes."""
    anew = folder.with_name(f".{folder.name}.anew")
    shutil.rmtree(anew, ignore_errors=True)
    anew.mkdir()
    try:
        yield anew
    finally:
        shutil.rmtree(anew, ignore_errors=True)


def put_in_place(anew: Path, folder: Path, fingerprint: str) -> None:
    """Puts a unit that was made again where the one of this fingerprint lies, which is kept."""
    kept_as = _aside(folder, fingerprint)
    os.replace(anew, folder)
    logger.info("%s: made again; what lay there is kept as %s", folder, kept_as)


def _aside(folder: Path, fingerprint: str) -> Path:
    """Renames a folder, and returns its new name; only what is the same, or unfinished, makes room.

    The same: it was set aside before and taken back since. What was read again has the fingerprint
    of what was set aside for it, and may hold other rows.
    """
    kept_as = first = superseded_folder(folder, fingerprint)
    here = read_manifest(folder)
    for number in count(2):
        there = read_manifest(kept_as)
        if there is None or (here and here.output_digest == there.output_digest):
            break
        kept_as = first.with_name(f"{first.name}-{number}")
    if kept_as.exists():
        shutil.rmtree(kept_as)
    os.replace(folder, kept_as)
    return kept_as


def superseded_folder(folder: Path, fingerprint: str) -> Path:
    """Returns where a unit of this fingerprint lies once it is set aside."""
    return folder.with_name(f"{folder.name}.superseded-{fingerprint[:8]}")


def take_over(folder: Path, fingerprint: str, candidates: Sequence[Path]) -> Manifest | None:
    """Returns the manifest of an equal unit of an earlier run, its files linked into `folder`.

    None where no candidate folder holds one, or where work in `folder` has already begun.
    """
    if _holds_files(folder):
        return None
    for candidate in candidates:
        manifest = read_manifest(candidate)
        if manifest is None or manifest.fingerprint != fingerprint:
            continue
        verify_parts(candidate, manifest)
        taken = replace(manifest, reused_from=str(candidate))
        _link_unit(candidate, folder, taken)
        return taken
    return None


def _holds_files(folder: Path) -> bool:
    # A kill while the intent was being written leaves a temporary file, which says nothing.
    return folder.is_dir() and not all(map(is_temporary, folder.iterdir()))


def clear_up(folder: Path) -> None:
    """Removes from a finished unit's folder what only unfinished work needs."""
    (folder / INTENT).unlink(missing_ok=True)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _link_unit(source: Path, folder: Path, manifest: Manifest) -> None:
    """Makes `folder` appear in one step, with every part of `source` and the manifest."""
    staging = folder.with_name(f".{folder.name}.linking")
    shutil.rmtree(staging, ignore_errors=True)
    for part in manifest.parts:
        target = staging / part.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / part.path, target, follow_symlinks=False)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(source / part.path, target, follow_symlinks=False)
    write_manifest(staging, manifest)
    shutil.rmtree(folder, ignore_errors=True)  # at most temporary files, see take_over
    os.replace(staging, folder)
