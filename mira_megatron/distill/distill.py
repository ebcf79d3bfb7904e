"""Train a source group's scorer on its teacher's ratings, on one machine.

Reads   sft/<rubric>/<group>/: training.jsonl, validation.jsonl, tokenizer.json
        anchors/<rubric>/<group>/anchors.jsonl, and the base model's files where there is a base
Writes  scorers/<rubric>/<group>/scorer.json: how the scorer is to be asked (scorer_card.ScorerCard)
        scorers/<rubric>/<group>/hf/: the scorer as transformers and vLLM load it
        scorers/<rubric>/<group>/weights/: the same as a megatron.core.dist_checkpointing checkpoint
        scorers/<rubric>/<group>/trainer_state.json: loss and validation loss by step, without times
Beside  tensorboard/<rubric>.<group>/, which has times and so is no part of what is fingerprinted

With trainer=bridge, recipes/scorer_sft.py has trained the scorer on a cluster from the same SFT
data, and this stage takes over its export: no weights/, no trainer_state.json of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted, typed
from mira_megatron.corpus.raw_digests import exported_weights_digest
from mira_megatron.distill.distill_config import NESTED, DistillConfig, distill_config
from mira_megatron.grouping.source_groups import SourceGroup, source_groups
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.stage import Unit
from mira_megatron.training.bridge_group import GroupFolders
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.schedule import TrainSettings

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSettings:
    """What one group's unit needs."""

    rubric: str
    group: str
    family: str
    config: DistillConfig
    training: TrainSettings | None  # None: trained elsewhere
    model: ModelShape | None  # of random weights; None: the base's
    base: Path | None


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source group; sample length and seed are the section's and recipe's."""
    where = f"{recipe.path}: distill"
    config = distill_config(recipe)
    section = recipe.values["distill"]
    groups = source_groups(recipe).values()
    if config.trainer == "bridge":
        given = [name for name in (*NESTED, "num_epochs") if name in section]
        if given:
            raise ValueError(
                f"{where}: {', '.join(given)}: with trainer=bridge these are chosen in "
                "recipes/scorer_sft.py. Leave them out"
            )
        return [_unit(recipe, group, config, None, None) for group in groups]
    training = _training(section, config, recipe.seed, where)
    if (config.base is None) != ("model" in section):
        raise ValueError(f"{where}: give base (it brings its shape) or model, not both")
    model = None
    if config.base is None:
        shape = {"max_sequence_length": config.sequence_length, **_nested(section, "model", where)}
        model = typed(ModelShape, shape, where=f"{where}.model")
    return [_unit(recipe, group, config, training, model) for group in groups]


def _training(
    section: Mapping[str, Any], config: DistillConfig, seed: int, where: str
) -> TrainSettings:
    """Returns the settings of a training here; ValueError for one that is given elsewhere."""
    own = _nested(section, "training", where)
    given = {"sequence_length": config.sequence_length, "seed": seed}
    if twice := sorted(own.keys() & given.keys()):
        raise ValueError(
            f"{where}.training: {', '.join(twice)}: sequence_length is that of the samples "
            f"({where}.sequence_length), seed that of the recipe. Leave them out here"
        )
    return typed(TrainSettings, {**own, **given}, where=f"{where}.training")


def _nested(section: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    values = section.get(name)
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}.{name}: expected a mapping of settings, got {values!r}")
    return values


def _unit(
    recipe: Recipe,
    group: SourceGroup,
    config: DistillConfig,
    training: TrainSettings | None,
    model: ModelShape | None,
) -> Unit:
    base = None if config.base is None else recipe.path_of(config.base)
    is_here = config.trainer == "megatron_core"
    return Unit(
        stage="distill",
        name=group.name,
        folder=layout.scorer(recipe.rubric, group.name),
        version=VERSION,
        config={
            "trainer": config.trainer,
            "model": None if model is None else asdict(model),
            "training": None if training is None else fingerprinted(training),
            "num_epochs": config.num_epochs,
            "form": asdict(config.form),
            "prompt_key": score_prompt_key(group.family, config.form),
            "max_record_tokens": config.max_record_tokens,
        },
        upstream=(
            layout.sft(recipe.rubric, group.name),
            layout.anchors(recipe.rubric, group.name),
        ),
        raw_files=_raw_files(recipe, group, base, is_here=is_here),
        work="mira_megatron.distill."
        + ("run_distill:distill" if is_here else "bridge_scorer:take_over_scorer"),
        settings=DistillSettings(
            rubric=recipe.rubric,
            group=group.name,
            family=group.family,
            config=config,
            training=training,
            model=model,
            base=base,
        ),
    )


def _raw_files(
    recipe: Recipe, group: SourceGroup, base: Path | None, *, is_here: bool
) -> Callable[[], dict[str, str]] | None:
    """Returns what digests the weights from outside: the base's, or those trained elsewhere."""
    if base is None:
        return None

    def digest() -> dict[str, str]:
        folder, name = base, "base"
        if not is_here:
            folder = exported(recipe.run_folder, recipe.rubric, group.name)
            name = f"{recipe.rubric}.{group.name}"
        cache = recipe.run_folder / ".raw_digests" / f"weights-{name}.json"
        return {"weights": exported_weights_digest(folder, cache)}

    return digest


def exported(run_folder: Path, rubric: str, group: str) -> Path:
    """Returns the folder of a scorer that was trained on a cluster, on the SFT data of this run.

    Raises FileNotFoundError, saying how it is trained, where it is not there.
    """
    folder = GroupFolders(run_folder=run_folder, rubric=rubric, group=group).export
    if not (folder / "config.json").is_file():
        named = ["--run-folder", str(run_folder), "--rubric", rubric, "--group", group]
        words = f"--config NAME {shlex.join(named)}"
        raise FileNotFoundError(
            f"{folder}: the scorer of group {group} has not been trained on this SFT data. On the "
            f"cluster run recipes/scorer_sft.py import, train and export, each with {words} "
            "--base FOLDER (docs/cluster-recipes.md); then run this command again"
        )
    return folder
