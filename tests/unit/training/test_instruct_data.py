"""Steps and folders of an instruction tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster_runs import SFT_CONFIG, write_base

from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.bridge_settings import InstructSftChoices
from mira_megatron.training.dense_layouts import INSTRUCT_SFT, find_dense_recipe
from mira_megatron.training.instruct_data import (
    instruct_folders,
    instruct_steps,
    make_instruct_data,
)
from mira_megatron.training.instruct_rows import ROWS

CHOICES = InstructSftChoices(sequence_length=32768)


def folders(tmp_path: Path, data: list[Path], num_epochs: int = 2) -> ArmFolders:
    recipe = find_dense_recipe(SFT_CONFIG, INSTRUCT_SFT)
    base = tmp_path / "base"
    if not base.exists():
        write_base(base)
    return instruct_folders(tmp_path, "early", recipe, base, CHOICES, data, num_epochs)


def test_steps_are_the_passes_over_the_tokens(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text("{}")
    found = folders(tmp_path, [data])
    with pytest.raises(FileNotFoundError, match="Make them with the step `data`"):
        instruct_steps(CHOICES, found, 2)
    found.data.mkdir(parents=True)
    # 32 samples of 32,768 tokens a step: 1,048,576
    rows = {"num_training": 9, "num_validation": 1, "training_tokens": 5 * 2**20 + 9, "dropped": {}}
    (found.data / ROWS).write_text(json.dumps(rows))
    assert instruct_steps(CHOICES, found, 2).num_steps == 10
    # A sample's last token is read by nothing, and takes no place.
    (found.data / ROWS).write_text(json.dumps({**rows, "training_tokens": 5 * 2**20 + 8}))
    assert instruct_steps(CHOICES, found, 2).num_steps == 9


def test_instructions_that_fill_no_batch_are_refused_by_every_step(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text("{}")
    found = folders(tmp_path, [data])
    found.data.mkdir(parents=True)
    rows = {"num_training": 9, "num_validation": 1, "training_tokens": 2**20 + 9, "dropped": {}}
    (found.data / ROWS).write_text(json.dumps(rows))
    assert instruct_steps(CHOICES, found, 1).num_steps == 1
    (found.data / ROWS).write_text(json.dumps({**rows, "training_tokens": 2**19 + 9}))
    message = (
        r"9 samples of 524,297 tokens fill about 16\.0 packed ones of 32,768.* reads 32\. Give"
    )
    with pytest.raises(ValueError, match=message):
        instruct_steps(CHOICES, found, 2)
    with pytest.raises(ValueError, match=message):
        make_instruct_data(found, [data], tmp_path / "base" / "tokenizer.json")


def test_other_instructions_and_passes_are_another_training(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text("{}")
    before = folders(tmp_path, [data])
    assert before.checkpoints.parent == tmp_path / "bridge/instruct-sft.early"
    assert folders(tmp_path, [data], num_epochs=3).checkpoints != before.checkpoints
    (tmp_path / "elsewhere").mkdir()
    copied = tmp_path / "elsewhere/a.jsonl"
    copied.write_text("{}")
    assert folders(tmp_path, [copied]).checkpoints == before.checkpoints
    copied.write_text("{ }")
    assert folders(tmp_path, [copied]).checkpoints != before.checkpoints
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl: no such file"):
        folders(tmp_path, [tmp_path / "b.jsonl"])
