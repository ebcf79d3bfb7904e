"""What one SLURM job does, as a file that `mira submit` writes and `mira job` reads.

Words of commands travel here, as lists, and never through a shell. Both ends check everything: the
file lies in a folder that people edit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, nearest

SCHEMA_VERSION = 1
JOBS = "jobs"
JOB_FILE = "job.json"
SCRIPT = "script.sh"
SUBMITTED = "submitted.json"
KINDS = ("stage", "train", "serve")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Who answers a stage: started before it, waited for, and stopped after it.

    Every command is started on every node of the job. A word of it may hold {node} (the node's
    number, from 0), {nodes} (how many there are) and {head} (the first one's host name); so may an
    address, which the first node looks at.
    """

    commands: tuple[tuple[str, ...], ...]
    health_urls: tuple[str, ...]  # each answers 200 once its server is ready
    ready_seconds: int = 1800  # until all are ready, or the job has failed
    stop_seconds: int = 60  # between being asked to end and being ended

    def __post_init__(self) -> None:
        if not self.commands or not all(self.commands):
            raise ValueError("commands must hold at least one command, and each at least one word")
        if not self.health_urls:
            raise ValueError("health_urls must name at least one address")
        for url in self.health_urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"health_urls: {url!r} must be an http address")
        for name in ("ready_seconds", "stop_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """One job: a stage of a recipe, or a part of one, and how it is run."""

    name: str
    stage: str
    kind: str  # one of KINDS
    recipe: Path
    overrides: tuple[str, ...]
    recipe_digest: str  # see recipe_digest()
    run_folder: Path
    workers: int  # processes on a node
    only: str | None = None  # a unit's name, for example an arm; None: every unit of the stage
    shared: bool = False  # several do it at once, part by part
    nproc_per_node: int = 1  # processes of a training on a node: its GPUs
    max_failures: int = 2  # after which it is not run again
    server: Server | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} must be lower-case letters, digits, . _ and -")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} must be one of {', '.join(KINDS)}")
        if not self.stage:
            raise ValueError("stage must name a stage")
        if self.only == "":
            raise ValueError("only must name a unit, or be null for all of them")
        for name in ("recipe", "run_folder"):
            if not getattr(self, name).is_absolute():
                raise ValueError(f"{name}={str(getattr(self, name))!r} must be an absolute path")
        if not _DIGEST.fullmatch(self.recipe_digest):
            raise ValueError(f"recipe_digest={self.recipe_digest!r} must be 64 hex digits")
        for name, least in (("workers", 1), ("nproc_per_node", 1), ("max_failures", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if (self.kind == "serve") != (self.server is not None):
            raise ValueError("a job of kind serve has a server, and no other has one")
        if self.shared and self.kind != "stage":
            raise ValueError(f"shared: only a job of kind stage can be, not one of {self.kind}")

    @property
    def folder(self) -> Path:
        """Returns the folder of this job's files."""
        return job_folder(self.run_folder, self.name)

    @property
    def path(self) -> Path:
        """Returns where this job's file lies."""
        return self.folder / JOB_FILE

    def write(self) -> Path:
        """Writes the file at its place, whole or not at all; returns where that is."""
        values = {**asdict(self), "schema_version": SCHEMA_VERSION}
        values |= {"recipe": str(self.recipe), "run_folder": str(self.run_folder)}
        write_json(self.path, values)
        return self.path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Returns the job of a file; ValueError or FileNotFoundError names file and trouble."""
        try:
            values = orjson.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path}: no such job; `mira submit` writes it") from error
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON: {error}. {_AGAIN}") from error
        try:
            return cls(**_job_values(values))
        except ValueError as error:
            raise ValueError(f"{path}: {error}. {_AGAIN}") from error


_AGAIN = "`mira submit` writes it anew"
_TEXTS = ("name", "stage", "kind", "recipe", "recipe_digest", "run_folder")
_NUMBERS = ("workers", "nproc_per_node", "max_failures")


def job_folder(run_folder: Path, name: str) -> Path:
    """Returns the folder of a job's files."""
    return run_folder / JOBS / name


def recipe_digest(recipe: Recipe) -> str:
    """Returns the sha256 of a recipe's content with its overrides, whatever its order and form."""
    content = orjson.dumps(recipe.values, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(content).hexdigest()


def server_from_values(values: object, *, where: str) -> Server:
    """Returns a server as YAML or JSON has it; ValueError says where and what does not fit."""
    try:
        return Server(**_server_values(values))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _job_values(values: object) -> dict[str, Any]:
    """Returns the arguments of a JobFile, each of the type it must have."""
    mapping = dict(_mapping(values))
    version = mapping.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version={version!r} must be {SCHEMA_VERSION}")
    _check_keys(mapping, JobFile)
    missing = [each.name for each in fields(JobFile) if each.name not in mapping]
    if missing:
        raise ValueError(f"needs {', '.join(missing)}")
    for name in _TEXTS:
        _check_type(name, mapping[name], str)
    for name in _NUMBERS:
        _check_type(name, mapping[name], int)
    _check_type("shared", mapping["shared"], bool)
    if mapping["only"] is not None:
        _check_type("only", mapping["only"], str)
    server = mapping["server"]
    return {
        **mapping,
        "recipe": Path(mapping["recipe"]),
        "run_folder": Path(mapping["run_folder"]),
        "overrides": _words("overrides", mapping["overrides"]),
        "server": None if server is None else server_from_values(server, where="server"),
    }


def _server_values(values: object) -> dict[str, Any]:
    mapping = dict(_mapping(values))
    _check_keys(mapping, Server)
    for name in ("commands", "health_urls"):
        if not isinstance(mapping.get(name), list):
            raise ValueError(f"{name}={mapping.get(name)!r} must be a list")
    for name in ("ready_seconds", "stop_seconds"):
        if name in mapping:
            _check_type(name, mapping[name], int)
    commands = tuple(_words("commands", command) for command in mapping["commands"])
    return {
        **mapping,
        "commands": commands,
        "health_urls": _words("health_urls", mapping["health_urls"]),
    }


def _mapping(values: object) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"expected a mapping, got {values!r}")
    return values


def _check_keys(values: Mapping[str, Any], of: type[JobFile | Server]) -> None:
    valid = [each.name for each in fields(of)]
    for key in values:
        if key not in valid:
            raise ValueError(f"unknown key {key!r}.{nearest(str(key), valid)}")


def _check_type(name: str, value: object, wanted: type) -> None:
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ValueError(f"{name}={value!r} must be of type {wanted.__name__}")


def _words(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{name}={value!r} must be a list of words")
    return tuple(value)
