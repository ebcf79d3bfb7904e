"""What a dry run does in place of models and data that are not on this machine, to show its graph.

A graph is planned where there is a browser and no cluster. Its jobs do not hang on what a tokenizer
holds, or a benchmark, but a recipe's stages will not be planned without it. Nothing is submitted of
such a recipe.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.eval.evaluation import missing_data

# Settings that name a tokenizer.json, or a folder with one.
_TOKENIZERS = (
    ("teacher", "tokenizer"),
    ("score", "tokenizer"),
    ("distill", "base"),
    ("tokenize", "tokenizer"),
)
# The same in every entry of a section.
_OF_ENTRIES = (
    ("scorers", "tokenizer"),
    ("baselines", "tokenizer"),
    ("baselines", "dataman_tokenizer"),
)


@contextmanager
def stand_ins(recipe: Recipe) -> Iterator[tuple[Recipe, tuple[str, ...]]]:
    """Yields the recipe with stand-ins, and the settings they stand for: `distill.base=/models/…`.

    The data of a benchmark are not stood in for but not looked into. The recipe is not to be used
    after the block, which removes the stand-ins. Raises what missing_data() does.
    """
    values = copy.deepcopy(dict(recipe.values))
    named = [(f"{section}.{key}", values.get(section), key) for section, key in _TOKENIZERS]
    for section, key in _OF_ENTRIES:
        entries = values.get(section) or {}
        if isinstance(entries, dict):
            named += [(f"{section}.{name}.{key}", entries[name], key) for name in entries]
    with tempfile.TemporaryDirectory(prefix="mira-stand-in-") as name:
        stand_in = Path(name)
        (stand_in / layout.TOKENIZER_FILE).write_text("{}", encoding="utf-8")
        missing = tuple(
            f"{setting}={_replaced(section, key, stand_in)}"
            for setting, section, key in named
            if isinstance(section, dict) and _is_missing(recipe, section.get(key))
        )
        without = missing_data(recipe)
        if without:
            missing += (f"{_data_setting(recipe)} (data of {', '.join(without)})",)
        yield replace(recipe, values=values, without_data=frozenset(without)), missing


def _data_setting(recipe: Recipe) -> str:
    """Returns what says where benchmarks' data lie: `eval.data_folder=/data/eval`."""
    section = recipe.values["eval"]
    key = "suite" if section.get("data_folder") is None else "data_folder"
    return f"eval.{key}={section[key]}"


def _is_missing(recipe: Recipe, value: object) -> bool:
    return isinstance(value, str) and not recipe.path_of(value).exists()


def _replaced(section: dict[str, Any], key: str, stand_in: Path) -> str:
    """Returns what was there: a tokenizer.json, or a folder with one."""
    value = str(section[key])
    is_file = Path(value).name == layout.TOKENIZER_FILE
    section[key] = str(stand_in / layout.TOKENIZER_FILE if is_file else stand_in)
    return value
