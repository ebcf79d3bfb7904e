"""Take over a scorer that recipes/scorer_sft.py trained on a cluster."""

from __future__ import annotations

import json
import logging
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
from mira_megatron.training.hf_weight_files import CONFIG, link_or_copy, weight_files

logger = logging.getLogger(__name__)


def take_over_scorer(workspace: Workspace, settings: DistillSettings) -> WorkResult:
    """Links one group's exported scorer into its folder, with the card that says how to ask it.

    Raises ValueError where the export's tokenizer is not the one the samples were made with, and
    ValueError or FileNotFoundError where an interrupted export left it unfinished.
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
    weights = weight_files(source, script="recipes/scorer_sft.py")
    max_length = _max_length(source)
    folder = workspace.folder / EXPORT
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in (*weights, source / CONFIG):
        link_or_copy(path, folder / path.name)
    # The base model's own template may open a thinking block, and its EOS end another turn.
    write_tokenizer(
        folder,
        tokenizer_file,
        chat_template=CHAT_TEMPLATE,
        eos_tokens=[END],
        max_length=max_length,
    )
    # What is longer than the samples was never trained, and would cost memory for its keys.
    max_model_len = min(max_length, settings.config.sequence_length)
    group_card(workspace, settings, max_model_len).save(workspace.folder)
    logger.info("distill %s: %d files taken over from %s", settings.group, len(weights) + 1, source)
    return WorkResult(counts=Counts(num_in=len(weights), num_out=len(weights)))


def _max_length(folder: Path) -> int:
    """Returns the longest sequence that a model was made for, in tokens."""
    path = folder / CONFIG
    length = json.loads(path.read_bytes()).get("max_position_embeddings")
    if not isinstance(length, int):
        raise ValueError(
            f"{path}: max_position_embeddings={length!r} must be a whole number. Export the text "
            "model, not one that wraps it (docs/cluster-recipes.md)."
        )
    return length
