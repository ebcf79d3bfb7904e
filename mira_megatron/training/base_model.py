"""Starting from the weights of a Hugging Face folder instead of random ones."""

from __future__ import annotations

from pathlib import Path

from megatron.core.models.gpt.gpt_model import GPTModel

from mira_megatron import layout
from mira_megatron.shards import file_digest
from mira_megatron.training.hf_config import HfShape, read_hf_shape
from mira_megatron.training.hf_weights import load_hf_weights
from mira_megatron.training.model_shape import ModelShape


def base_shape(folder: Path, tokenizer_file: Path, num_tokens: int, way_out: str) -> HfShape:
    """Returns the shape of a base whose tokenizer is the one that the data was made with.

    Raises FileNotFoundError for a folder without a tokenizer; ValueError, with the way out, where
    it is another, and where `num_tokens`, the tokens of it, are more than the model has rows for.
    """
    own = folder / layout.TOKENIZER_FILE
    if not own.is_file():
        raise FileNotFoundError(
            f"{own}: no such file. A base is a Hugging Face folder with its config.json, weights "
            "and tokenizer.json."
        )
    if file_digest(own) != file_digest(tokenizer_file):
        raise ValueError(
            f"{tokenizer_file}: the samples were made with another tokenizer than {own}, so their "
            f"ids would mean other tokens to the base model. {way_out}"
        )
    hf = read_hf_shape(folder)
    if num_tokens > hf.vocab_size:
        raise ValueError(
            f"{own}: its token ids go up to {num_tokens - 1:,}, but the model beside it has "
            f"{hf.vocab_size:,} rows of vocabulary. Put the model's own tokenizer there, or resize "
            "the model."
        )
    return hf


def load_base(model: GPTModel, *, folder: Path, shape: ModelShape, setting: str) -> None:
    """Loads the base's weights; ValueError, naming the folder, where one is not a finite number."""
    load_hf_weights(model, folder, shape)
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(
                f"{folder}: the base model's weights hold infinities or NaN ({name} in Megatron's "
                f"words), so its loss is no number. Fetch the model anew, or name another as "
                f"{setting}."
            )
