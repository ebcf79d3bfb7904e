from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preflight_recipes import (
    DISTILL,
    MIDTRAIN,
    about,
    subject,
    write_base,
)

from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.training_checks import check_trainings
from mira_megatron.training.bridge_models import QWEN3_30B_A3B

ONE_GPU = {
    "model": {
        "num_layers": 48,
        "hidden_size": 5120,
        "ffn_hidden_size": 13824,
        "num_attention_heads": 40,
        "num_query_groups": 8,
        "rotary_base": 1_000_000,
        "layernorm_epsilon": 1e-6,
        "tie_embeddings": False,
    },
    "training": {"micro_batch_size": 1, "precision": "bfloat16"},
}


def _findings(folder: Path, cluster: dict[str, Any] | None = None, **more: Any) -> list[Finding]:
    return check_trainings(subject(folder, cluster, **more))


def _midtrain(**changes: Any) -> dict[str, Any]:
    return {"trainer": "bridge", "config": MIDTRAIN, "base": "base", **changes}


def _distill(folder: Path, **changes: Any) -> dict[str, Any]:
    if not (folder / "scorer_base").exists():
        write_base(folder / "scorer_base", QWEN3_30B_A3B.hf_config)
    return {**DISTILL, **changes}


def test_training_that_fits_says_what_it_takes_and_nothing_else(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {})
    assert {finding.level for finding in findings} == {INFO}
    assert about(findings, INFO, MIDTRAIN, "a step takes about 73.4 GB", "an h200 has 133")
    assert about(findings, INFO, MIDTRAIN, "attention goes across the documents of a sample")


def test_memory_is_held_against_the_card_of_the_cluster(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {"gpu": "h100"})
    assert about(findings, ERROR, "a step takes about 73.4 GB", "an h100 has 72", "more GPUs")


def test_stage_that_the_cluster_cannot_run_is_found(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {"gpu": "", "gpus_per_node": 0})
    assert about(findings, ERROR, "stage midtrain cannot be submitted", "no GPUs")


def test_layout_wider_than_a_node_is_found(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {"gpus_per_node": 4})
    assert about(findings, WARNING, "over 8 GPUs, and nodes have 4")


def test_base_of_another_size_is_found_by_field(tmp_path: Path) -> None:
    write_base(tmp_path / "base", num_hidden_layers=40)
    (line,) = about(_findings(tmp_path), ERROR)
    assert "base/config.json: num_layers=40" in line
    assert "Qwen/Qwen2.5-Coder-14B" in line


def test_base_whose_rows_are_not_the_recipes_is_found(tmp_path: Path) -> None:
    write_base(tmp_path / "base", vocab_size=151_936)
    assert about(_findings(tmp_path), ERROR, "the weights it starts from 151,936")


def test_blend_of_another_length_is_found(tmp_path: Path) -> None:
    blend = {"handover": "index_view", "sequence_length": 4096}
    (line,) = about(_findings(tmp_path, blend=blend), ERROR)
    assert "blend.sequence_length: the blend is made for samples of 4,096 tokens" in line


def test_samples_longer_than_the_base_knows_are_found(tmp_path: Path) -> None:
    write_base(tmp_path / "base", max_position_embeddings=4096)
    assert about(_findings(tmp_path), ERROR, "knows 4,096 positions, samples have 32,768")
    # Beyond its own context the recipe stretches the positions itself.
    longer = _midtrain(config="qwen25_coder_14b_midtrain_128k_8gpu_h200_bf16_config")
    blend = {"handover": "index_view", "sequence_length": 131_072}
    assert not about(_findings(tmp_path, midtrain=longer, blend=blend), ERROR)


def test_scorers_are_looked_at_as_a_single_one_is(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {}, distill=_distill(tmp_path))
    assert not about(findings, ERROR)
    assert about(findings, INFO, "distill.config=qwen3_30b_a3b", "a step takes about 89.9 GB")


def test_scorer_samples_longer_than_the_recipe_takes_are_found(tmp_path: Path) -> None:
    findings = _findings(tmp_path, distill=_distill(tmp_path, sequence_length=131_072))
    assert about(findings, ERROR, "distill.sequence_length", "lower it to 65,536")


@pytest.mark.parametrize(("num_training", "is_enough"), [(255, False), (256, True)])
def test_group_whose_samples_do_not_fill_one_batch_is_found(
    tmp_path: Path, num_training: int, is_enough: bool
) -> None:
    made = subject(tmp_path, {}, distill=_distill(tmp_path))
    folder = "sft/v1/made"
    lengths = {"num_training": num_training, "longest_sample_tokens": 4096}
    none = {"num_training": 0, "longest_sample_tokens": None}
    (tmp_path / "run" / folder).mkdir(parents=True)
    (tmp_path / "run" / folder / "lengths.json").write_text(
        json.dumps({"sequence_length": 65_536, "sources": {"wiki": lengths, "web": none}})
    )
    unit = replace(made.units[0], stage="sft-data", name="made", folder=folder)
    states = {**made.states, folder: "done"}
    findings = check_trainings(replace(made, units=(*made.units, unit), states=states))
    found = about(findings, ERROR, folder, "at most 1,044,480 tokens fill 15 samples of 65,536")
    assert bool(found) != is_enough
    assert not about(check_trainings(made), ERROR)  # they are not made yet


def test_scorers_trained_by_hand_are_not_passed_in_silence(tmp_path: Path) -> None:
    findings = _findings(tmp_path, distill=_distill(tmp_path, config=None, num_steps=None))
    assert about(findings, UNKNOWN, "distill.config", "neither layout nor memory is known")


def test_training_on_one_gpu_keeps_everything_there(tmp_path: Path) -> None:
    tokenize: dict[str, Any] = {"train_vocab_size": 4096, "train_chars": 1000, "tokenizer": None}
    settings = {"eod_token": "<|endoftext|>", "validation_fraction": 0.1}
    tokenize |= {**settings, "validation_max_tokens": 10}
    findings = _findings(tmp_path, {}, midtrain=ONE_GPU, tokenize=tokenize)
    assert about(findings, ERROR, "midtrain: a step takes about", "optimizer 159.1")


def test_memory_of_an_unknown_vocabulary_is_not_known_before_tokenize(tmp_path: Path) -> None:
    findings = _findings(tmp_path, {}, midtrain=ONE_GPU)
    assert about(findings, UNKNOWN, "before tokenize")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_base_with_a_file_missing_is_left_to_the_check_of_paths(
    tmp_path: Path, missing: str
) -> None:
    (write_base(tmp_path / "base") / missing).unlink()
    assert not about(_findings(tmp_path), ERROR)
