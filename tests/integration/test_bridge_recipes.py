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
from mira_megatron.training.dense_layouts import RECIPES as DENSE_RECIPES

pytestmark = pytest.mark.integration

QWEN3 = [
    f"qwen3_30b_a3b_scorer_sft_{gpus}gpu_{gpu}_bf16_config"
    for gpus in (8, 64)
    for gpu in ("h200", "h100")
]
DENSE = list(DENSE_RECIPES)
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


@pytest.fixture(scope="module")
def dense(bridge_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("dense")
    (folder / "base_megatron").mkdir()
    built: dict[str, Any] = run_probe(bridge_python, PROBE, ["dense", *DENSE], folder)
    return built


@pytest.mark.parametrize("name", DENSE)
def test_dense_recipe_fills_its_gpus_with_every_parameter_in_training(
    dense: dict[str, Any], name: str
) -> None:
    built, recipe = dense[name], DENSE_RECIPES[name]
    tensor, pipeline, context = built["parallel"]
    assert built["data_parallel"] * tensor * pipeline * context == recipe.layout.num_gpus
    assert tensor * pipeline * context <= 8  # within a node
    assert built["sequence_parallel"] is (tensor > 1)
    assert built["global_batch_size"] % built["data_parallel"] == 0
    assert (built["moments"], built["peft"]) == ("torch.float32", None)
    assert built["pretrained"] == "base_megatron"


@pytest.mark.parametrize("name", DENSE)
def test_dense_recipe_is_of_the_model_it_is_named_after(dense: dict[str, Any], name: str) -> None:
    built = dense[name]
    small = [28, 1536, 8960, 12, 2, 151936], True, 1e-6
    large = [48, 5120, 13824, 40, 8, 152064], False, 1e-5
    assert (built["sizes"], built["tied"], built["epsilon"]) == (small if "1p5b" in name else large)
    assert (built["qkv_bias"], built["rotary_base"]) == (True, 1_000_000)


@pytest.mark.parametrize("name", DENSE)
def test_dense_recipe_has_yarn_where_its_samples_are_long_and_there_only(
    dense: dict[str, Any], name: str
) -> None:
    built = dense[name]
    is_long = "_128k_" in name
    assert built["sequence_length"] == (131072 if is_long else 32768)
    assert built["positions"] == ("yarn" if is_long else "rope")
    expected = [4.0, 32768, 32.0, 1.0, True] if is_long else [None] * 5
    assert list(built["yarn"].values()) == expected


def test_yarn_of_megatron_is_that_of_transformers_with_the_card_s_settings(
    dense: dict[str, Any],
) -> None:
    # float32, computed in another order
    assert dense["yarn"]["ours"] == pytest.approx(dense["yarn"]["theirs"], rel=1e-5)
    assert dense["yarn"]["ours"][-1] == pytest.approx(1.1386294, abs=1e-6)  # 0.1 ln 4 + 1


@pytest.mark.parametrize("name", DENSE)
def test_dense_recipe_reads_a_blend_or_packed_answers(dense: dict[str, Any], name: str) -> None:
    built = dense[name]
    midtrain = ["BlendDatasetProvider", None, None, "<|endoftext|>", [3e-5, 3e-6]]
    instruct = ["PackedSamples", 32768, True, "<|im_end|>", [1e-5, 1e-6]]
    names = ("dataset", "packed", "answer_only_loss", "eos", "learning_rate")
    assert [built[each] for each in names] == (midtrain if "_midtrain_" in name else instruct)


@pytest.mark.parametrize("name", DENSE)
def test_doctor_finds_no_fault_with_a_dense_recipe_s_config(
    dense: dict[str, Any], name: str
) -> None:
    (found,) = dense[name]["found"]
    assert found[0] == "info"
    # What the layout's own table says of it.
    assert found[1].startswith(f"a step takes about {dense[name]['memory']:.1f} GB of a GPU")


def test_settings_that_bridge_takes_without_effect_are_refused(dense: dict[str, Any]) -> None:
    refused = dense["silent"]
    assert refused["none"] is None
    assert "skip_getting_attention_mask_from_dataset=True drops the mask" in refused["mask_dropped"]
    assert "Transformer Engine's causal attention takes no mask" in refused["mask_made"]
    assert "skip_getting" not in refused["mask_made"]
    assert "reset_position_ids=True has no effect" in refused["positions"]


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
