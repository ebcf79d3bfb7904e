"""Our recipe in the real NeMo 2.7.3, and our samples in its own dataset (`make nemo`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge_samples import SAMPLES, learned, trained_pairs, write_samples
from bridge_tokenizers import write_tokenizer_folder
from environments import environment_python, run_probe

from mira_megatron.distill.sft_files import BRIDGE_DATASET_KWARGS
from mira_megatron.training.dense_layouts import RECIPES

pytestmark = pytest.mark.integration

SIZES = [(8, "h200"), (64, "h200"), (64, "h100")]


@pytest.fixture(scope="module")
def nemo_python() -> Path:
    return environment_python("nemo")


@pytest.fixture(scope="module")
def recipes(nemo_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("recipes")
    names = [recipe_name(num_gpus, gpu) for num_gpus, gpu in SIZES]
    built: dict[str, Any] = run_probe(nemo_python, ["nemo_probe.py"], ["config", *names], folder)
    return built


def recipe_name(num_gpus: int, gpu: str) -> str:
    return f"qwen3_30b_a3b_scorer_sft_{num_gpus}gpu_{gpu}_bf16_recipe"


@pytest.mark.parametrize(("num_gpus", "gpu"), SIZES)
def test_nemo_recipe_trains_every_parameter_on_answers_only(
    recipes: dict[str, Any], num_gpus: int, gpu: str
) -> None:
    built = recipes[recipe_name(num_gpus, gpu)]
    tensor, pipeline, context, expert = built["parallel"]
    assert built["function"] == "nemo.collections.llm.api.finetune"
    assert built["gpus"] == num_gpus
    assert num_gpus % (tensor * pipeline * context) == 0
    assert num_gpus % (expert * pipeline) == 0
    assert (built["layers"], built["experts"], built["peft"]) == (48, [128, 8], None)
    assert built["sequence_length"] == [65536, 65536]
    assert built["rotary_base"] == 10_000_000
    assert (built["per_token_loss"], built["average_in_collective"]) == (True, False)
    assert built["data"] == "FineTuningDataModule"
    assert BRIDGE_DATASET_KWARGS.items() <= built["dataset"].items()
    assert built["tokenizer"] == ["base_hf", "<|im_end|>"]
    assert (built["learning_rate"], built["distributed_optimizer"]) == (1e-5, True)
    assert built["base"] == "base_megatron"


def test_samples_in_nemo_are_input_and_output_ids_with_loss_on_the_output(
    nemo_python: Path, tmp_path: Path
) -> None:
    tokenizer = write_tokenizer_folder(tmp_path / "base", eos_token="<|endoftext|>")
    write_samples(tmp_path / "data")
    made = run_probe(nemo_python, ["nemo_probe.py"], ["samples", "data", "base"], tmp_path)
    assert [learned(batch, 0, len(batch["tokens"])) for batch in made["samples"]] == [
        trained_pairs(tokenizer, *sample) for sample in SAMPLES
    ]


MIDTRAIN = [
    *(f"qwen25_coder_14b_midtrain_{size}_bf16" for size in ("8gpu_h200", "8gpu_h100")),
    *(f"qwen25_coder_14b_midtrain_{size}_bf16" for size in ("64gpu_h200", "64gpu_h100")),
    "qwen25_coder_1p5b_midtrain_8gpu_h200_bf16",
]
LONG = "qwen25_coder_14b_midtrain_128k_64gpu_h200_bf16_config"


@pytest.fixture(scope="module")
def midtrain(nemo_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("midtrain")
    names = [f"{name}_recipe" for name in MIDTRAIN]
    arguments = ["midtrain", *names, LONG]
    built: dict[str, Any] = run_probe(nemo_python, ["nemo_probe.py"], arguments, folder)
    return built


@pytest.mark.parametrize("name", MIDTRAIN)
def test_nemo_midtrain_recipe_continues_the_base_on_a_blend(
    midtrain: dict[str, Any], name: str
) -> None:
    built, recipe = midtrain[f"{name}_recipe"], RECIPES[f"{name}_config"]
    layout, values = recipe.layout, recipe.model.hf_config
    assert built["function"] == "nemo.collections.llm.api.pretrain"
    assert (built["gpus"], built["steps"]) == (layout.num_gpus, 1000)
    assert built["parallel"] == [layout.tensor_parallel, 1, layout.context_parallel]
    assert built["sequence_parallel"] is (layout.tensor_parallel > 1)
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    assert built["sizes"] == [values[each] for each in sizes]
    assert (built["tied"], built["epsilon"]) == ("1p5b" in name, values["rms_norm_eps"])
    assert (built["sequence_length"], built["rotary_base"]) == (32768, 1_000_000)
    assert (built["data"], built["blend"]) == ("BlendDataModule", "blend")
    assert built["global_batch_size"] == layout.global_batch_size
    assert (built["learning_rate"], built["distributed_optimizer"]) == ([3e-5, 3e-6], True)
    assert built["base"] == "base_megatron"


def test_nemo_has_no_yarn_and_says_so(midtrain: dict[str, Any]) -> None:
    assert "NeMo 2.7 has no YaRN" in midtrain["refused"]
