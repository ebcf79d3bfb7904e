"""Mid-train on a blend, straight on megatron-core: short runs on one machine, CPU included.

Reads   blends/<arm>/blend.json, the datasets it names, and their tokenizer
Writes  checkpoints/<arm>/trainer_state.json: loss and validation loss by step, without times
        checkpoints/<arm>/coverage.json: which tokens of which prefix one pass reads, replayed from
        the indices Megatron built
        checkpoints/<arm>/weights/: a megatron.core.dist_checkpointing checkpoint
        checkpoints/<arm>/hf/: the same as transformers and vLLM load it, where the tokenizer can
        be exported with such a model (training.hf_tokenizer)

With trainer=bridge, recipes/midtrain.py has trained the arm on a cluster, and this stage takes over
its export: checkpoints/<arm>/hf/ and training.json in place of all of these (bridge_midtrain.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted, typed
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.training.arm_folders import trained_as
from mira_megatron.training.cluster_midtrain import ClusterArm, cluster_arms, weights_of
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.schedule import TrainSettings

VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MidtrainSettings:
    """What one arm's unit needs."""

    arm: str
    model: ModelShape
    training: TrainSettings


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm; sample length and seed are those of the blend and the recipe."""
    where = f"{recipe.path}: midtrain"
    if trainer_of(recipe, "midtrain") == BRIDGE:
        return [_cluster_unit(recipe, arm) for arm in cluster_arms(recipe)]
    sections = dict(recipe.values.get("midtrain") or {})
    sections.pop("trainer", None)
    if set(sections) != {"model", "training"}:
        raise ValueError(f"{where}: expected the two sections model: and training:")
    if not all(isinstance(section, Mapping) for section in sections.values()):
        raise ValueError(f"{where}: model: and training: must be mappings, got {sections!r}")
    sequence_length = (recipe.values.get("blend") or {}).get("sequence_length")
    given = {"sequence_length": sequence_length, "seed": recipe.seed}
    model = typed(
        ModelShape,
        {"max_sequence_length": sequence_length, **sections["model"]},
        where=f"{where}.model",
    )
    training = typed(TrainSettings, {**sections["training"], **given}, where=f"{where}.training")
    return [_unit(recipe, arm, model, training) for arm in recipe.mapping("arms")]


def _unit(recipe: Recipe, arm: str, model: ModelShape, training: TrainSettings) -> Unit:
    return Unit(
        stage="midtrain",
        name=arm,
        folder=layout.checkpoints(arm),
        version=VERSION,
        config={"model": asdict(model), "training": fingerprinted(training)},
        # Of the blend's files, the tokenizer is the one that the export needs.
        upstream=(*_upstream(recipe, arm), layout.TOKENIZER),
        work="mira_megatron.training.run_midtrain:midtrain",
        settings=MidtrainSettings(arm=arm, model=model, training=training),
    )


def _cluster_unit(recipe: Recipe, arm: ClusterArm) -> Unit:
    return Unit(
        stage="midtrain",
        name=arm.arm,
        folder=layout.checkpoints(arm.arm),
        version=VERSION,
        config=trained_as(arm.recipe, arm.choices),
        upstream=_upstream(recipe, arm.arm),
        raw_files=weights_of(recipe.run_folder, arm),
        work="mira_megatron.training.bridge_midtrain:take_over_arm",
        settings=arm,
    )


def _upstream(recipe: Recipe, arm: str) -> tuple[str, ...]:
    """The views hold no tokens: what is trained on lies in the token datasets behind them."""
    sources = sorted([*recipe_sources(recipe), *adopted_sources(recipe)])
    return (layout.blend(arm), *(layout.tokens(name) for name in sources))
