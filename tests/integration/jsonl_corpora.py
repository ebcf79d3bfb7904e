"""Small jsonl corpora and recipes over them, for drills whose texts must be chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # OmegaConf brings it
from smoke_runs import ARM, SMOKE

# Sections of the smoke recipe that do not depend on its sources.
_SHARED_SECTIONS = (
    *("rubric", "ingest", "embedder", "group", "teacher", "discover", "anchor", "label", "score"),
    *("aggregate", "select", "blend", "midtrain"),
)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Writes one row per line; a string is written as it is, be it JSON or not."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def text_source(*paths: Path, **settings: Any) -> dict[str, Any]:
    """Returns the descriptor of a source of plain texts."""
    return {
        "format": "jsonl",
        "family": "text",
        "paths": [str(path) for path in paths],
        "fields": {"text": "text"},
        **settings,
    }


def write_recipe(
    path: Path, sources: Mapping[str, Any], train_on: Sequence[str], **sections: Any
) -> Path:
    """Writes a recipe with the smoke recipe's settings over other sources."""
    smoke = yaml.safe_load(SMOKE.read_text())
    recipe = {
        "run_folder": str(path.with_suffix("")),
        "seed": smoke["seed"],
        "sources": dict(sources),
        **{name: smoke[name] for name in _SHARED_SECTIONS},
        "tokenize": {
            **smoke["tokenize"],
            "train_vocab_size": 512,
            "train_on": list(train_on),
            "train_chars": 60_000,
        },
        "arms": {ARM: {"score": smoke["aggregate"]["scoring"], "scope": "group"}},
    }
    for name, section in sections.items():
        recipe[name] = {**recipe[name], **section}
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
