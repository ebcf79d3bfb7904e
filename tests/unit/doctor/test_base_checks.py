from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from preflight_recipes import about, subject

from mira_megatron.doctor.base_checks import check_bases, check_instructions, missing_files
from mira_megatron.doctor.finding import ERROR, WARNING, Finding

INSTRUCT_SFT = "qwen25_coder_1p5b_instruct_sft_8gpu_h200_bf16_config"  # 2**20 tokens a step


def _instructions(folder: Path, name: str = "chats.jsonl") -> list[Finding]:
    tuning: dict[str, Any] = {"trainer": "bridge", "config": INSTRUCT_SFT, "data": [name]}
    return list(check_instructions(subject(folder, instruct_sft=tuning)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_base_that_lacks_a_file_is_found(tmp_path: Path, name: str) -> None:
    looked_at = subject(tmp_path)
    assert list(check_bases(looked_at)) == []
    (tmp_path / "base" / name).write_bytes(b"")
    assert about(list(check_bases(looked_at)), ERROR, "midtrain.base", f"{name}: no such file")
    (tmp_path / "base" / name).unlink()
    assert about(list(check_bases(looked_at)), ERROR, "midtrain.base", f"{name}: no such file")


def test_every_shard_of_the_index_is_to_be_there(tmp_path: Path) -> None:
    subject(tmp_path)
    base = tmp_path / "base"
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (base / "model-1.safetensors").write_bytes(b"weights")
    assert missing_files(base) == ["model-2.safetensors"]


def test_instructions_are_read_as_the_training_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    line = json.dumps({"input": "x" * 100, "output": "y"}) + "\n"
    for num_lines, level in ((8_000, ERROR), (20_000, WARNING), (40_000, None)):
        path.write_text(line * num_lines)
        assert [found.level for found in _instructions(tmp_path)] == ([level] if level else [])
    path.write_text('{"question": "a"}\n' + line * 40_000)
    assert about(_instructions(tmp_path), ERROR, "chats.jsonl:1: missing_field")
    packed = tmp_path / "chats.jsonl.gz"
    packed.write_bytes(gzip.compress(line.encode()))
    assert _instructions(tmp_path, packed.name) == []
