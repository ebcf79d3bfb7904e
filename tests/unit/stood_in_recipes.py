"""A shipped recipe for a cluster, with something small in place of every path it names."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigcodebench_files import write_bcb
from eval_files import write_mbpp, write_multipl_e
from livecodebench_files import lcb_row, write_lcb
from sql_files import write_bird, write_spider

from mira_megatron.eval.suite import load_suite
from mira_megatron.training.bridge_models import QWEN3_30B_A3B
from mira_megatron.training.dense_models import QWEN25_CODER_1P5B, QWEN25_CODER_14B

ROOT = Path(__file__).parents[2]
_FOLDERS = ("data", "models", "work", "images")
_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "Qwen2.5-Coder-14B": QWEN25_CODER_14B.hf_config,
    "Qwen2.5-Coder-1.5B": QWEN25_CODER_1P5B.hf_config,
    "Qwen3-30B-A3B": QWEN3_30B_A3B.hf_config,
}
_END = "<|endoftext|>"
_EVAL_DATA = "/data/eval"
# Enough to fill a batch of 2**20 tokens.
_INSTRUCTIONS = b'{"input": "%s", "output": "an answer"}\n' % (b"a question " * 3000) * 400


def stood_in(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes a recipe and a cluster of the repository, `recipe cluster`, with paths in `folder`.

    Returns both. Everything under /data, /models and /images that they name is there, and small.
    """
    written = []
    for path in (ROOT / "recipes" / name.split()[0], ROOT / "launchers/clusters" / name.split()[1]):
        text = path.read_text(encoding="utf-8")
        for own in re.findall(r"/images/[\w.-]+|/work/envs/[\w./-]+|/models/[\w./-]+", text):
            _make(folder / own.lstrip("/"))
        for own in re.findall(r"/data/[\w./*-]+", text):
            if own == _EVAL_DATA:
                continue
            data = folder / own.lstrip("/").replace("*", "part")
            data.parent.mkdir(parents=True, exist_ok=True)
            data.write_bytes(
                _INSTRUCTIONS if "instructions" in own else b'{"text": "some words"}\n'
            )
        # A path of ours is one that begins at a blank, a quote, a bracket or a comma.
        text = re.sub(rf"(?<=[ \[\",])/({'|'.join(_FOLDERS)})\b", rf"{folder}/\1", text)
        target = folder / "work" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    shutil.copytree(ROOT / "eval/suites", folder / "work/eval/suites")
    _make_benchmarks(folder / _EVAL_DATA.lstrip("/"))
    return written[0], written[1]


def _make_benchmarks(folder: Path) -> None:
    """Writes a task or two of every benchmark of the paper's suite."""
    for entry in load_suite(ROOT / "eval/suites/mira9.yaml", folder).entries.values():
        entry.file.parent.mkdir(parents=True, exist_ok=True)
        match entry.kind:
            case "mbpp":
                write_mbpp(entry.file)
            case "bigcodebench":
                write_bcb(entry.file)
                write_bcb(entry.file.parent / entry.options["hard"])
            case "livecodebench":
                write_lcb(entry.file, lcb_row())
            case "spider":
                write_spider(entry.file.parent, ["SELECT name FROM singer"])
            case "bird":
                write_bird(entry.file.parent, ["SELECT name FROM singer"])
            case _:
                write_multipl_e(entry.file, entry.language)


def _make(path: Path) -> None:
    """Writes an image, a program, or a model's folder as far as it is looked at."""
    if "models" not in path.parts:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return
    folder = path.parent if path.name == "tokenizer.json" else path
    folder.mkdir(parents=True, exist_ok=True)
    config = _CONFIGS.get(folder.name, {})
    (folder / "config.json").write_text(json.dumps(dict(config)))
    tokenizer = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": _END}]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": _END}))
    (folder / "model.safetensors").write_bytes(b"weights")
