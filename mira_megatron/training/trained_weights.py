"""The weights that an arm's model has when a stage after mid-training takes it up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from megatron.core.models.gpt.gpt_model import GPTModel

from mira_megatron import layout
from mira_megatron.manifest import verify_digests
from mira_megatron.stage import Workspace
from mira_megatron.training.base_model import base_shape, load_base
from mira_megatron.training.checkpoint import load_checkpoint
from mira_megatron.training.model_shape import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedWeights:
    """What a model is built as, and what then gives it its weights."""

    shape: ModelShape
    vocab_size: int  # rows of its vocabulary before padding
    load: Callable[[GPTModel], None]


def trained_weights(
    workspace: Workspace, *, checkpoint: str | None, base: Path | None, num_tokens: int
) -> TrainedWeights:
    """Returns the weights of a checkpoint trained here, or without one those of a base.

    `checkpoint` is a folder of the run, `base` the Hugging Face folder that it came of (None:
    random weights), `num_tokens` the tokens that the data was made with. Raises FileNotFoundError
    or ValueError where the base's tokenizer is another, or a file of the checkpoint has changed.
    """
    assert checkpoint is not None or base is not None, "an arm has weights of one of the two"
    vocab_size = num_tokens
    if base is not None:
        tokenizer_file = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
        way_out = "Name the base's own tokenizer as tokenize.tokenizer."
        hf = base_shape(base, tokenizer_file, num_tokens, way_out)
        shape, vocab_size = hf.shape, hf.vocab_size
    if checkpoint is None:
        assert base is not None
        load = partial(load_base, folder=base, shape=shape, setting="midtrain.base")
        return TrainedWeights(shape=shape, vocab_size=vocab_size, load=load)
    folder = workspace.run.folder / checkpoint
    manifest = workspace.upstream_manifest(checkpoint)
    verify_digests(folder, manifest)  # Megatron reads the weights itself
    if base is None:
        shape = ModelShape(**manifest.config["model"])
    load = partial(load_checkpoint, folder=folder / layout.WEIGHTS)
    return TrainedWeights(shape=shape, vocab_size=vocab_size, load=load)
