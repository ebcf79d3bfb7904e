"""The dense bases that are mid-trained and instruction-tuned on a cluster, without a hub.

As in bridge_models.py a recipe carries its model's config, so that it builds without a network.
What a training reads of the base model's own config.json (`of_base`) is what its weights were made
with; sizes that differ are refused (bridge_checkpoints.require_model).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mira_megatron.training.bridge_models import ClusterModel

# The end of a document in Qwen2.5's pre-training, and so in a blend for it. It is the base models'
# end of text; the instruct models' is <|im_end|> (151645).
END_OF_DOCUMENT = "<|endoftext|>"
END_OF_DOCUMENT_ID = 151643

# Qwen2.5-Coder's own context is 32,768: the cards say "the current config.json is set for context
# length up to 32,768 tokens", and give this for more, up to 131,072. The technical report
# (arXiv 2409.12186, section 3.2) trained at 32,768 with a rotary base of 1,000,000 and extrapolated
# with YaRN: no longer text was trained on.
OWN_CONTEXT = 32768
LONG_CONTEXT = 131072
CARD_YARN: Mapping[str, Any] = {
    "factor": 4.0,
    "original_max_position_embeddings": OWN_CONTEXT,
    "rope_type": "yarn",
}
# The card leaves these to transformers' defaults; megatron-core takes what it is given.
YARN_DEFAULTS: Mapping[str, Any] = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}

_QWEN25: Mapping[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": END_OF_DOCUMENT_ID,
    "dtype": "bfloat16",
    "eos_token_id": END_OF_DOCUMENT_ID,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": OWN_CONTEXT,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
}

# Layers, heads and 14.7 billion parameters (13.1 without embeddings): the card of
# Qwen2.5-Coder-14B. Widths, vocabulary and the norms' epsilon: nemo_toolkit 2.7.3, Qwen25Config14B,
# which is the same architecture.
QWEN25_CODER_14B = ClusterModel(
    name="qwen25_coder_14b",
    hf_model="Qwen/Qwen2.5-Coder-14B",
    hf_config_class="Qwen2Config",
    min_bridge=(0, 3),
    packs_gated_delta_net=False,
    hf_config={
        **_QWEN25,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
    },
)

# Layers, heads, tied embeddings and 1.54 billion parameters (1.31 without embeddings): the card of
# Qwen2.5-Coder-1.5B. Widths, vocabulary and epsilon: nemo_toolkit 2.7.3, Qwen2Config1P5B (which
# does not tie the embeddings; the card does).
QWEN25_CODER_1P5B = ClusterModel(
    name="qwen25_coder_1p5b",
    hf_model="Qwen/Qwen2.5-Coder-1.5B",
    hf_config_class="Qwen2Config",
    min_bridge=(0, 3),
    packs_gated_delta_net=False,
    hf_config={
        **_QWEN25,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
)


def at_length(model: ClusterModel, sequence_length: int) -> ClusterModel:
    """Returns the model as it is trained at a length: beyond its own context, with the card's YaRN.

    Raises ValueError beyond what YaRN with the card's factor reaches.
    """
    if sequence_length <= OWN_CONTEXT:
        return model
    if sequence_length > LONG_CONTEXT:
        raise ValueError(
            f"sequence_length={sequence_length:,}: {model.hf_model} with the YaRN of its card "
            f"reaches {LONG_CONTEXT:,} tokens. Use a shorter sequence."
        )
    scaling = {**CARD_YARN, **YARN_DEFAULTS}
    config = {**model.hf_config, "max_position_embeddings": LONG_CONTEXT, "rope_scaling": scaling}
    return replace(model, hf_config=config)


def of_base(model: ClusterModel, base_folder: Path) -> ClusterModel:
    """Returns the model with the epsilon of the norms, the rotary base and the YaRN of a base.

    Raises FileNotFoundError where there is no config.json.
    """
    path = base_folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not a Hugging Face model. Give the folder with --base.")
    found = json.loads(path.read_bytes())
    found = {**(found.get("rope_parameters") or {}), **found}  # as transformers 5 writes it
    own = {name: found[name] for name in ("rms_norm_eps", "rope_theta") if name in found}
    if found.get("rope_scaling"):  # was mid-trained on long samples
        own["rope_scaling"] = {**YARN_DEFAULTS, **found["rope_scaling"]}
        own["max_position_embeddings"] = found["max_position_embeddings"]
    return replace(model, hf_config={**model.hf_config, **own})
