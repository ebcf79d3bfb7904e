"""What comes out of a training with Megatron-Bridge, as a Hugging Face folder.

Needs Megatron-Bridge. An export is of the last step and of nothing else: AutoBridge itself takes
the folder with the highest iteration, which an interrupted save may have left.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from megatron.bridge import __version__

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.distill.chatml import CHAT_TEMPLATE, END
from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.bridge_checkpoints import export_weights
from mira_megatron.training.dense_layouts import INSTRUCT_SFT, DenseRecipe
from mira_megatron.training.dense_models import (
    CARD_YARN,
    END_OF_DOCUMENT,
    LONG_CONTEXT,
    OWN_CONTEXT,
    YARN_DEFAULTS,
)
from mira_megatron.training.hf_tokenizer import write_tokenizer
from mira_megatron.training.trained_files import Trained, iteration_folder, json_of, read_trained

logger = logging.getLogger(__name__)


def export_trained(
    folders: ArmFolders, recipe: DenseRecipe, base_folder: Path, num_steps: int
) -> None:
    """Writes a finished training as a Hugging Face folder; one that is there is left as it is.

    Its config.json names the YaRN that it was trained with. Raises FileNotFoundError where the
    checkpoint of the last step is gone.
    """
    trained = read_trained(folders.export)
    if trained is not None and trained.is_of(folders.identity, num_steps):
        logger.info("%s: already exported", folders.export)
        return
    checkpoint = iteration_folder(folders.checkpoints, num_steps)
    export_weights(base_folder, checkpoint, folders.export)
    say_length(folders.export, recipe.sequence_length)
    if recipe.task == INSTRUCT_SFT:
        say_turns(folders.export, base_folder / layout.TOKENIZER_FILE, recipe.sequence_length)
    Trained(
        identity=json_of(folders.identity),
        num_steps=num_steps,
        recipe=recipe.name,
        bridge=__version__,
    ).save(folders.export)


def say_length(export_folder: Path, sequence_length: int) -> None:
    """Writes the YaRN of a long training into an export's config.json, as the model's card does."""
    if sequence_length <= OWN_CONTEXT:
        return
    path = export_folder / "config.json"
    config = json.loads(path.read_bytes())
    config["max_position_embeddings"] = LONG_CONTEXT
    # `type` is what the card writes, and older readers look for.
    config["rope_scaling"] = {**CARD_YARN, **YARN_DEFAULTS, "type": CARD_YARN["rope_type"]}
    write_json(path, config)


def say_turns(export_folder: Path, tokenizer_file: Path, max_length: int) -> None:
    """Writes the tokenizer of an instruction-tuned export: our ChatML, an answer's end its EOS.

    A base's own template may put a system prompt that was never trained, and its end of text never
    comes after an answer.
    """
    (export_folder / "chat_template.jinja").unlink(missing_ok=True)  # would win
    write_tokenizer(
        export_folder,
        tokenizer_file,
        chat_template=CHAT_TEMPLATE,
        eos_tokens=[END, END_OF_DOCUMENT],
        max_length=max_length,
    )
