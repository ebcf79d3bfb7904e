"""The instances of SWE-bench and the patches that an agent made for them, read and checked.

Reads   the dataset's rows as .jsonl, .json or .parquet, in the form of SWE-bench 5: with image,
        eval_script, log_parser and eval_type
        predictions of any agent: .jsonl, or .json as a list or by instance, with instance_id,
        model_name_or_path and model_patch

What both files say is not trusted: an id or an image is used in file names and command lines, and
is refused unless it is made of the characters that such names have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

NUM_MULTILINGUAL = 300  # instances of SWE-bench Multilingual

_TEXTS = ("instance_id", "image", "repo", "version", "eval_script", "log_parser", "eval_type")
_LISTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,299}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """One row of the dataset."""

    instance_id: str
    image: str
    repo: str
    gold_patch: str  # "" where the row has none
    row: Mapping[str, Any]  # as the official package wants it


def load_instances(path: Path) -> dict[str, Instance]:
    """Returns the instances of a file by id, in its order; ValueError says what a row lacks."""
    instances: dict[str, Instance] = {}
    for number, row in enumerate(_rows(path), start=1):
        where = f"{path}: row {number:,}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {type(row).__name__}, expected an object")
        instance = _instance(row, where)
        if instance.instance_id in instances:
            raise ValueError(f"{where}: {instance.instance_id} is there twice")
        instances[instance.instance_id] = instance
    if not instances:
        raise ValueError(f"{path}: no instances")
    return instances


def load_patches(path: Path, instances: Mapping[str, Instance]) -> dict[str, str]:
    """Returns an agent's patches by instance, "" where it gave none.

    Raises ValueError for instances that the dataset does not have, or that are there twice.
    """
    content = _parsed_file(path)
    if isinstance(content, dict):
        content = list(content.values())
    patches: dict[str, str] = {}
    for number, fields in enumerate(content, start=1):
        where = f"{path}: prediction {number:,}"
        if not isinstance(fields, dict) or not isinstance(fields.get("instance_id"), str):
            raise ValueError(f"{where}: no instance_id")
        instance_id, patch = fields["instance_id"], fields.get("model_patch", 0)
        if instance_id not in instances:
            raise ValueError(
                f"{where}: {instance_id!r} is none of the dataset's {len(instances):,} instances"
            )
        if instance_id in patches:
            raise ValueError(f"{where}: {instance_id} is there twice; give one patch for each")
        if patch is not None and not isinstance(patch, str):
            raise ValueError(f"{where}: {instance_id}: model_patch is no text and not null")
        patches[instance_id] = patch or ""
    if not patches:
        raise ValueError(f"{path}: no predictions")
    return patches


def gold_patches(path: Path, instances: Mapping[str, Instance]) -> dict[str, str]:
    """Returns the dataset's own patches, which must resolve their instances."""
    patches = {name: each.gold_patch for name, each in instances.items() if each.gold_patch}
    if not patches:
        raise ValueError(f"{path}: no row has a `patch`; give the rows as SWE-bench has them")
    return patches


def check_all_instances(path: Path, instances: Sequence[str]) -> None:
    """Raises ValueError where a dataset is not all of SWE-bench Multilingual."""
    if len(instances) != NUM_MULTILINGUAL:
        raise ValueError(
            f"{path}: {len(instances):,} instances, and SWE-bench Multilingual has "
            f"{NUM_MULTILINGUAL}: a score over others is another score. Give all rows, or --subset"
        )


def _instance(row: Mapping[str, Any], where: str) -> Instance:
    missing = [name for name in _TEXTS if not isinstance(row.get(name), str)]
    missing += [name for name in _LISTS if _strings(row.get(name)) is None]
    if missing:
        raise ValueError(
            f"{where}: no {', '.join(missing)}; expected the rows of SWE-bench 5.0 or later"
        )
    instance_id, image = row["instance_id"], row["image"]
    if not _ID.fullmatch(instance_id):
        raise ValueError(f"{where}: instance_id {instance_id[:80]!r} is no name of an instance")
    if not _IMAGE.fullmatch(image):
        raise ValueError(f"{where}: image {image[:80]!r} is no name of an image")
    patch = row.get("patch")
    return Instance(
        instance_id=instance_id,
        image=image,
        repo=row["repo"],
        gold_patch=patch if isinstance(patch, str) else "",
        row={**row, **{name: _strings(row[name]) for name in _LISTS}},
    )


def _strings(value: object) -> list[str] | None:
    """Returns a list of texts, which the dataset may hold as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return list(value) if is_list and isinstance(value, list) else None


def _rows(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        rows: list[Any] = pq.read_table(path).to_pylist()
        return rows
    content = _parsed_file(path)
    if isinstance(content, dict):
        raise ValueError(f"{path}: an object, expected a list of rows")
    return content


def _parsed_file(path: Path) -> list[Any] | dict[str, Any]:
    """Returns what a .json holds, or the lines of a .jsonl."""
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"{path}: expected a file that ends in .json or .jsonl")
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            parsed = json.loads(content)
            if not isinstance(parsed, list | dict):
                raise ValueError(f"{type(parsed).__name__}, expected a list or an object")
            return parsed
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    lines = []
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from error
    return lines
