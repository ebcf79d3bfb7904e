"""Running one unit of work: skipped when done, refused when different, resumed when interrupted.

A unit is a stage applied to one source, group or arm, and owns one folder of the run:

    intent.json     while it is being worked on: what the parts lying here belong to
    .scratch/       files that only resuming needs
    manifest.json   written last; from then on the unit is finished and never written again

Same fingerprint: nothing to do. Another configuration: refused, naming the field. Same
configuration over other inputs (a source was added): the folder is kept under another name and the
unit is made anew. What other runs listed under `reuse` finished with the same fingerprint is taken
over by links.
"""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import orjson

from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import (
    INTENT,
    Counts,
    Manifest,
    Part,
    code_version,
    fingerprint,
    list_parts,
    output_digest,
    package_versions,
    read_manifest,
    verify_parts,
    write_manifest,
)
from mira_megatron.shards import json_digest

logger = logging.getLogger(__name__)

SCRATCH = ".scratch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Where and how fast a run works; nothing here changes a byte of what it makes."""

    workers: int = 1
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run folder and the earlier runs whose units it may take over."""

    folder: Path
    reuse: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One stage applied to one source, group or arm."""

    stage: str
    name: str
    folder: str  # relative to the run folder
    version: int  # of the stage's code; raised when its output changes
    config: Mapping[str, Any]  # everything in the recipe that decides its bytes
    upstream: tuple[str, ...] = ()  # folders of the units it reads
    raw_inputs: Mapping[str, str] = field(default_factory=dict)  # name -> digest, from outside
    work: str = ""  # "package.module:function", called as function(workspace, settings)
    settings: object = None

    @property
    def label(self) -> str:
        """Returns how messages call this unit."""
        return f"{self.stage} {self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """What a unit's work function may touch."""

    run: Run
    unit: Unit
    folder: Path
    resources: Resources

    @property
    def scratch(self) -> Path:
        """Returns the folder for files that only resuming needs; it goes when the unit is done."""
        return self.folder / SCRATCH

    def upstream_manifest(self, folder: str) -> Manifest:
        """Returns the manifest of a unit this one reads; its parts were seen to be there."""
        manifest = read_manifest(self.run.folder / folder)
        assert manifest is not None, folder
        return manifest

    def upstream_parts(self, folder: str, suffix: str) -> list[tuple[Path, Part]]:
        """Returns path and part of every file of an upstream unit that ends in `suffix`."""
        parts = self.upstream_manifest(folder).parts
        return [
            (self.run.folder / folder / part.path, part)
            for part in parts
            if part.path.endswith(suffix)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkResult:
    """What a work function reports; `rows` maps a part's path to its number of rows."""

    counts: Counts
    rows: Mapping[str, int] = field(default_factory=dict)


class Work(Protocol):
    """The signature behind `Unit.work`."""

    def __call__(self, workspace: Workspace, settings: Any) -> WorkResult:
        """Makes the unit's files and reports what they hold."""


def run_unit(unit: Unit, run: Run, resources: Resources) -> Manifest:
    """Returns the unit's manifest, after making whatever of it was not there yet.

    Raises ValueError when the folder holds another configuration's results, when an input is not
    finished, or when a part of a finished unit is gone.
    """
    folder = run.folder / unit.folder
    with _locked(run, unit):
        inputs = read_inputs(unit, run)
        wanted = _fingerprint(unit, inputs)
        finished = read_manifest(folder)
        if finished is not None:
            if finished.fingerprint == wanted:
                verify_parts(folder, finished)
                shutil.rmtree(folder / SCRATCH, ignore_errors=True)
                logger.info("%s: already done", unit.label)
                return finished
            _refuse_other_config(unit, folder, finished.config, finished.stage_version)
            _set_aside(unit, folder, finished.inputs, inputs)
        taken_over = _take_over(unit, run, wanted)
        if taken_over is not None:
            return taken_over
        _claim_folder(unit, folder, inputs, wanted)
        return _work(unit, run, folder, resources, inputs, wanted)


def unit_state(unit: Unit, run: Run) -> str:
    """Returns done, unfinished, waiting, outdated or different for `mira status` and dry runs."""
    folder = run.folder / unit.folder
    finished = read_manifest(folder)
    if finished is None:
        return "unfinished" if (folder / INTENT).exists() else "waiting"
    if _config_differences(unit, finished.config, finished.stage_version):
        return "different"
    try:
        inputs = read_inputs(unit, run)
    except ValueError:
        return "outdated"
    return "done" if finished.fingerprint == _fingerprint(unit, inputs) else "outdated"


def read_inputs(unit: Unit, run: Run) -> dict[str, str]:
    """Returns the digest of everything the unit reads, by name.

    Raises ValueError when an upstream unit is not finished or lost a part.
    """
    inputs = dict(unit.raw_inputs)
    for name in unit.upstream:
        folder = run.folder / name
        manifest = read_manifest(folder)
        if manifest is None:
            raise ValueError(
                f"{unit.label} reads {folder}, which is not finished (no manifest.json). "
                f"Run the earlier stages first, or all of them with `mira run`."
            )
        verify_parts(folder, manifest)
        inputs[name] = manifest.output_digest
    return inputs


def _work(
    unit: Unit, run: Run, folder: Path, resources: Resources, inputs: dict[str, str], wanted: str
) -> Manifest:
    started = time.monotonic()
    module, _, function = unit.work.partition(":")
    work = cast("Work", getattr(importlib.import_module(module), function))
    result = work(Workspace(run=run, unit=unit, folder=folder, resources=resources), unit.settings)
    parts = list_parts(folder, result.rows)
    manifest = Manifest(
        stage=unit.stage,
        unit=unit.name,
        stage_version=unit.version,
        config=unit.config,
        inputs=inputs,
        fingerprint=wanted,
        output_digest=output_digest(parts),
        parts=parts,
        counts=result.counts,
        seconds=round(time.monotonic() - started, 3),
        code=code_version(),
        packages=package_versions(),
    )
    write_manifest(folder, manifest)
    (folder / INTENT).unlink(missing_ok=True)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    _log_summary(unit, manifest)
    return manifest


def _log_summary(unit: Unit, manifest: Manifest) -> None:
    counts = manifest.counts
    reasons = ", ".join(f"{reason} {num:,}" for reason, num in sorted(counts.dropped.items()))
    logger.info(
        "%s: %s in, %s out%s, %.1f s",
        unit.label,
        f"{counts.num_in:,}",
        f"{counts.num_out:,}",
        f", dropped: {reasons}" if reasons else "",
        manifest.seconds,
    )


def _fingerprint(unit: Unit, inputs: Mapping[str, str]) -> str:
    return fingerprint(
        stage=unit.stage,
        unit=unit.name,
        stage_version=unit.version,
        config=unit.config,
        inputs=inputs,
    )


@contextmanager
def _locked(run: Run, unit: Unit) -> Iterator[None]:
    path = run.folder / ".locks" / f"{unit.folder.replace('/', '.')}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{path}: another process is working on {unit.label}. Wait for it to end, or use "
                "another run folder (run_folder=...)."
            ) from error
        yield


def _claim_folder(unit: Unit, folder: Path, inputs: Mapping[str, str], wanted: str) -> None:
    """Leaves an intent in the folder, so that its parts are never taken for another's."""
    path = folder / INTENT
    if path.exists():
        intent = orjson.loads(path.read_bytes())
        if intent["fingerprint"] == wanted:
            logger.info("%s: resuming", unit.label)
            return
        _refuse_other_config(unit, folder, intent["config"], intent["stage_version"])
        _set_aside(unit, folder, intent["inputs"], inputs)
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder}: holds files but neither {INTENT} nor a manifest says what they belong to. "
            "Move or delete the folder."
        )
    write_json(
        path,
        {
            "config": unit.config,
            "fingerprint": wanted,
            "inputs": inputs,
            "stage_version": unit.version,
        },
    )


def _refuse_other_config(
    unit: Unit, folder: Path, made_with: Mapping[str, Any], made_by_version: int
) -> None:
    differences = _config_differences(unit, made_with, made_by_version)
    if differences:
        raise ValueError(
            f"{folder}: made with another configuration: {'; '.join(differences)}. Nothing is "
            "overwritten: set the old value again, delete the folder, or choose another "
            "run_folder=... (for another budget or threshold, add an arm)."
        )


def _config_differences(
    unit: Unit, made_with: Mapping[str, Any], made_by_version: int
) -> list[str]:
    # Through JSON, as the manifest holds it: tuples and lists are the same there.
    now = _flat(orjson.loads(orjson.dumps(unit.config)))
    then = _flat(made_with)
    if unit.version != made_by_version:
        now["stage_version"], then["stage_version"] = unit.version, made_by_version
    absent = "(absent)"
    return [
        f"{unit.stage}.{key} was {then.get(key, absent)!r} and is {now.get(key, absent)!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key, absent) != then.get(key, absent)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _set_aside(
    unit: Unit, folder: Path, old_inputs: Mapping[str, str], inputs: Mapping[str, str]
) -> None:
    """Renames a unit whose inputs changed; its files stay readable where they are linked from."""
    changed = sorted(
        name
        for name in old_inputs.keys() | inputs.keys()
        if old_inputs.get(name) != inputs.get(name)
    )
    kept_as = folder.with_name(f"{folder.name}.superseded-{json_digest(dict(old_inputs))[:8]}")
    if kept_as.exists():
        shutil.rmtree(kept_as)
    os.replace(folder, kept_as)
    logger.info(
        "%s: inputs changed (%s); the earlier result is kept as %s",
        unit.label,
        ", ".join(changed),
        kept_as,
    )


def _take_over(unit: Unit, run: Run, wanted: str) -> Manifest | None:
    folder = run.folder / unit.folder
    if folder.exists() and any(folder.iterdir()):
        return None
    for earlier in run.reuse:
        source = earlier / unit.folder
        manifest = read_manifest(source)
        if manifest is None or manifest.fingerprint != wanted:
            continue
        verify_parts(source, manifest)
        _link_parts(source, folder, manifest.parts)
        taken = replace(manifest, reused_from=str(earlier))
        write_manifest(folder, taken)
        logger.info("%s: reused from %s", unit.label, earlier)
        return taken
    return None


def _link_parts(source: Path, folder: Path, parts: Sequence[Part]) -> None:
    staging = folder.with_name(f".{folder.name}.linking")
    shutil.rmtree(staging, ignore_errors=True)
    for part in parts:
        target = staging / part.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / part.path, target, follow_symlinks=False)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(source / part.path, target, follow_symlinks=False)
    staging.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rmdir()
    os.replace(staging, folder)


def manifest_summary(manifest: Manifest) -> dict[str, Any]:
    """Returns counts and size of a finished unit, for status tables."""
    return {
        **asdict(manifest.counts),
        "size_bytes": sum(part.size_bytes for part in manifest.parts),
        "seconds": manifest.seconds,
    }
