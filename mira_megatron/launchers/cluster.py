"""A cluster as one YAML file says it: where jobs run, in which containers, with how much.

Recipes say what is run and never where. What is written here ends in the text of a batch script, so
every word of it is checked when the file is read: nothing that SLURM or a shell could take for more
than a word gets further (see launchers/sbatch.py, which quotes on top of that).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from mira_megatron.config import load_yaml, nearest, typed
from mira_megatron.launchers.job_file import Server, server_from_values
from mira_megatron.pipeline import STAGES

RUNTIMES = ("pyxis", "apptainer", "none")
GPUS = ("h200", "h100")
# A stage without a container or command of its own has the one of this name.
DEFAULT = "default"
# What time limits are told for: a stage without and with GPUs, one beside its server, a training.
KINDS = ("stage", "gpu", "serve", "train")

_TIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,3}):([0-5]\d):([0-5]\d)")
_SLURM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+,-]*")
_OPTION = re.compile(r"--[a-z][a-z0-9-]*(=[A-Za-z0-9._@+,:/=*&|()\[\]%^~-]+)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECONDS_PER_HOUR = 3600
# What the batch script says itself, which SLURM would heed where it is said last, and what makes
# another thing of a submission than a job in this cluster's queue.
_OURS = (
    *("account", "array", "chdir", "clusters", "cpus-per-task", "dependency", "error", "export"),
    *("export-file", "get-user-env", "gid", "gpus-per-node", "help", "hold", "job-name"),
    *("kill-on-invalid-dep", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "parsable", "partition", "qos", "requeue", "reservation", "signal"),
    *("tasks-per-node", "test-only", "time", "uid", "usage", "version", "wait", "wrap"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResources:
    """What a stage has that differs from the rest; None and "": as every stage has it."""

    nodes: int | None = None
    gpus: int | None = None  # per node
    cpus: int | None = None  # per node
    elements: int | None = None  # of an array, at most
    time: str = ""
    partition: str = ""

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("elements", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if self.time:
            seconds_of(self.time, "time")
        if self.partition:
            _check(_SLURM_NAME, "partition", self.partition, _NAME_RULE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """One cluster; "" where SLURM is to choose."""

    name: str
    gpus_per_node: int
    cpus_per_node: int
    gpu: str  # one of GPUS, "" where no stage needs one
    time_limits: Mapping[str, str]  # kind (see KINDS) -> [days-]hours:minutes:seconds
    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    extra_sbatch: tuple[str, ...] = ()  # options of sbatch, --name or --name=value
    array_cap: int = 64  # elements of an array, at most
    requeue_signal_seconds: int = 300  # before the time limit, to stop and be put back in the queue
    max_failures: int = 2  # of a job, after which it is not run again
    mounts: tuple[str, ...] = ()  # "host path:path in the container", or one path for both
    environment: tuple[str, ...] = ()  # variables handed on to jobs; no others are
    container_runtime: str = "none"
    containers: Mapping[str, str] = field(default_factory=dict)  # stage or DEFAULT -> image
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # -> how to call `mira`
    stages: Mapping[str, StageResources] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)  # stage -> who answers it

    def __post_init__(self) -> None:
        for name in ("name", "partition", "account", "qos", "reservation"):
            value = getattr(self, name)
            if value or name == "name":
                _check(_SLURM_NAME, name, value, _NAME_RULE)
        for name, least in (("gpus_per_node", 0), ("cpus_per_node", 1), ("array_cap", 1)):
            _check_least(name, getattr(self, name), least)
        _check_least("requeue_signal_seconds", self.requeue_signal_seconds, 1)
        _check_least("max_failures", self.max_failures, 0)
        if self.requeue_signal_seconds > 65_535:
            raise ValueError(
                f"requeue_signal_seconds={self.requeue_signal_seconds} must be at most 65,535, "
                "which is as far ahead as SLURM signals"
            )
        _check_choice("container_runtime", self.container_runtime, RUNTIMES)
        if self.gpu or self.gpus_per_node:
            _check_choice("gpu", self.gpu, GPUS)
        self._check_times()
        for option in self.extra_sbatch:
            _check_option(option)
        for mount in self.mounts:
            _check_mount(mount)
        for name in self.environment:
            _check(_VARIABLE, "environment", name, "the name of a variable")
        for stage, image in self.containers.items():
            _check_word(f"containers.{stage}", image)
        for stage, words in self.commands.items():
            if not words:
                raise ValueError(f"commands.{stage} must name a program")
            for word in words:
                _check_word(f"commands.{stage}", word)
        if self.container_runtime == "none" and (self.containers or self.mounts):
            raise ValueError(
                "containers and mounts need a container_runtime: pyxis or apptainer, not none"
            )

    def _check_times(self) -> None:
        for kind, time in self.time_limits.items():
            if kind not in KINDS:
                raise ValueError(f"time_limits: unknown kind {kind!r}.{nearest(kind, KINDS)}")
            seconds_of(time, f"time_limits.{kind}")
        missing = [kind for kind in KINDS if kind not in self.time_limits]
        if missing:
            raise ValueError(f"time_limits needs {', '.join(missing)}")
        told = {f"time_limits.{kind}": time for kind, time in self.time_limits.items()}
        told |= {f"stages.{name}.time": own.time for name, own in self.stages.items() if own.time}
        for where, time in told.items():
            if seconds_of(time, where) <= self.requeue_signal_seconds:
                raise ValueError(
                    f"{where}={time!r} must be longer than requeue_signal_seconds="
                    f"{self.requeue_signal_seconds}: a job would be told to stop as it begins"
                )

    def resources(self, stage: str) -> StageResources:
        """Returns what differs for a stage."""
        return self.stages.get(stage, StageResources())

    def image(self, stage: str) -> str:
        """Returns the image that a stage runs in, "" for none."""
        return self.containers.get(stage, self.containers.get(DEFAULT, ""))

    def command(self, stage: str) -> tuple[str, ...]:
        """Returns the words that call `mira` for a stage, in its container."""
        return self.commands.get(stage, self.commands.get(DEFAULT, ("mira",)))

    def time_limit(self, stage: str, kind: str) -> str:
        """Returns the time limit of a stage's jobs, which are of one of KINDS."""
        return self.resources(stage).time or self.time_limits[kind]


_NAME_RULE = "letters, digits and any of . _ @ + , -, starting with a letter or digit"


def load_cluster(path: Path) -> Cluster:
    """Returns the cluster that a YAML file describes.

    Raises FileNotFoundError without the file, and ValueError that names file and key for a key that
    is not known (with the nearest that is) or a value that does not fit.
    """
    values = load_yaml(path)
    try:
        return _cluster(values, path)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from error


def seconds_of(time: str, where: str) -> int:
    """Returns the seconds of a time limit, [days-]hours:minutes:seconds."""
    matched = _TIME.fullmatch(time)
    if matched is None:
        raise ValueError(
            f"{where}={time!r} is no time limit: [days-]hours:minutes:seconds, in quotes, as in "
            "'12:00:00' or '2-00:00:00'"
        )
    days, hours, minutes, seconds = (int(part or 0) for part in matched.groups())
    total = (days * 24 + hours) * _SECONDS_PER_HOUR + minutes * 60 + seconds
    if total == 0:
        raise ValueError(f"{where}={time!r} must be longer than nothing")
    return total


def _cluster(values: Mapping[str, Any], path: Path) -> Cluster:
    hints = get_type_hints(Cluster)
    for key in values:
        if key not in hints:
            raise ValueError(f"unknown key {key!r}.{nearest(str(key), hints)}")
    needed = [
        each.name
        for each in fields(Cluster)
        if each.default is MISSING and each.default_factory is MISSING
    ]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"needs {', '.join(missing)}; launchers/clusters/ has examples")
    given = {key: _value(hints[key], value, key) for key, value in values.items()}
    given |= {
        "commands": {
            stage: _words(words, f"commands.{stage}")
            for stage, words in _entries(values, "commands", (DEFAULT, *STAGES)).items()
        },
        "containers": {
            stage: _text(image, f"containers.{stage}")
            for stage, image in _entries(values, "containers", (DEFAULT, *STAGES)).items()
        },
        "time_limits": {
            kind: _text(time, f"time_limits.{kind}")
            for kind, time in _entries(values, "time_limits", KINDS).items()
        },
        "stages": {
            stage: typed(StageResources, own or {}, where=f"{path}: stages.{stage}")
            for stage, own in _entries(values, "stages", STAGES).items()
        },
        "servers": {
            stage: server_from_values(own, where=f"{path}: servers.{stage}")
            for stage, own in _entries(values, "servers", STAGES).items()
        },
    }
    return Cluster(**given)


def _value(hint: Any, value: object, key: str) -> Any:
    """Returns a value of the top as its field has it; mappings are read elsewhere."""
    if hint is str:
        return _text(value, key)
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{key}={value!r} must be a whole number")
        return value
    if hint == tuple[str, ...]:
        return _words(value, key)
    return value


def _entries(values: Mapping[str, Any], key: str, valid: Iterable[str]) -> Mapping[str, Any]:
    """Returns a mapping of the top by name; ValueError for a name that is not one of the valid."""
    entries = values.get(key) or {}
    if not isinstance(entries, Mapping):
        raise ValueError(f"{key} must map names to entries, got {entries!r}")
    names = list(valid)
    for name in entries:
        if name not in names:
            raise ValueError(f"{key}: unknown name {name!r}.{nearest(str(name), names)}")
    return entries


def _text(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{where}={value!r} must be text")
    if isinstance(value, int) and where.startswith(("time", "stages")):
        # YAML 1.1 takes 12:00:00 for a number to the base of sixty.
        raise ValueError(f"{where}={value!r} must be text: write times in quotes")
    return str(value)


def _words(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{where}={value!r} must be a list of words, as in [mira]")
    return tuple(value)


def _check(pattern: re.Pattern[str], name: str, value: str, rule: str) -> None:
    if not pattern.fullmatch(value):
        raise ValueError(f"{name}={value!r} must be {rule}")


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")


def _check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(valid)}")


def _check_word(name: str, value: str) -> None:
    """Raises ValueError for what a line of a script could not hold, quoted or not."""
    if not value or not value.isprintable():
        raise ValueError(f"{name}={value!r} must be text of one line, without control characters")


def _check_option(option: str) -> None:
    _check(_OPTION, "extra_sbatch", option, "an option of sbatch's as --name or --name=value")
    name = option.removeprefix("--").partition("=")[0]
    # sbatch takes the beginning of a name for the whole.
    meant = [ours for ours in _OURS if ours.startswith(name)]
    if meant:
        whole = name if name in meant else meant[0]
        raise ValueError(
            f"extra_sbatch={option!r}: --{whole} is written by mira submit. What it may be told of "
            "it has a key of its own in this file"
        )


def _check_mount(mount: str) -> None:
    _check_word("mounts", mount)
    paths = mount.split(":")
    if "," in mount or len(paths) > 3 or not all(path.startswith("/") for path in paths[:2]):
        raise ValueError(
            f"mounts={mount!r} must be /path, /path:/path or /path:/path:ro, without commas"
        )
