"""A ConfigContainer's findings, from anything with its fields."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from preflight_recipes import about

from mira_megatron.doctor.checks import check_config
from mira_megatron.doctor.finding import ERROR, INFO


class FinetuningDatasetConfig(SimpleNamespace):
    """Named as Bridge's."""


class OwnDataset(FinetuningDatasetConfig):
    """Derived from it, as ours is."""


class GPTDatasetConfig(SimpleNamespace):
    """Named as Bridge's of a blend."""


def container(dataset: Any, **changes: Any) -> Any:
    sizes = {"num_layers": 28, "hidden_size": 1536, "ffn_hidden_size": 8960, "vocab_size": 151_936}
    cut = {"tensor": 1, "pipeline": 1, "context": 2, "expert": 1}
    model = {
        **sizes,
        "num_attention_heads": 12,
        "num_query_groups": 2,
        "seq_length": 32_768,
        "share_embeddings_and_output_weights": True,
        "add_qkv_bias": True,
        "recompute_granularity": "full",
        **{f"{name}_model_parallel_size": size for name, size in cut.items() if name != "context"},
        "context_parallel_size": cut["context"],
        **changes,
    }
    return SimpleNamespace(
        model=SimpleNamespace(**model),
        dataset=dataset,
        tokenizer=SimpleNamespace(tokenizer_type="NullTokenizer", tokenizer_model=None),
        train=SimpleNamespace(global_batch_size=32, micro_batch_size=1),
    )


def test_a_blend_is_not_looked_at_as_prompts_and_answers() -> None:
    findings = check_config(container(GPTDatasetConfig()), 8)
    # The figure of the table in docs/midtraining.md.
    (line,) = about(findings, INFO)
    assert "a step takes about 30.3 GB of a GPU (weights 3.1, gradients 6.2" in line
    assert not about(findings, ERROR)


def test_fine_tuning_is_looked_at_as_prompts_and_answers() -> None:
    for dataset in (FinetuningDatasetConfig(), OwnDataset()):
        assert about(check_config(container(dataset), 8), ERROR, "tokenizer")


def test_a_model_that_cannot_be_cut_so_is_found() -> None:
    findings = check_config(container(GPTDatasetConfig(), tensor_model_parallel_size=8), 16)
    assert about(findings, ERROR, "12 attention heads cannot be cut into 8 equal parts")
    assert not about(findings, INFO)


def test_a_model_that_does_not_say_its_sizes_is_no_error() -> None:
    assert check_config(container(GPTDatasetConfig(), hidden_size=None), 8) == []
