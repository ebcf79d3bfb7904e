"""The tokenizer that a scorer reads and writes with: its base model's, or one made for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron import layout
from mira_megatron.atomic_files import replacing
from mira_megatron.config import Recipe
from mira_megatron.distill.chatml import END, START
from mira_megatron.distill.distill_config import DistillConfig
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe, whole_text_tokenizer


class ScorerTokenizer:
    """Encodes rendered prompts and answers as they are trained on: with the added tokens.

    Raises ValueError, naming the file, for one that is no tokenizer or cannot mark turns.
    """

    def __init__(self, path: Path) -> None:
        self._tokenizer = whole_text_tokenizer(path)
        added = self._tokenizer.get_added_tokens_decoder()
        ids = {token.content: number for number, token in added.items()}
        missing = [name for name in (START, END) if name not in ids]
        if missing:
            raise ValueError(
                f"{path}: {' and '.join(missing)} not among its added tokens. A scorer is asked in "
                "ChatML: give distill.base a model that has these tokens, such as a Qwen."
            )
        self.end_id = ids[END]
        # Runs of spaces that some vocabularies add for indented code are text, not control.
        control_ids = [
            number for number, token in added.items() if token.special or token.content.strip()
        ]
        self._control_ids = np.array(sorted(control_ids), np.int32)

    @property
    def ids(self) -> dict[str, int]:
        """Returns every token's id: two tokenizers with equal ones mean the same by an id."""
        return dict(self._tokenizer.get_vocab())

    @property
    def vocab_size(self) -> int:
        """Returns how many rows an embedding needs: ids may have holes, the highest one counts."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Returns the text's ids, nothing put around them."""
        # The batch form takes a third of the memory: it keeps no offsets.
        (encoded,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoded.ids, np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids, control tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def num_control_tokens(self, ids: npt.NDArray[np.int32]) -> int:
        """Returns how many of the ids are control tokens."""
        return int(np.isin(ids, self._control_ids).sum())


def base_tokenizer_file(recipe: Recipe, config: DistillConfig) -> Path | None:
    """Returns the tokenizer.json of the base model, None where there is no base.

    Raises FileNotFoundError where the base has none.
    """
    if config.base is None:
        return None
    path = recipe.path_of(config.base) / layout.TOKENIZER_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. distill.base must be a Hugging Face folder with weights, "
            "config.json and tokenizer.json; save a slow tokenizer as a fast one first "
            "(transformers: save_pretrained)."
        )
    return path


def train_tokenizer(texts: Iterable[str], vocab_size: int, path: Path) -> None:
    """Writes a byte-level BPE of at most `vocab_size` tokens; the same texts give the same file."""
    tokenizer = train_byte_level_bpe(texts, vocab_size)
    with replacing(path) as temporary:
        # Its own `save` says of a full disk neither which file nor that it is an OSError.
        temporary.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
