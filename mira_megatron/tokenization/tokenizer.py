"""Text to token ids for training: control tokens only where a renderer wrote them.

A Hugging Face tokenizer turns `<|endoftext|>` or `<|im_start|>` into one control token wherever the
string occurs; inside a record that would be a false document end. So records are encoded by the
tokenizer without its added tokens, and the control tokens that a renderer wrote are put in by id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One record's tokens."""

    ids: npt.NDArray[np.int64]  # EOD included
    num_control_texts: int  # control-token strings inside the record, encoded as ordinary text


class RecordEncoder:
    """A tokenizer that keeps control tokens out of record text."""

    def __init__(self, path: Path, eod_token: str) -> None:
        content = _read(path)
        self._control_ids = {
            token["content"]: int(token["id"]) for token in content.get("added_tokens") or []
        }
        if eod_token not in self._control_ids:
            raise ValueError(
                f"{path}: tokenize.eod_token={eod_token!r} is not one of its added tokens "
                f"({', '.join(sorted(self._control_ids)) or 'it has none'}). Name the token that "
                "ends a document in pre-training."
            )
        self.eod_id = self._control_ids[eod_token]
        self.vocab_size = Tokenizer.from_str(json.dumps(content)).get_vocab_size()
        plain = {**content, "added_tokens": [], "post_processor": None}
        plain |= {"truncation": None, "padding": None}
        self._plain = Tokenizer.from_str(json.dumps(plain))
        self._control_text = re.compile("|".join(map(re.escape, self._control_ids)))

    def encode(
        self, texts: Sequence[str], control_spans: Sequence[Sequence[int]]
    ) -> Iterator[Encoded]:
        """Yields one document per text, the EOD at its end.

        `control_spans` gives for each text the character offsets (start, end, start, end …) of the
        control tokens a renderer wrote; one the tokenizer does not have is ordinary text too.
        """
        split = [self._split(text, spans) for text, spans in zip(texts, control_spans, strict=True)]
        plain = [piece for pieces in split for piece in pieces if isinstance(piece, str)]
        encodings = iter(self._plain.encode_batch_fast(plain, add_special_tokens=False))
        for pieces in split:
            ids: list[int] = []
            num_control_texts = 0
            for piece in pieces:
                if isinstance(piece, int):
                    ids.append(piece)
                    continue
                ids.extend(next(encodings).ids)
                num_control_texts += sum(1 for _ in self._control_text.finditer(piece))
            ids.append(self.eod_id)
            yield Encoded(np.array(ids, dtype=np.int64), num_control_texts)

    def _split(self, text: str, spans: Sequence[int]) -> list[str | int]:
        """Returns the text as plain pieces and control ids, nothing lost between them."""
        pieces: list[str | int] = []
        plain_from = 0
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            control_id = self._control_ids.get(text[start:end])
            if control_id is None:
                continue
            if start > plain_from:
                pieces.append(text[plain_from:start])
            pieces.append(control_id)
            plain_from = end
        if plain_from < len(text):
            pieces.append(text[plain_from:])
        return pieces


def train_byte_level_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Returns a byte-level BPE trained on `texts`, with Qwen's control tokens added.

    For demos and tests: a trainee's own tokenizer is given by its folder. The same texts give the
    same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_file(path: Path) -> Path:
    """Returns the tokenizer.json of a Hugging Face folder, or the file itself."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file. tokenize.tokenizer must name a tokenizer.json or a folder with "
            "one; save a slow tokenizer as a fast one first (transformers: save_pretrained)."
        )
    return file


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a tokenizer.json ({error})") from error
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{path}: not a tokenizer.json (no `model` in it)")
    return content
