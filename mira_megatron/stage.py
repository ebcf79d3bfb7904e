"""Running one unit of work: skipped when done, refused when different, resumed when interrupted.

A unit is a stage applied to one source, group or arm, and owns one folder of the run:

    intent.json     while it is being worked on: what the parts lying here belong to
    .scratch/       files that only resuming needs
    manifest.json   written last; from then on the unit is finished and never written again

Same fingerprint: nothing to do. Another configuration: refused, naming the field. Same
configuration over other inputs (a source was added): the folder is kept under another name and the
unit is made anew, unless it is of the kind that outlives its inputs, as a rubric does. What other
runs listed under `reuse` finished with the same fingerprint is taken over by links.

One process works on a unit, or several share one whose parts can be claimed (launchers/claims.py):
they begin and end it in turn, and work in between.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

from mira_megatron.file_lock import held_lock, joined_lock, waited_lock
from mira_megatron.launchers.claims import this_process
from mira_megatron.launchers.sharing import EndedByOthers, Sharing, sharing
from mira_megatron.layout import is_unit
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
    verify_digests,
    verify_parts,
    write_manifest,
)
from mira_megatron.unit_folder import (
    SCRATCH,
    Origin,
    claim_folder,
    clear_up,
    config_differences,
    is_under_way,
    made_beside,
    mark_failed,
    put_in_place,
    refuse_other_config,
    set_aside,
    superseded_folder,
    take_over,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Where and how fast a run works; nothing here changes a byte of what it makes."""

    workers: int = 1
    is_shared: bool = False  # others may work on the same units, where these can be shared
    job: str = ""  # of a scheduler, for those who ask whose claims there are
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
    outlives: tuple[str, ...] = ()  # those of them whose later changes do not unmake it
    waits_for: tuple[str, ...] = ()  # folders of units that those who share are to end first
    can_be_left: bool = False  # no unit of its stage reads it: those who share do another meanwhile
    can_be_shared: bool = False  # its work function shares the parts where it is given a sharing
    can_be_reparsed: bool = False  # it is made of answers that are kept
    fails_alone: bool = False  # its failure is told at the end, once the others of its run are done
    raw_inputs: Mapping[str, str] = field(default_factory=dict)  # name -> value, from outside
    # Files from outside, name -> digest: only looked at when the unit itself is to be run.
    raw_files: Callable[[], Mapping[str, str]] | None = None
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
    fingerprint: str  # of the unit
    resources: Resources
    sharing: Sharing | None = None  # None: this process works alone
    earlier: Path | None = None  # the finished unit that is made again of what is kept

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
    finished, or when a part of a finished unit is gone; HeldByOthers when it is shared and others
    still work on parts of it.
    """
    if resources.is_shared and unit.can_be_shared:
        return _run_shared(unit, run, resources)
    lock, refusal = _lock(run, unit), _refusal(run, unit)
    # What cannot be shared is made by one of those who share the rest; the others need it, too.
    is_waited_for = resources.is_shared and not unit.can_be_left
    with waited_lock(lock) if is_waited_for else held_lock(lock, refusal):
        begun = _begin(unit, run)
        if isinstance(begun, Manifest):
            return begun
        return _work(unit, run, resources, begun)


def _run_shared(unit: Unit, run: Run, resources: Resources) -> Manifest:
    """Works on a unit together with others; its lock is held by all of them."""
    folder = run.folder / unit.folder
    turns = _lock(run, unit).with_suffix(".turns.lock")
    with ExitStack() as leaving:
        with waited_lock(turns):
            joined = leaving.enter_context(joined_lock(_lock(run, unit), _refusal(run, unit)))
            begun = _begin(unit, run, are_others_at_work=not joined.is_first)
        if isinstance(begun, Manifest):
            return begun
        with sharing(
            folder / SCRATCH,
            this_process(resources.job),
            turns=turns,
            is_ended=lambda: read_manifest(folder) is not None,
            is_last=joined.is_last,
        ) as shared:
            try:
                return _work(unit, run, resources, begun, shared)
            except EndedByOthers:
                ended = read_manifest(folder)
                assert ended is not None, folder
                clear_up(folder)  # this worker may have made the scratch folder anew
                logger.info("%s: ended by another worker", unit.label)
                return ended


def reparse_unit(unit: Unit, run: Run, resources: Resources) -> Manifest:
    """Returns the manifest of a finished unit made again of the answers that are kept.

    What was there is kept under another name, unless it is the same. Its stage's version may be
    another one: that the code reads answers otherwise is a reason. Raises ValueError, and changes
    nothing, where the unit is not finished, was made for another recipe or from other inputs, or
    an answer is not kept.
    """
    folder = run.folder / unit.folder
    with held_lock(_lock(run, unit), _refusal(run, unit)):
        finished = read_manifest(folder)
        if finished is None:
            raise ValueError(
                f"{folder}: not finished, so there is nothing to read again. The same command "
                "without --reparse goes on with it, and asks only what is not kept."
            )
        origin = _origin_now(unit, run)
        found = _origin_of(finished)
        refuse_other_config(folder, origin, replace(found, stage_version=unit.version))
        if origin.inputs != found.inputs:
            raise ValueError(
                f"{folder}: made from inputs that have changed since. Without --reparse it is made "
                "anew, and only what is not kept is asked."
            )
        verify_parts(folder, finished)
        with made_beside(folder) as anew:
            manifest = _work(unit, run, resources, origin, folder=anew, earlier=folder)
            if (manifest.output_digest, manifest.fingerprint) == (
                finished.output_digest,
                finished.fingerprint,
            ):
                logger.info("%s: its answers read as before", unit.label)
                return finished
            put_in_place(anew, folder, finished.fingerprint)
        return manifest


def _begin(unit: Unit, run: Run, *, are_others_at_work: bool = False) -> Manifest | Origin:
    """Returns the manifest of a unit that is finished or taken over; else what it is made from.

    The folder then says so.
    """
    folder = run.folder / unit.folder
    origin = _origin_now(unit, run)
    finished = read_manifest(folder)
    if finished is not None and _is_made_from(finished, unit, origin.inputs):
        verify_parts(folder, finished)
        clear_up(folder)
        _log_done(unit, finished, origin)
        return finished
    if are_others_at_work:
        if is_under_way(folder, origin.fingerprint):
            return origin
        raise ValueError(
            f"{folder}: others work on {unit.label} for a recipe with other settings or other "
            "inputs. Wait for them to end, or use another run folder (run_folder=...)."
        )
    if finished is not None:
        refuse_other_config(folder, origin, _origin_of(finished))
        set_aside(folder, origin, _origin_of(finished))
    set_aside_before = superseded_folder(folder, origin.fingerprint)
    earlier = [set_aside_before, *(reused / unit.folder for reused in run.reuse)]
    taken_over = take_over(folder, origin.fingerprint, earlier)
    if taken_over is not None:
        logger.info("%s: reused from %s", unit.label, taken_over.reused_from)
        return taken_over
    claim_folder(folder, origin)
    return origin


def unit_state(unit: Unit, run: Run) -> str:
    """Returns done, unfinished, waiting, outdated or different for `mira status` and dry runs."""
    folder = run.folder / unit.folder
    finished = read_manifest(folder)
    if finished is None:
        return "unfinished" if (folder / INTENT).exists() else "waiting"
    if config_differences(_origin(unit, {}), _origin_of(finished)):
        return "different"
    try:
        inputs = read_inputs(unit, run)
    except ValueError:
        return "outdated"
    return "done" if _is_made_from(finished, unit, inputs) else "outdated"


def check_unit(unit: Unit, run: Run) -> None:
    """Raises ValueError for a finished unit that lost a part or was made for another recipe."""
    folder = run.folder / unit.folder
    manifest = read_manifest(folder)
    if manifest is None:
        return  # whoever reads it says that it is not finished
    verify_parts(folder, manifest)
    found = _origin_of(manifest)
    refuse_other_config(folder, _origin(unit, {}), found)
    if not _is_made_from(manifest, unit, read_inputs(unit, run)):
        raise ValueError(
            f"{folder}: made from inputs that have changed since. Run all stages with `mira run`."
        )


def _is_made_from(manifest: Manifest, unit: Unit, inputs: Mapping[str, str]) -> bool:
    """Whether a finished unit was made from these inputs.

    Raw files that were not looked at, and what the unit outlives, are taken as they were; but not
    units that it reads no more.
    """
    if unit.raw_files is not None:
        raw = {name: digest for name, digest in manifest.inputs.items() if not is_unit(name)}
        inputs = {**raw, **inputs}
    outlived = {name: manifest.inputs[name] for name in unit.outlives if name in manifest.inputs}
    inputs = {**inputs, **outlived}
    return manifest.fingerprint == _origin(unit, inputs).fingerprint


def read_inputs(unit: Unit, run: Run) -> dict[str, str]:
    """Returns the digest of everything the unit reads but raw files, by name.

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
    unit: Unit,
    run: Run,
    resources: Resources,
    origin: Origin,
    shared: Sharing | None = None,
    *,
    folder: Path | None = None,
    earlier: Path | None = None,
) -> Manifest:
    """Makes a unit in its folder, or another one; `earlier` as in Workspace."""
    started = time.monotonic()
    folder = folder or run.folder / unit.folder
    module, _, function = unit.work.partition(":")
    work = cast("Work", getattr(importlib.import_module(module), function))
    workspace = Workspace(
        run=run,
        unit=unit,
        folder=folder,
        fingerprint=origin.fingerprint,
        resources=resources,
        sharing=shared,
        earlier=earlier,
    )
    for name in unit.upstream:
        # Parquet is checked part by part as it is read, tokens by who trains on them; a scorer is
        # asked in its other format.
        upstream = workspace.upstream_manifest(name)
        verify_digests(run.folder / name, upstream, but_for=(".parquet", ".bin", ".distcp"))
    try:
        result = work(workspace, unit.settings)
    except ValueError as error:
        # Others may yet end it well; and what is made beside the finished one goes.
        if earlier is None and (shared is None or shared.is_last()):
            mark_failed(folder, origin, str(error))
        raise
    parts = list_parts(folder, result.rows)
    manifest = Manifest(
        stage=unit.stage,
        unit=unit.name,
        stage_version=unit.version,
        config=unit.config,
        inputs=origin.inputs,
        fingerprint=origin.fingerprint,
        output_digest=output_digest(parts),
        parts=parts,
        counts=result.counts,
        seconds=round(time.monotonic() - started, 3),
        code=code_version(),
        packages=package_versions(),
    )
    write_manifest(folder, manifest)
    clear_up(folder)
    _log_summary(unit, manifest)
    return manifest


def _log_done(unit: Unit, finished: Manifest, origin: Origin) -> None:
    if finished.fingerprint == origin.fingerprint:
        logger.info("%s: already done", unit.label)
        return
    changed = [name for name in unit.outlives if finished.inputs[name] != origin.inputs[name]]
    logger.warning(
        "%s: already done, and kept although %s changed since; for a new one choose another "
        "rubric=NAME",
        unit.label,
        ", ".join(changed),
    )


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


def _origin_now(unit: Unit, run: Run) -> Origin:
    """Returns what a unit would be made from now, its raw files looked at."""
    raw_files = unit.raw_files() if unit.raw_files else {}
    return _origin(unit, {**raw_files, **read_inputs(unit, run)})


def _origin(unit: Unit, inputs: Mapping[str, str]) -> Origin:
    return Origin(
        stage=unit.stage,
        config=unit.config,
        inputs=inputs,
        stage_version=unit.version,
        fingerprint=fingerprint(
            stage=unit.stage,
            unit=unit.name,
            stage_version=unit.version,
            config=unit.config,
            inputs=inputs,
        ),
    )


def _origin_of(manifest: Manifest) -> Origin:
    return Origin(
        stage=manifest.stage,
        config=manifest.config,
        inputs=manifest.inputs,
        stage_version=manifest.stage_version,
        fingerprint=manifest.fingerprint,
    )


def _lock(run: Run, unit: Unit) -> Path:
    return run.folder / ".locks" / f"{unit.folder.replace('/', '.')}.lock"


def _refusal(run: Run, unit: Unit) -> str:
    return (
        f"{_lock(run, unit)}: another process is working on {unit.label}. Wait for it to end, or "
        "use another run folder (run_folder=...)."
    )
