from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from mira_megatron.doctor import doctor
from mira_megatron.doctor.environment import (
    check_cuda_build,
    check_disk,
    check_one_environment,
    check_transformers,
    installed_versions,
)
from mira_megatron.training.bridge_group import GroupFolders
from mira_megatron.training.bridge_models import QWEN3_30B_A3B

# 30.5 billion parameters x 14 bytes: 427 GB a checkpoint.
THREE_CHECKPOINTS = 30_532_122_624 * 14 * 3


def test_disk_without_room_for_the_checkpoints_is_found() -> None:
    (finding,) = check_disk(Path("runs"), THREE_CHECKPOINTS - 1, QWEN3_30B_A3B, num_kept=2)
    assert (finding.level, finding.where) == ("error", "runs")
    assert not check_disk(Path("runs"), THREE_CHECKPOINTS, QWEN3_30B_A3B, num_kept=2)


def test_vllm_beside_bridge_is_found() -> None:
    assert check_one_environment({"vllm": "0.32.0", "megatron-bridge": "0.3.1"})
    assert not check_one_environment({"vllm": "0.32.0", "megatron-bridge": None})


def test_cpu_torch_on_a_machine_with_gpus_is_found() -> None:
    assert check_cuda_build({"torch": "2.13.0+cpu"}, ["NVIDIA H200"])
    assert not check_cuda_build({"torch": "2.13.0+cpu"}, [])
    assert not check_cuda_build({"torch": "2.13.0+cu130"}, ["NVIDIA H200"])


def test_transformers_too_new_for_bridge_is_found() -> None:
    assert check_transformers({"megatron-bridge": "0.3.1", "transformers": "5.16.1"})
    assert not check_transformers({"megatron-bridge": "0.3.1", "transformers": "4.57.6"})
    assert not check_transformers({"megatron-bridge": "0.5.1", "transformers": "5.8.1"})


def test_installed_versions_know_what_is_here_and_what_is_not() -> None:
    versions = installed_versions()
    assert versions["megatron-core"] is not None
    assert set(versions) == {
        "torch",
        "megatron-core",
        "megatron-bridge",
        "transformer-engine",
        "transformers",
        "vllm",
    }


def test_doctor_without_a_recipe_lists_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.run(Console(width=120), None)
    assert "megatron-core" in capsys.readouterr().out


def test_doctor_of_an_unknown_recipe_names_those_there_are(tmp_path: Path) -> None:
    training = doctor.Training(
        recipe="qwen3_30b_a3b_scorer_sft_9gpu_h200_bf16_config",
        folders=GroupFolders(run_folder=tmp_path, rubric="code", group="text-group1"),
        base_folder=tmp_path,
    )
    with pytest.raises(ValueError, match="qwen3_30b_a3b_scorer_sft_8gpu_h200_bf16_config"):
        doctor.run(Console(), training)
