"""A recipe that mid-trains on a cluster, all that it names, and the cluster: for preflights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.config import load_recipe
from mira_megatron.doctor.finding import Finding
from mira_megatron.doctor.subject import Subject, subject_of
from mira_megatron.launchers.cluster import load_cluster
from mira_megatron.training.dense_models import QWEN25_CODER_14B

MIDTRAIN = "qwen25_coder_14b_midtrain_8gpu_h200_bf16_config"
SCORER = "qwen3_30b_a3b_scorer_sft_8gpu_h200_bf16_config"
EOD_TOKEN = "<|endoftext|>"
CLUSTER: Mapping[str, Any] = {
    "name": "here",
    "gpu": "h200",
    "gpus_per_node": 8,
    "cpus_per_node": 96,
    "time_limits": dict.fromkeys(("stage", "gpu", "serve", "train"), "04:00:00"),
}
DISTILL: Mapping[str, Any] = {
    "trainer": "bridge",
    "config": SCORER,
    "num_steps": 10,
    "base": "scorer_base",
    "max_record_tokens": 1024,
    "sequence_length": 65_536,
    "validation_fraction": 0.1,
}


def write_tokenizer(path: Path, **ids: int) -> None:
    """Writes a tokenizer.json of three tokens; `ids` gives some of them other ids."""
    vocabulary = {"a": 0, "b": 1, "c": 2, **ids}
    end = {"id": vocabulary.pop(EOD_TOKEN, 3), "content": EOD_TOKEN}
    path.write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": [end]}))


def write_base(
    folder: Path, hf_config: Mapping[str, Any] = QWEN25_CODER_14B.hf_config, **changes: Any
) -> Path:
    """Writes what is looked at of a base model's Hugging Face folder, and returns it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**hf_config, **changes}))
    write_tokenizer(folder / "tokenizer.json")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOD_TOKEN}))
    return folder


def write_recipe(folder: Path, **sections: Any) -> Path:
    """Writes a recipe of one source that mid-trains; its base and its source are made once."""
    if not (folder / "base").exists():
        write_base(folder / "base")
    if not (folder / "wiki.jsonl").exists():
        (folder / "wiki.jsonl").write_text('{"text": "some words"}\n')
    source = {"format": "jsonl", "family": "text", "paths": ["wiki.jsonl"]}
    values = {
        "run_folder": str(folder / "run"),
        "sources": {"wiki": {**source, "fields": {"text": "text"}}},
        "ingest": {"records_per_part": 100, "max_bad_fraction": 0.1},
        "tokenize": {
            "tokenizer": "base/tokenizer.json",
            "eod_token": EOD_TOKEN,
            "validation_fraction": 0.1,
            "validation_max_tokens": 100,
        },
        "select": {"budget_tokens": 1000},
        "arms": {"half": {"score": "random", "scope": "global"}},
        "blend": {"handover": "index_view", "sequence_length": 32_768},
        "midtrain": {"trainer": "bridge", "config": MIDTRAIN, "base": "base"},
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return path


def write_cluster(folder: Path, **changes: Any) -> Path:
    """Writes a cluster of nodes with 8 x H200."""
    path = folder / "cluster.yaml"
    path.write_bytes(orjson.dumps({**CLUSTER, **changes}))
    return path


def subject(folder: Path, cluster: Mapping[str, Any] | None = None, **sections: Any) -> Subject:
    """Returns the recipe with these sections on a cluster with these changes; None: on none."""
    recipe = load_recipe(write_recipe(folder, **sections))
    where = None if cluster is None else load_cluster(write_cluster(folder, **cluster))
    return subject_of(recipe, where)


def about(findings: Sequence[Finding], level: str, *words: str) -> list[str]:
    """Returns the findings of a level that hold all the words, each on one line."""
    lines = [
        f"{finding.where}: {finding.what} -> {finding.way_out}"
        for finding in findings
        if finding.level == level
    ]
    return [line for line in lines if all(word in line for word in words)]
