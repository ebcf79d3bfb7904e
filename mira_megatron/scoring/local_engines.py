"""The engines that run a model in this process; a model is loaded when the first part needs it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import cast

from mira_megatron.scoring.generation import Engine, LocalJudge, LocalModel
from mira_megatron.scoring.judge import Judge

# Imported on use: planning a recipe must not wait for torch, nor need vLLM to be installed.
_CLASSES = {
    "transformers": ("mira_megatron.scoring.transformers_engine", "TransformersEngine"),
    "vllm": ("mira_megatron.scoring.vllm_engine", "VllmEngine"),
}


def local_judge(judge: Judge, examples: Sequence[str]) -> LocalJudge:
    """Returns the judge's model, loaded; `examples` are answers that its own resemble.

    Raises ValueError where the engine is not installed or cannot load the model.
    """
    config = judge.config
    assert judge.model_folder is not None, "check_has_model, or distilled_judge"
    assert config.max_tokens is not None, "JudgeConfig"
    model = LocalModel(
        folder=judge.model_folder,
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        seed=judge.seed,
        batch_size=config.batch_size,
        gpu_memory_utilization=config.gpu_memory_utilization,
        tensor_parallel_size=config.tensor_parallel_size,
        answer_regex=judge.answer_regex,
    )
    return LocalJudge(
        load_engine(config.engine, model),
        max_tokens=config.max_tokens,
        is_expected=judge.is_expected,
        seed=judge.seed,
        temperature=config.temperature or 0.0,
        top_p=config.top_p or 1.0,
        examples=examples,
    )


def load_engine(name: str, model: LocalModel) -> Engine:
    """Returns an engine with its model loaded.

    Raises ValueError where the engine is not installed or cannot load the model.
    """
    module, class_name = _CLASSES[name]
    try:
        engine_class = getattr(importlib.import_module(module), class_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"engine={name} needs the package {error.name}, which is not installed here: "
            f'pip install "mira-megatron[{name}]", in an environment of its own for vllm'
        ) from error
    return cast("Engine", engine_class(model))
