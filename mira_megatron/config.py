"""One YAML file is one experiment: recipes, their overrides, and typed sections.

Paths inside a YAML file are relative to that file, also where the command line overrides them; the
run folder, and a source added on the command line, are relative to the working directory.

    before:   # recipes that are run to their end before this one; or a list of their paths
      base: {recipe: base.yaml, run_folder: runs/base, set: {seed: 3}}   # all but recipe optional
    midtrain: {base: "${before.base.run_folder}/checkpoints/raw/hf", ...}

In `before` the run folder is always there once the recipe is loaded, as an absolute path.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml  # only its error class; OmegaConf brings it
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

Config = TypeVar("Config")

SECTIONS = (
    "run_folder",
    "before",
    "reuse",
    "seed",
    "rubric",
    "sources",
    "ingest",
    "embedder",
    "group",
    "teacher",
    "discover",
    "anchor",
    "label",
    "distill",
    "score",
    "scorers",
    "reliability",
    "plan",
    "aggregate",
    "baselines",
    "tokenize",
    "adopt",
    "select",
    "arms",
    "blend",
    "midtrain",
    "instruct_sft",
    "eval",
    "ablation",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A loaded recipe; stages turn its sections into their own typed configs."""

    path: Path
    run_folder: Path
    reuse: tuple[Path, ...]
    seed: int
    rubric: str  # names the groups, judgments, anchors and ratings of this recipe
    values: Mapping[str, Any]
    overrides: tuple[str, ...] = ()  # that made these values of the file's
    before: tuple[Recipe, ...] = ()  # those that this one names; they may name others
    is_provisional: bool = False  # plans are made of it to be checked or shown, never run
    without_data: frozenset[str] = frozenset()  # benchmarks that such a plan does not look into

    def section(self, name: str, config_class: type[Config]) -> Config:
        """Returns one section as its typed config; ValueError names a key that does not fit."""
        values = self.values.get(name) or {}
        return typed(config_class, values, where=f"{self.path}: {name}")

    def mapping(self, name: str) -> dict[str, Any]:
        """Returns a section that maps names to entries (sources, arms), names checked.

        Sorted by name: the order in which a recipe lists them decides nothing.
        """
        entries = self.values.get(name) or {}
        if not isinstance(entries, Mapping):
            raise ValueError(f"{self.path}: {name} must map names to entries, got {entries!r}")
        for key in entries:
            check_name(f"{self.path}: {name}", str(key))
        return dict(sorted(entries.items()))

    def path_of(self, value: str) -> Path:
        """Returns a path written in this recipe, relative to the recipe's own folder."""
        return (self.path.parent / Path(value).expanduser()).resolve()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Before:
    """An entry of `before`."""

    recipe: str
    run_folder: str | None = None  # null: the recipe's own
    set: dict[str, Any] = dataclasses.field(default_factory=dict)  # its other settings


def load_recipe(
    path: Path, overrides: Sequence[str] = (), *, after: tuple[Path, ...] = ()
) -> Recipe:
    """Returns the recipe at `path` with `key=value` overrides applied, and those before it.

    `after` are the recipes that it is loaded for. Raises FileNotFoundError for a missing file and
    ValueError for an unknown section, a word that is not an override, or a recipe before itself.
    """
    if path.resolve() in after:
        circle = [*after[after.index(path.resolve()) :], path.resolve()]
        raise ValueError(
            f"{path}: is to be run before itself: {' needs '.join(map(str, circle))}. Take it out "
            "of `before` in one of them"
        )
    values = load_yaml(path)
    values["sources"] = _source_entries(path.parent, values.get("sources"), str(path))
    if "before" in values:
        values["before"] = _before_entries(values["before"], f"{path}: before")
    for word in overrides:
        if "=" not in word:
            raise ValueError(f"{word!r}: expected key=value, for example seed=7")
    if "${oc.env" in str(values) or "${oc.env" in str(overrides):
        raise ValueError(
            f"{path}: ${{oc.env:...}} would write a variable's value into manifests. Give the "
            "value itself; API keys are named by score.api_key_env"
        )
    try:
        merged = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist(list(overrides)))
        assert isinstance(merged, DictConfig), "both are mappings"
        before = _loaded_before(merged, path, after)
        values = typing.cast("dict[str, Any]", OmegaConf.to_container(merged, resolve=True))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {_first_line(error)}") from error
    for key in values:
        if key not in SECTIONS:
            raise ValueError(f"{path}: unknown section {key!r}.{nearest(str(key), SECTIONS)}")
    # Sources named on the command line start from the working directory.
    values["sources"] = _source_entries(Path.cwd(), values["sources"], "command line")
    rubric = str(values.get("rubric") or "mira")
    check_name(f"{path}: rubric", rubric)
    run_folder = Path(values.get("run_folder") or Path("runs") / path.stem)
    return Recipe(
        path=path.resolve(),
        run_folder=run_folder.expanduser().resolve(),
        reuse=tuple(Path(folder).expanduser().resolve() for folder in values.get("reuse") or ()),
        seed=_whole(values.get("seed", 0), f"{path}: seed"),
        rubric=rubric,
        values=values,
        overrides=tuple(overrides),
        before=before,
    )


def _before_entries(given: object, where: str) -> dict[str, Any]:
    """Returns the entries of `before` by name; a path alone is named after its file."""
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        entries: dict[str, Any] = {Path(each).stem: each for each in given}
        if len(entries) < len(given):
            raise ValueError(f"{where}: {given} names two files alike; write NAME: PATH instead")
    elif isinstance(given, Mapping):
        entries = dict(given)
    else:
        raise ValueError(f"{where}: must map names to recipes, or list their paths, got {given!r}")
    for name in entries:
        check_name(where, str(name))
    return {
        name: {"recipe": entry} if isinstance(entry, str) else entry
        for name, entry in entries.items()
    }


def _loaded_before(merged: DictConfig, path: Path, after: tuple[Path, ...]) -> tuple[Recipe, ...]:
    """Returns the recipes that `merged` names in `before`, and writes their run folders there."""
    where = f"{path}: before"
    if "before" not in merged:
        return ()
    # A list on the command line replaces the whole; `set` may refer to the rest of the recipe.
    found = OmegaConf.to_container(merged, resolve=False)
    assert isinstance(found, dict)
    merged.before = _before_entries(found["before"], where)
    loaded = []
    for name in merged.before:
        content = OmegaConf.to_container(merged.before[name], resolve=True)
        entry = typed(_Before, typing.cast("Any", content), where=f"{where}.{name}")
        own = {} if entry.run_folder is None else {"run_folder": entry.run_folder}
        words = [f"{key}={json.dumps(value)}" for key, value in {**entry.set, **own}.items()]
        recipe_path = path.parent / Path(entry.recipe).expanduser()
        recipe = load_recipe(recipe_path, words, after=(*after, path.resolve()))
        merged.before[name].run_folder = str(recipe.run_folder)
        loaded.append(recipe)
    return tuple(loaded)


def check_name(what: str, name: str) -> None:
    """Raises ValueError for a name that could not be a folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what}: {name!r} is no name: letters, digits, '_' and '-', starting with a letter or "
            "digit, because it becomes a folder"
        )


def typed(config_class: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """Returns `values` as a flat frozen dataclass; ValueError says where and which key is wrong."""
    fields = typing.get_type_hints(config_class)
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping of settings, got {values!r}")
    for key in values:
        if key not in fields:
            raise ValueError(f"{where}: unknown key {key!r}.{nearest(str(key), fields)}")
    converted = {
        key: _whole(value, f"{where}.{key}") if _is_whole(fields[key], value) else value
        for key, value in values.items()
    }
    missing = [name for name in _needed(config_class) if name not in converted]
    if missing:
        raise ValueError(f"{where}: needs {', '.join(missing)}; recipes/demo.yaml has an example")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(config_class), converted)
        return typing.cast("Config", OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = f".{error.full_key}" if error.full_key else ""
        raise ValueError(f"{where}{key}: {_first_line(error)}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _needed(config_class: type[Any]) -> list[str]:
    """Returns the fields that have no default."""
    nothing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(config_class)
        if field.default is nothing and field.default_factory is nothing
    ]


def fingerprinted(config: Any) -> dict[str, Any]:
    """Returns the fields of a config that decide bytes.

    A field declared with metadata {"execution": True} (endpoints, time limits) is left out, and one
    with {"younger": True} while it has its default: units finished before there was such a setting
    stay finished.
    """
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if not field.metadata.get("execution", False)
        and not (field.metadata.get("younger", False) and _has_default(config, field))
    }


def _has_default(config: Any, field: dataclasses.Field[Any]) -> bool:
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return bool(getattr(config, field.name) == default)


def nearest(key: str, valid: typing.Iterable[str]) -> str:
    """Returns the tail of a message about an unknown key: the nearest valid one, or all of them."""
    names = list(valid)
    close = difflib.get_close_matches(key, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Valid: {', '.join(sorted(names))}."


def _source_entries(base: Path, entries: object, where: str) -> dict[str, Any]:
    """Returns every source as a mapping; its `folder` is what its paths start from."""
    if entries is None:
        return {}
    if not isinstance(entries, Mapping):
        raise ValueError(f"{where}: sources must map names to descriptors, got {entries!r}")
    return {name: _source_entry(base, entry, where, name) for name, entry in entries.items()}


def _source_entry(base: Path, entry: object, where: str, name: str) -> dict[str, Any]:
    if isinstance(entry, str):
        descriptor = (base / entry).resolve()
        return {**load_yaml(descriptor), "folder": str(descriptor.parent)}
    if isinstance(entry, Mapping):
        return {**entry, "folder": str((base / str(entry.get("folder", "."))).resolve())}
    raise ValueError(f"{where}: sources.{name} must be a descriptor's path or a mapping")


def load_yaml(path: Path) -> dict[str, Any]:
    """Returns a YAML file's mapping; ValueError or FileNotFoundError names the file."""
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    except OSError as error:  # a folder, or YAML that is neither mapping nor list
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected a mapping at the top")
    return typing.cast("dict[str, Any]", loaded)


def _is_whole(hint: Any, value: object) -> bool:
    accepts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return int in accepts and float not in accepts and isinstance(value, float)


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{where}={value!r} must be a whole number")
    return int(value)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
