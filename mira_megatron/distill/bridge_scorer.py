"""Take over a scorer that recipes/scorer_sft.py trained on a cluster."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from mira_megatron import layout
from mira_megatron.distill.chatml import CHAT_TEMPLATE, END
from mira_megatron.distill.distill import DistillSettings, exported
from mira_megatron.distill.group_card import group_card
from mira_megatron.distill.scorer_card import EXPORT
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.manifest import Counts
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.training.hf_tokenizer import write_tokenizer

CONFIG = "config.json"

logger = logging.getLogger(__name__)


def take_over_scorer(workspace: Workspace, settings: DistillSettings) -> WorkResult:
    """Links one group's exported scorer into its folder, with the card that says how to ask it.

    Raises ValueError where the export's tokenizer is not the one the samples were made with.
    """
    source = exported(workspace.run.folder, settings.rubric, settings.group)
    sft = workspace.run.folder / layout.sft(settings.rubric, settings.group)
    tokenizer_file = sft / layout.TOKENIZER_FILE
    trained_with = source / layout.TOKENIZER_FILE
    if not trained_with.is_file() or (
        ScorerTokenizer(trained_with).ids != ScorerTokenizer(tokenizer_file).ids
    ):
        raise ValueError(
            f"{trained_with}: not the tokenizer that {tokenizer_file} is, with which the samples "
            "were made. Export the scorer with the base model that distill.base names."
        )
    folder = workspace.folder / EXPORT
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = sorted(source.glob("*.safetensors*"))
    for path in (*weights, source / CONFIG):
        _link_or_copy(path, folder / path.name)
    max_length = read_hf_length(source)
    # The base model's own template may open a thinking block, and its EOS end another turn.
    write_tokenizer(
        folder,
        tokenizer_file,
        chat_template=CHAT_TEMPLATE,
        eos_tokens=[END],
        max_length=max_length,
    )
    group_card(workspace, settings, max_length).save(workspace.folder)
    logger.info("distill %s: %d files taken over from %s", settings.group, len(weights) + 1, source)
    return WorkResult(counts=Counts(num_in=len(weights), num_out=len(weights)))


def read_hf_length(folder: Path) -> int:
    """Returns the longest sequence that a model was made for, in tokens."""
    path = folder / CONFIG
    config = json.loads(path.read_bytes())
    length = config.get("max_position_embeddings")
    if not isinstance(length, int):
        raise ValueError(f"{path}: max_position_embeddings={length!r} must be a whole number")
    return length


def _link_or_copy(path: Path, target: Path) -> None:
    """Hard links where both lie on one file system: weights are large."""
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
