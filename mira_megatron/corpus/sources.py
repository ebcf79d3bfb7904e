"""What a source is, which files it consists of, and how they are shared out as work.

A descriptor is a small YAML file in `tokenization/sources/`. File names, their order and the shards
depend on the descriptor and the files alone: not on the machine, and not on the number of workers.
"""

from __future__ import annotations

import itertools
import os
import re
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.config import check_name, load_yaml, typed
from mira_megatron.corpus.degradation import WAYS
from mira_megatron.corpus.renderers import FIELDS_BY_FAMILY
from mira_megatron.records import FAMILIES

# Endings that a folder (as opposed to a file or a glob) is searched for; () means every file.
SUFFIXES_BY_FORMAT: Mapping[str, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "json": (".json", ".json.gz", ".json.zst"),
    "parquet": (".parquet",),
    "huggingface": (".arrow",),
    "text_tree": (),
    "python_docstring_qa": (".py",),
    "python_doctest_traces": (".py", ".rst", ".txt"),
}
# Formats whose rows are whole files, or are made from them, and the one family each can give.
FAMILY_BY_FILE_FORMAT: Mapping[str, str] = {
    "text_tree": "text",
    "python_docstring_qa": "qa",
    "python_doctest_traces": "agent",
}
# What the meta of a degraded copy says: how it was spoiled, and its parent's text by its hash.
DEGRADED, DERIVED_FROM = "degraded", "derived_from"
FILES_PER_SHARD = 64  # small files: enough work to be worth sending to another process

# Placeholder at the start of a path -> its name in sysconfig.
PLACEHOLDERS: Mapping[str, str] = {"{stdlib}": "stdlib", "{site_packages}": "purelib"}

_WILDCARDS = re.compile(r"[*?\[]")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One source: where its raw rows are and which of their fields make a record."""

    format: str  # one of SUFFIXES_BY_FORMAT
    family: str  # one of records.FAMILIES
    # Files, folders or globs, from the descriptor's folder or a placeholder; or one hub name.
    paths: list[str] = field(default_factory=list)
    optional_paths: list[str] = field(default_factory=list)  # these may match nothing
    exclude: list[str] = field(default_factory=list)  # globs on SourceFile.name
    fields: dict[str, str] = field(default_factory=dict)  # ours -> dotted path in the row
    meta_fields: list[str] = field(default_factory=list)  # dotted paths kept in Record.meta
    # Pinned source group; None = its family's. Decides no record, so ingest does not look at it.
    group: str | None = field(default=None, metadata={"execution": True})
    max_records: int | None = None  # the ones with the smallest content hash
    min_chars: int = 1  # shorter records are dropped, counted
    max_chars: int | None = None  # longer records are dropped, counted
    piece_chars: int | None = None  # text_tree only: a file is cut into pieces of at most so many
    subset: str | None = None  # Hugging Face only, as are the next two
    split: str | None = None
    revision: str | None = None
    # Mean number of spoiled copies beside each record, and in which ways (corpus/degradation.py).
    degraded_copies: float = field(default=0.0, metadata={"younger": True})
    degradations: list[str] = field(default_factory=list, metadata={"younger": True})

    def __post_init__(self) -> None:
        _check_choice("format", self.format, SUFFIXES_BY_FORMAT)
        _check_choice("family", self.family, FAMILIES)
        self._check_fields()
        self._check_limits()
        self._check_hugging_face()
        self._check_degraded_copies()
        if not self.paths and not self.optional_paths:
            raise ValueError("paths=[] names no file; give files, folders or globs")
        prefix = self.family.replace("_", "-")
        if self.group is not None:
            check_name("group", self.group)
        if self.group is not None and not f"{self.group}-".startswith(f"{prefix}-"):
            raise ValueError(
                f"group={self.group!r} must start with its family, for example {prefix}-python"
            )

    def _check_fields(self) -> None:
        family = FAMILY_BY_FILE_FORMAT.get(self.format)
        if family is not None:
            if self.family != family:
                raise ValueError(
                    f"family={self.family!r} does not fit format={self.format!r}, "
                    f"which gives family {family!r}"
                )
            if self.fields or self.meta_fields:
                raise ValueError(
                    f"format={self.format!r} reads whole files; leave out fields and meta_fields"
                )
            return
        expected = FIELDS_BY_FAMILY[self.family]
        if set(self.fields) != set(expected):
            raise ValueError(
                f"fields={self.fields!r}: family {self.family!r} needs exactly "
                f"{', '.join(expected)}, each with its dotted path in the row"
            )

    def _check_limits(self) -> None:
        if self.max_records is not None and self.max_records < 1:
            raise ValueError(f"max_records={self.max_records} must be at least 1, or left out")
        if self.min_chars < 1:
            raise ValueError(f"min_chars={self.min_chars} must be at least 1")
        if self.piece_chars is not None and self.format != "text_tree":
            raise ValueError(f"piece_chars={self.piece_chars} is for format 'text_tree' only")
        if self.piece_chars is not None and self.piece_chars < 1:
            raise ValueError(f"piece_chars={self.piece_chars} must be at least 1, or left out")
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(
                f"max_chars={self.max_chars} is below min_chars={self.min_chars}: nothing is left"
            )

    def _check_hugging_face(self) -> None:
        if self.format == "huggingface":
            if len(self.paths) != 1 or self.optional_paths:
                raise ValueError(
                    f"paths={self.paths!r}: format 'huggingface' takes one saved folder or one "
                    "hub name, and no optional_paths"
                )
            return
        for name in ("subset", "split", "revision"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is for format 'huggingface' only, "
                    f"not {self.format!r}; leave it out"
                )

    def _check_degraded_copies(self) -> None:
        for way in self.degradations:
            _check_choice("degradations", way, WAYS)
        if len(set(self.degradations)) < len(self.degradations):
            raise ValueError(f"degradations={self.degradations!r} names a way twice")
        if not 0 <= self.degraded_copies <= len(self.degradations):
            raise ValueError(
                f"degraded_copies={self.degraded_copies} must be in [0, {len(self.degradations)}]: "
                "a record gets at most one copy in each way that degradations names, of "
                f"{', '.join(WAYS)}"
            )
        taken = sorted({DEGRADED, DERIVED_FROM} & set(self.meta_fields))
        if self.degraded_copies and taken:
            raise ValueError(
                f"meta_fields={self.meta_fields!r}: with degraded_copies, {' and '.join(taken)} in "
                "the meta of a record says that it is a copy; leave it out"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One raw file of a source."""

    path: Path  # absolute
    name: str  # posix path from the source's root: unique in the source, equal on every machine


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pattern:
    """One entry of `paths` or `optional_paths`."""

    written: str  # as in the descriptor
    label: str  # the placeholder it starts with, or ""
    path: Path  # absolute, perhaps with wildcards
    is_optional: bool

    @property
    def folder(self) -> Path:
        """The folder before the first wildcard; a file's own folder where there is none."""
        if self.path.exists():
            return self.path.parent if self.path.is_file() else self.path
        fixed = itertools.takewhile(lambda part: not _WILDCARDS.search(part), self.path.parts)
        return Path(*fixed)


def load_source(path: Path) -> SourceConfig:
    """The source that a descriptor file describes; ValueError names the file and the key."""
    return source_from_mapping(load_yaml(path), where=str(path))


def source_from_mapping(mapping: Mapping[str, Any], where: str) -> SourceConfig:
    """The source that a mapping describes; `where` opens every error message."""
    return typed(SourceConfig, mapping, where=where)


def resolve_files(config: SourceConfig, base_folder: Path) -> list[SourceFile]:
    """The files of a source, sorted by name; [] for a hub dataset, which has none on disk.

    Hidden files are left out and linked folders are not entered, except where a path names them
    before its first wildcard.

    Raises:
        FileNotFoundError: an entry of `paths` matches nothing, or a matching link is broken.
    """
    patterns = [_pattern(path, base_folder, is_optional=False) for path in config.paths]
    patterns += [_pattern(path, base_folder, is_optional=True) for path in config.optional_paths]
    if config.format == "huggingface":
        return _huggingface_files(config, patterns[0])
    unlabelled = [str(pattern.folder) for pattern in patterns if not pattern.label]
    roots = {label: sysconfig.get_path(name) for label, name in PLACEHOLDERS.items()}
    roots[""] = os.path.commonpath(unlabelled) if unlabelled else ""
    path_by_name = {
        _name(path, roots[pattern.label], pattern.label): path
        for pattern in patterns
        for path in _matches(pattern, config.format)
    }
    excluded = [_glob_regex(pattern) for pattern in config.exclude]
    return [
        SourceFile(path=_existing(path_by_name[name]), name=name)
        for name in sorted(path_by_name)
        if not any(regex.fullmatch(name) for regex in excluded)
    ]


def input_shards(config: SourceConfig, files: Sequence[SourceFile]) -> list[tuple[SourceFile, ...]]:
    """The files in units of parallel work, in order; a hub dataset is one shard without files."""
    if config.format == "huggingface" and not files:
        return [()]
    size = FILES_PER_SHARD if config.format in FAMILY_BY_FILE_FORMAT else 1
    return [tuple(files[start : start + size]) for start in range(0, len(files), size)]


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(choices)}")


def _pattern(written: str, base_folder: Path, *, is_optional: bool) -> _Pattern:
    label = next((p for p in PLACEHOLDERS if f"{written}/".startswith(f"{p}/")), "")
    if label:
        path = sysconfig.get_path(PLACEHOLDERS[label]) + written.removeprefix(label)
    else:
        # Links stay as written: a name must not depend on where this machine's links lead.
        path = os.path.abspath(base_folder.resolve() / Path(written).expanduser())
    return _Pattern(written=written, label=label, path=Path(path), is_optional=is_optional)


def _matches(pattern: _Pattern, format_name: str) -> list[Path]:
    """The files one pattern stands for; FileNotFoundError if it must have some and has none."""
    if pattern.path.is_file():
        return [pattern.path]
    folder = pattern.folder
    if folder == pattern.path:
        suffixes = SUFFIXES_BY_FORMAT[format_name] or ("",)
        found = [path for path in folder.rglob("*") if path.name.endswith(suffixes)]
    else:
        # A final ** stands for folders only until Python 3.13.
        wildcards = re.sub(r"(^|/)\*\*$", r"\1**/*", str(pattern.path.relative_to(folder)))
        found = list(folder.glob(wildcards))
    matches = [
        path
        for path in found
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not matches and not pattern.is_optional:
        raise FileNotFoundError(
            f"{pattern.written}: matches no file that format {format_name!r} reads; looked for "
            f"{pattern.path}. Correct the path, or list it under optional_paths."
        )
    return matches


def _name(path: Path, root: str, label: str) -> str:
    relative = Path(label, path.relative_to(root)).as_posix()
    # Linux file names are bytes; a name becomes part of Record.origin and must be Unicode.
    return os.fsencode(relative).decode("utf-8", errors="backslashreplace")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path}: broken link; restore its target or exclude it")
    return path


def _glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob as pathlib reads it: `*` stays inside one folder, `**/` spans any number of them."""
    if pattern.endswith("**"):
        pattern += "/*"
    translated = ""
    for piece in re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern):
        match piece:
            case "**/":
                translated += "(?:.*/)?"
            case "*":
                translated += "[^/]*"
            case "?":
                translated += "[^/]"
            case _ if piece.startswith("["):
                translated += piece.replace("[!", "[^", 1)
            case _:
                translated += re.escape(piece)
    return re.compile(translated, re.DOTALL)


def _huggingface_files(config: SourceConfig, pattern: _Pattern) -> list[SourceFile]:
    """The Arrow files that `Dataset.save_to_disk` wrote, in row order; [] for a hub name."""
    if not pattern.path.exists() and _HUB_NAME.fullmatch(pattern.written):
        for name in ("split", "revision"):
            if getattr(config, name) is None:
                raise ValueError(
                    f"{name} is missing: {pattern.written} is no folder here, and reading it from "
                    "the hub needs a split and a revision (a commit, so that rows do not change)"
                )
        if not re.fullmatch(r"[0-9a-f]{40}", str(config.revision)):
            raise ValueError(
                f"revision={config.revision!r} of {pattern.written} is no commit (40 hex digits); "
                "a branch or tag moves, and its rows with it"
            )
        return []
    folder = _split_folder(pattern.path, config.split)
    state_path = folder / "state.json"
    if not state_path.is_file():
        raise FileNotFoundError(
            f"{state_path}: no such file, so {folder} was not written by Dataset.save_to_disk. "
            "For a folder of Parquet or JSON files use format 'parquet' or 'jsonl'."
        )
    # The folder may also hold *.arrow caches of later operations: only state.json knows.
    names = [entry["filename"] for entry in orjson.loads(state_path.read_bytes())["_data_files"]]
    return [
        SourceFile(path=_existing(folder / name), name=_name(folder / name, str(pattern.path), ""))
        for name in names
    ]


def _split_folder(folder: Path, split: str | None) -> Path:
    splits_path = folder / "dataset_dict.json"
    splits = orjson.loads(splits_path.read_bytes())["splits"] if splits_path.is_file() else [None]
    if split not in splits:
        raise ValueError(
            f"split={split!r}: {folder} holds "
            + (f"the splits {splits}" if splits_path.is_file() else "one dataset without splits")
        )
    return folder if split is None else folder / split
