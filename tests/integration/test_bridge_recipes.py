"""Our recipes in the real Megatron-Bridge 0.3.1, and our samples in its own datasets.

Bridge runs in an environment of its own (`make bridge`), with stand-ins for what needs CUDA.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from bridge_samples import SAMPLES, learned, trained_pairs, write_samples
from bridge_tokenizers import write_tokenizer_folder
from environments import environment_python, run_probe

from mira_megatron.distill.sft_files import BRIDGE_DATASET_KWARGS

pytestmark = pytest.mark.integration

QWEN3 = [
    f"qwen3_30b_a3b_scorer_sft_{gpus}gpu_{gpu}_bf16_config"
    for gpus in (8, 64)
    for gpu in ("h200", "h100")
]
QWEN35 = "qwen35_35b_a3b_scorer_sft_8gpu_h200_bf16_config"

PROBE = ["bridge_stand_ins.py", "bridge_probe.py"]


@pytest.fixture(scope="module")
def bridge_python() -> Path:
    return environment_python("bridge")


@pytest.fixture(scope="module")
def recipes(bridge_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "base_megatron").mkdir()  # newer releases ask whether it is there
    built: dict[str, Any] = run_probe(bridge_python, PROBE, ["config", *QWEN3, QWEN35], folder)
    return built


@pytest.mark.parametrize("name", QWEN3)
def test_recipe_parallel_sizes_multiply_to_its_gpus(recipes: dict[str, Any], name: str) -> None:
    built = recipes[name]
    tensor, pipeline, context, expert = built["parallel"]
    num_gpus = int(name.split("gpu")[0].rsplit("_", 1)[1])
    assert built["kind"] == "ConfigContainer"
    assert built["data_parallel"] * tensor * pipeline * context == num_gpus
    assert num_gpus % (expert * pipeline) == 0
    assert built["distributed_optimizer"]


@pytest.mark.parametrize("name", QWEN3)
def test_recipe_trains_every_parameter_of_the_right_model(
    recipes: dict[str, Any], name: str
) -> None:
    built = recipes[name]
    assert (built["layers"], built["experts"], built["rotary_base"]) == (48, [128, 8], 10_000_000)
    assert built["moe"] == [True, "alltoall", 1e-3]
    assert built["bf16"] == [True, True]
    assert built["peft"] is None
    is_small = "8gpu_h100" in name and "64gpu" not in name
    assert built["moments"] == ("torch.bfloat16" if is_small else "torch.float32")
    assert built["grad_reduce_in_fp32"] is not is_small


@pytest.mark.parametrize("name", QWEN3)
def test_recipe_reads_packed_answers_with_the_real_tokenizer(
    recipes: dict[str, Any], name: str
) -> None:
    built = recipes[name]
    assert built["sequence_length"] == [65536] * 3
    assert built["pad_to"] == 2 * built["parallel"][2]
    assert BRIDGE_DATASET_KWARGS.items() <= built["dataset"].items()
    assert built["dataset"]["answer_only_loss"] is True
    assert built["tokenizer"] == ["HuggingFaceTokenizer", "base_hf"]
    assert built["eos"] == "<|im_end|>"


def test_qwen35_recipe_on_this_bridge_says_what_it_needs(recipes: dict[str, Any]) -> None:
    assert "needs Megatron-Bridge >= 0.5, and 0.3.1 is installed" in recipes[QWEN35]["error"]


@pytest.mark.parametrize("context_parallel", [1, 2])
def test_samples_in_bridge_are_input_and_output_ids_with_loss_on_the_output(
    bridge_python: Path, tmp_path: Path, context_parallel: int
) -> None:
    tokenizer = write_tokenizer_folder(tmp_path / "base", eos_token="<|endoftext|>")
    write_samples(tmp_path / "data")
    made = run_probe(
        bridge_python,
        PROBE,
        ["samples", "data", "base", str(context_parallel)],
        tmp_path,
    )
    expected = [trained_pairs(tokenizer, *sample) for sample in SAMPLES]
    plain = [learned(batch, 0, len(batch["tokens"])) for batch in made["unpacked"]]
    assert plain == expected
    packed = [pairs for batch in made["packed"] for pairs in _pieces(batch)]
    assert sorted(packed) == sorted(expected)
    assert made["eos"] == tokenizer.token_to_id("<|im_end|>")


def _pieces(batch: dict[str, Any]) -> list[list[list[int]]]:
    bounds = [bound for bound in batch["cu_seqlens"] if bound >= 0]
    spans = itertools.pairwise(bounds)
    return [
        learned(batch, start, end)
        for start, end in spans
        if math.fsum(batch["loss_mask"][start:end])
    ]
