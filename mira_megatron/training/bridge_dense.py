"""Mid-training and instruction tuning of a dense model as Megatron-Bridge ConfigContainers.

Needs Megatron-Bridge (`requirements/bridge.txt`). The two functions are pure: no network,
environment or clock. Every parameter is trained, in bfloat16 with float32 gradients and optimizer.
"""

from __future__ import annotations

from typing import Any

from megatron.bridge import __version__
from megatron.bridge.training.tokenizers.config import TokenizerConfig

from mira_megatron.training.bridge_attention import refuse_silent_attention
from mira_megatron.training.bridge_blend import BlendDatasetProvider
from mira_megatron.training.bridge_config import (
    check_cut,
    checkpoint_config,
    container,
    dataset_config,
    plain_provider,
    tokenizer_config,
)
from mira_megatron.training.bridge_layouts import ClusterLayout, require_room
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.bridge_settings import (
    MidtrainPaths,
    ScorerSftPaths,
    TrainingChoices,
)
from mira_megatron.training.bridge_versions import require_bridge
from mira_megatron.training.bridge_yarn import with_yarn
from mira_megatron.training.dense_models import END_OF_DOCUMENT, at_length


def midtrain_config(
    model: ClusterModel, layout: ClusterLayout, choices: TrainingChoices, paths: MidtrainPaths
) -> Any:
    """Returns the ConfigContainer of continued training on a blend; then call `use_blend`.

    Attention goes across the documents of a sample: nothing else can be had of Bridge 0.3.1 with
    Transformer Engine (bridge_attention.py). Raises ValueError where the installed Megatron-Bridge
    is too old, a sample cannot be cut evenly, or a step would not fit into a GPU.
    """
    provider = _provider(model, layout, choices.sequence_length)
    data = BlendDatasetProvider(
        blend_folder=paths.blend, cache_folder=paths.index_cache, seed=choices.seed
    )
    config = container(
        layout,
        choices,
        model=provider,
        dataset=data,
        # Not the datasets' end of document, which is the blend's own; but nothing else ends a text.
        tokenizer=TokenizerConfig(
            tokenizer_type="HuggingFaceTokenizer",
            tokenizer_model=paths.tokenizer,
            hf_tokenizer_kwargs={"use_fast": True, "eos_token": END_OF_DOCUMENT},
        ),
        checkpoint=checkpoint_config(choices, paths.checkpoints, paths.base),
        tensorboard=paths.tensorboard,
    )
    data.remember(config)
    refuse_silent_attention(config)
    return config


def instruct_sft_config(
    model: ClusterModel, layout: ClusterLayout, choices: TrainingChoices, paths: ScorerSftPaths
) -> Any:
    """Returns the ConfigContainer of instruction tuning on packed pairs of input and output.

    Packed samples carry their bounds, so that no answer attends to another sample's. Raises
    ValueError as `midtrain_config` does.
    """
    return container(
        layout,
        choices,
        model=_provider(model, layout, choices.sequence_length),
        dataset=dataset_config(layout, choices, paths),
        tokenizer=tokenizer_config(paths.tokenizer),
        checkpoint=checkpoint_config(choices, paths.checkpoints, paths.base),
        tensorboard=paths.tensorboard,
    )


def _provider(model: ClusterModel, layout: ClusterLayout, sequence_length: int) -> Any:
    require_bridge(model, __version__)
    check_cut(layout, sequence_length)
    require_room(model, layout, sequence_length)
    model = at_length(model, sequence_length)
    provider = plain_provider(model, layout, sequence_length)
    scaling = model.hf_config.get("rope_scaling")
    return provider if scaling is None else with_yarn(provider, scaling)
