"""A shipped recipe for a cluster, with something small in place of every path it names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
            data = folder / own.lstrip("/").replace("*", "part")
            data.parent.mkdir(parents=True, exist_ok=True)
            data.write_bytes(
                _INSTRUCTIONS if "instructions" in own else b'{"text": "some words"}\n'
            )
        # A path of ours is one that begins at a blank, a quote, a bracket or a comma.
        text = re.sub(rf"(?<=[ \[\",])/({'|'.join(_FOLDERS)})\b", rf"{folder}/\1", text)
        target = folder / "work" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return written[0], written[1]


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
