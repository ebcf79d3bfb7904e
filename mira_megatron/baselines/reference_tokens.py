"""The tokens of texts by a model's own tokenizer.json, as it is.

transformers may build another tokenizer of a folder: of a model type that it has a class for it
takes that class's way of cutting words, whatever the file says. Losses by a server and by
transformers are of the same tokens, so both read the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from mira_megatron.tokenization.tokenizer import whole_text_tokenizer


class ReferenceTokens:
    """A tokenizer.json; ValueError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self._tokenizer: Tokenizer = whole_text_tokenizer(path)
        # What looks like a control token in a record is text, as it is for the trainee.
        self._tokenizer.encode_special_tokens = True

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of texts, without any that begin or end a text by themselves."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [each.ids for each in found]


@lru_cache(maxsize=4)
def reference_tokens(path: Path) -> ReferenceTokens:
    """Returns the tokenizer of a file, read once."""
    return ReferenceTokens(path)
