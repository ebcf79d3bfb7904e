"""Checks of paths: whether what a recipe names is there, can be written, and is mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.corpus.sources import PLACEHOLDERS, resolve_files, source_from_mapping
from mira_megatron.doctor.finding import ERROR, WARNING, Finding
from mira_megatron.doctor.subject import Subject
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.provenance.tokens_doctor import unwritable
from mira_megatron.tokenization.adopted import adopted_sources

# Settings that name a file or folder: section -> key -> the stage that reads it first.
_READ = {
    "distill": {"base": "distill"},
    "midtrain": {"base": "midtrain"},
    "instruct_sft": {"base": "instruct-sft", "data": "instruct-sft"},
    "eval": {"suite": "eval", "data_folder": "eval"},
    "teacher": {"tokenizer": "label"},
    "score": {"tokenizer": "score", "model_path": "score", "anchors_path": "score"},
    "tokenize": {"tokenizer": "tokenize"},
}
# Of each source that is still to be ingested: its files, or why none can be told.
SourceFiles = Mapping[str, list[Path] | str]
_SCORER_KEYS = ("tokenizer", "model_path", "anchors_path")
_BASELINE_KEYS = ("tokenizer", "dataman_tokenizer", "model_path")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedPath:
    """A path that a recipe names."""

    where: str  # the setting
    path: Path
    stage: str  # that reads it first
    is_written: bool = False


def named_paths(subject: Subject) -> list[NamedPath]:
    """Returns every file and folder that the recipe names, but for those of its sources."""
    recipe = subject.recipe
    found = [
        NamedPath(where="run_folder", path=recipe.run_folder, stage="ingest", is_written=True),
        NamedPath(where="the recipe", path=recipe.path, stage="ingest"),
        *(NamedPath(where="reuse", path=folder, stage="ingest") for folder in recipe.reuse),
    ]
    for section, keys in _READ.items():
        values = recipe.values.get(section)
        if isinstance(values, Mapping):
            found += _of_section(subject, section, values, keys)
    for name, values in recipe.mapping("scorers").items():
        if isinstance(values, Mapping):
            keys = dict.fromkeys(_SCORER_KEYS, "score")
            found += _of_section(subject, f"scorers.{name}", values, keys)
    for name, values in recipe.mapping("baselines").items():
        if isinstance(values, Mapping):
            keys = dict.fromkeys(_BASELINE_KEYS, "baseline")
            if values.get("method") == "perplexity" and values.get("engine") != "endpoint":
                keys["model"] = "baseline"  # elsewhere it is a name
            found += _of_section(subject, f"baselines.{name}", values, keys)
    return found


def check_paths(subject: Subject, sources: SourceFiles) -> list[Finding]:
    """Returns what is missing, cannot be written, or is not to be seen from inside a container."""
    findings = [
        *_check_sources(subject, sources),
        *_check_adopted(subject),
        *_check_targets(subject),
        *_check_benchmarks(subject),
    ]
    for named in named_paths(subject):
        where = subject.where(named.where)
        if named.is_written:
            blocked = unwritable(named.path)
            if blocked is not None:
                what = f"{blocked} cannot be written, and {named.path} lies under it"
                way_out = "set run_folder to a disk that you and every node can write"
                findings.append(Finding(level=ERROR, what=what, where=where, way_out=way_out))
        elif (
            not named.path.exists()
            and not subject.is_done(named.stage)
            and not _is_told(subject, named.path)
        ):
            what = f"{named.path}: no such file or folder on this machine"
            findings.append(
                Finding(level=ERROR, what=what, where=where, way_out="correct it, or put it there")
            )
    if subject.cluster is not None:
        findings += _check_mounts(subject, subject.cluster, sources)
    return findings


def source_files(subject: Subject) -> dict[str, list[Path] | str]:
    """Returns the files of every source that is still to be ingested, or why there are none.

    A dataset on a hub has no files.
    """
    found: dict[str, list[Path] | str] = {}
    for name, (config, folder) in recipe_sources(subject.recipe).items():
        if not subject.is_done("ingest", name):
            try:
                found[name] = [file.path for file in resolve_files(config, folder)]
            except (ValueError, FileNotFoundError) as error:
                found[name] = str(error)
    return found


def _is_told(subject: Subject, path: Path) -> bool:
    """Returns whether it is said already that a stage cannot be planned for want of this path."""
    return any(
        reason.startswith((f"{path}: no such file", f"{path}{os.sep}")) and "no such file" in reason
        for reason in subject.unplanned.values()
    )


def _of_section(
    subject: Subject, section: str, values: Mapping[str, Any], keys: Mapping[str, str]
) -> Iterator[NamedPath]:
    for key, stage in keys.items():
        written = values.get(key)
        for each in written if isinstance(written, list) else [written]:
            if isinstance(each, str):
                path = subject.recipe.path_of(each)
                yield NamedPath(where=f"{section}.{key}", path=path, stage=stage)


def _check_sources(subject: Subject, sources: SourceFiles) -> Iterator[Finding]:
    for name, files in sources.items():
        where = subject.where(f"sources.{name}")
        if isinstance(files, str):
            yield Finding(
                level=ERROR, what=files, where=where, way_out="correct the source's paths"
            )
        elif not files:
            yield Finding(
                level=WARNING,
                what="it is fetched from a hub by the job that ingests it",
                where=where,
                way_out="fetch it before where nodes have no network",
            )
        elif unreadable := [path for path in files if not os.access(path, os.R_OK)]:
            yield Finding(
                level=ERROR,
                what=f"{unreadable[0]} cannot be read; {len(unreadable):,} of {len(files):,} files",
                where=where,
                way_out="have their owner let you read them",
            )


def _check_adopted(subject: Subject) -> Iterator[Finding]:
    for name, adopted in adopted_sources(subject.recipe).items():
        if subject.is_done("adopt", name):
            continue
        try:
            adopted.path_prefixes()
        except (FileNotFoundError, ValueError) as error:
            yield Finding(
                level=ERROR,
                what=str(error),
                where=subject.where(f"adopt.{name}"),
                way_out="correct its prefixes",
            )


def _check_targets(subject: Subject) -> Iterator[Finding]:
    """Finds targets of DSIR without files."""
    for name, values in subject.recipe.mapping("baselines").items():
        targets = values.get("targets") if isinstance(values, Mapping) else None
        if not isinstance(targets, Mapping):
            continue
        for target, descriptor in targets.items():
            where = f"baselines.{name}.targets.{target}"
            unit = f"{name}.{target}.target"
            if subject.is_done("baseline", unit) or not isinstance(descriptor, Mapping):
                continue  # what is no descriptor keeps the stage from being planned
            try:
                config = source_from_mapping(descriptor, where)
                resolve_files(config, subject.recipe.path.parent)
            except (ValueError, FileNotFoundError) as error:
                yield Finding(
                    level=ERROR,
                    what=str(error),
                    where=subject.where(where),
                    way_out="correct the target's paths",
                )


def _check_benchmarks(subject: Subject) -> Iterator[Finding]:
    """Finds benchmarks without their data."""
    for name, why in subject.missing_data.items():
        yield Finding(
            level=ERROR,
            what=why.removesuffix("."),
            where=subject.where(f"eval: benchmark {name}"),
            way_out="put the data there",
        )


def _check_mounts(
    subject: Subject,
    cluster: Cluster,
    sources: SourceFiles,
) -> Iterator[Finding]:
    """Finds paths that a container sees under another name, read-only, or not at all."""
    if not any(cluster.image(stage) for stage in subject.stages):
        return
    paths = [(named.where, named.path, named.is_written) for named in named_paths(subject)]
    for name, (config, folder) in recipe_sources(subject.recipe).items():
        if isinstance(sources.get(name), list) and sources[name]:
            paths += [
                (f"sources.{name}", Path(os.path.abspath(folder / Path(each).expanduser())), False)
                for each in (*config.paths, *config.optional_paths)
                if not each.startswith(tuple(PLACEHOLDERS))
            ]
    for where, path, is_written in paths:
        problem = _mount_problem(cluster.mounts, path, is_written=is_written)
        if problem:
            # Apptainer mounts the home and working folders by itself; its site may mount more.
            is_sure = cluster.container_runtime == "pyxis"
            yield Finding(
                level=ERROR if is_sure else WARNING,
                what=f"{path}: {problem}",
                where=f"cluster {cluster.name}: mounts (for {where} of {subject.recipe.path})",
                way_out="add the folder to mounts, under its own name",
            )


def _mount_problem(mounts: tuple[str, ...], path: Path, *, is_written: bool) -> str:
    """Returns why a container does not see a path as this machine does, "" where it does."""
    problem = "no mount covers it, so that no container sees it"
    # The innermost one decides: it lies over the others.
    for mount in sorted(mounts, key=lambda each: len(Path(each.split(":")[0]).parts), reverse=True):
        outside, inside, flags = [*mount.split(":"), "", ""][:3]
        inside = inside or outside
        if not path.is_relative_to(outside):
            continue
        if Path(inside) != Path(outside):
            problem = f"mounted as {Path(inside) / path.relative_to(outside)}, not by its own name"
        elif is_written and "ro" in flags.split(","):
            problem = "mounted read-only, and it is to be written"
        else:
            problem = ""
        break
    return problem
