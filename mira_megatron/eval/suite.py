"""A suite: which benchmarks there are, where their data lies, and under which protocol they run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from mira_megatron.config import check_name
from mira_megatron.eval.benchmark import Benchmark
from mira_megatron.eval.bigcodebench import BigCodeBench
from mira_megatron.eval.bigcodebench_data import bcb_files, bcb_options
from mira_megatron.eval.generation.sampling import Sampling, read_sampling
from mira_megatron.eval.languages import LANGUAGES
from mira_megatron.eval.livecodebench import CALL_SECONDS, LiveCodeBench
from mira_megatron.eval.livecodebench_data import edition_of, release_files
from mira_megatron.eval.mbpp import NAME as MBPP
from mira_megatron.eval.mbpp import Mbpp
from mira_megatron.eval.multipl_e import MultiplE

KINDS = ("mbpp", "multipl_e", "spider", "bird", "livecodebench", "bigcodebench")

_REQUIRED = ("kind", "category", "file", "protocol", "sampling")
_OPTIONAL = ("language", "options")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One benchmark of a suite."""

    name: str
    kind: str
    category: str  # of the report's columns
    file: Path
    protocol: str
    sampling: str  # the name of a sampling profile
    language: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # the kind's own: a release, a split


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """The benchmarks of one file."""

    name: str
    path: Path
    entries: Mapping[str, Entry]
    sampling: Mapping[str, Sampling]

    def entry(self, name: str) -> Entry:
        """Returns a benchmark's entry. Raises ValueError naming those there are."""
        if name not in self.entries:
            raise ValueError(
                f"{self.path}: no benchmark {name!r}; it has {', '.join(self.entries)}"
            )
        return self.entries[name]

    def sampling_of(self, entry: Entry) -> Sampling:
        """Returns how a benchmark's answers are drawn."""
        return self.sampling[entry.sampling]


def load_suite(path: Path, data_folder: Path | None = None) -> Suite:
    """Returns the suite of a file; `data_folder` takes the place of the one it names.

    Raises ValueError for what it lacks and for keys that are not known.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), dict):
        raise ValueError(f"{path}: no mapping `benchmarks`; see eval/suites/mira9.yaml")
    folder = data_folder if data_folder is not None else Path(str(content.get("data_folder", ".")))
    profiles = {
        str(name): read_sampling(fields, f"{path}: sampling.{name}")
        for name, fields in (content.get("sampling") or {}).items()
    }
    entries = {}
    for name, fields in content["benchmarks"].items():
        entries[name] = _entry(name, fields, folder, f"{path}: benchmarks.{name}")
        if entries[name].sampling not in profiles:
            raise ValueError(
                f"{path}: benchmarks.{name}.sampling={entries[name].sampling!r} is none of the "
                f"profiles under `sampling`: {', '.join(profiles)}"
            )
    return Suite(
        name=str(content.get("name", path.stem)), path=path, entries=entries, sampling=profiles
    )


def open_benchmark(entry: Entry, cache_folder: Path) -> Benchmark:
    """Returns the benchmark over its data file; ValueError or FileNotFoundError for the file."""
    for path in data_files(entry):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: the data file of {entry.name} is not there; name the folder that has "
                "it with --data-folder"
            )
    match entry.kind:
        case "mbpp":
            has_prefill = entry.options.get("prefill", False) is True
            return Mbpp(entry.file, cache_folder, has_prefill=has_prefill, name=_name_of(entry))
        case "spider" | "bird":
            return _sql_benchmark(entry, cache_folder)
        case "livecodebench":
            edition = edition_of(entry.options, entry.name)
            call_seconds = entry.options.get("call_seconds", CALL_SECONDS)
            return LiveCodeBench(entry.file, edition, _python_of(entry), call_seconds)
        case "bigcodebench":
            return BigCodeBench(entry.file, bcb_options(entry.options, entry.name))
        case _:
            return MultiplE(entry.file, entry.language)


def _sql_benchmark(entry: Entry, cache_folder: Path) -> Benchmark:
    """Returns Spider or BIRD, whose module needs sqlglot where no other benchmark does."""
    try:
        module = importlib.import_module("mira_megatron.eval.sql.benchmark")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{entry.name} needs {error.name}: pip install 'mira-megatron[eval]'"
        ) from error
    benchmark: Benchmark = module.open_sql(
        entry.kind, entry.name, entry.file, entry.options, cache_folder
    )
    return benchmark


def data_files(entry: Entry) -> tuple[Path, ...]:
    """Returns the files that a benchmark is read from."""
    match entry.kind:
        case "livecodebench":
            return release_files(entry.file, edition_of(entry.options, entry.name).release)
        case "bigcodebench":
            return bcb_files(entry.file, bcb_options(entry.options, entry.name))
        case _:
            return (entry.file,)


def _name_of(entry: Entry) -> str:
    name = str(entry.options.get("name", MBPP))
    check_name(f"{entry.name}: options.name", name)
    return name


def _python_of(entry: Entry) -> Path | None:
    python = entry.options.get("python")
    return None if python is None else Path(str(python))


def _entry(name: str, fields: Any, folder: Path, where: str) -> Entry:
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: {fields!r}, expected a mapping")
    missing = [key for key in _REQUIRED if not isinstance(fields.get(key), str)]
    unknown = sorted(set(fields) - {*_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        raise ValueError(f"{where}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    if fields["kind"] not in KINDS:
        raise ValueError(f"{where}.kind={fields['kind']!r}, expected one of {', '.join(KINDS)}")
    language = str(fields.get("language", ""))
    if fields["kind"] == "multipl_e" and language not in LANGUAGES:
        raise ValueError(f"{where}.language={language!r}, expected one of {', '.join(LANGUAGES)}")
    options = fields.get("options") or {}
    if not isinstance(options, dict):
        raise ValueError(f"{where}.options={options!r}, expected a mapping")
    return Entry(
        name=name,
        kind=fields["kind"],
        category=fields["category"],
        file=folder / fields["file"],
        protocol=fields["protocol"],
        sampling=fields["sampling"],
        language=language,
        # A day without quotes is a date to YAML, and results are JSON.
        options={
            key: value.isoformat() if isinstance(value, date) else value
            for key, value in options.items()
        },
    )
