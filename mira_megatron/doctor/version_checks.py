"""Checks of releases: what the installed Megatron can train at all."""

from __future__ import annotations

from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.finding import ERROR, Finding
from mira_megatron.training.bridge_layouts import MODELS
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.bridge_versions import release, too_old
from mira_megatron.training.dense_models import QWEN25_CODER_1P5B, QWEN25_CODER_14B

PACKS_GATED_DELTA_NET = (0, 18)  # the first megatron-core whose gated_delta_net.py takes thd


def check_bridge_release(facts: TrainingFacts) -> list[Finding]:
    """Finds a Megatron-Bridge that is too old for the model."""
    if facts.bridge_version is None:
        return []
    installed = release(facts.bridge_version)[:2]
    return [
        Finding(
            level=ERROR,
            what=too_old(model, facts.bridge_version),
            where=f"megatron-bridge {facts.bridge_version}",
            way_out="take a newer container, or the recipe of a model that this release knows",
        )
        for model in _models(facts)
        if installed < model.min_bridge
    ]


def check_packed_gated_delta_net(facts: TrainingFacts) -> list[Finding]:
    """Finds packed samples in front of a linear attention that cannot read their borders."""
    if facts.mcore_version is None or not facts.is_packed:
        return []
    if facts.attention_variant != "gated_delta_net":
        return []
    if release(facts.mcore_version)[:2] >= PACKS_GATED_DELTA_NET:
        return []
    return [
        Finding(
            level=ERROR,
            what="GatedDeltaNet of this release refuses packed samples: the first step raises "
            "NotImplementedError",
            where=f"megatron-core {facts.mcore_version}",
            way_out="use megatron-core >= 0.18, or unset packed_sequence_specs",
        )
    ]


def _models(facts: TrainingFacts) -> list[ClusterModel]:
    """Returns the model that a recipe names, else those of the base model's architecture."""
    known = (*MODELS, QWEN25_CODER_14B, QWEN25_CODER_1P5B)
    named = [model for model in known if model.name == facts.model]
    architecture = facts.hf_architecture
    return named or [m for m in known if architecture in m.hf_config["architectures"]]
