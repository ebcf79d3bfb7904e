"""Text to token ids for training: control tokens only where a renderer wrote them.

A Hugging Face tokenizer turns `<|endoftext|>` or `<|im_start|>` into one control token wherever the
string occurs; inside a record that would be a false document end. So records are encoded by the
tokenizer without its added tokens, and the control tokens that a renderer wrote are put in by id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """A tokenizer that keeps control tokens out of record text.

    Raises ValueError, naming the file, for one that cannot: without the EOD token, or with a model
    that finds control tokens in plain text by itself (Unigram, with `</s>` in its vocabulary).
    """

    def __init__(self, path: Path, eod_token: str) -> None:
        content = _read(path)
        stock = _tokenizer(path, content)
        added = content.get("added_tokens") or []
        # Runs of spaces that some vocabularies add for indented code are text, not control.
        is_text = [not token["content"].strip() and not token.get("special") for token in added]
        controls = [
            token["content"] for token, text in zip(added, is_text, strict=True) if not text
        ]
        vocabulary = stock.get_vocab()
        self._control_ids = {name: vocabulary[name] for name in controls}
        if eod_token not in self._control_ids:
            raise ValueError(
                f"{path}: tokenize.eod_token={eod_token!r} is not one of its added tokens "
                f"({', '.join(sorted(self._control_ids)) or 'it has none'}). Name the token that "
                "ends a document in pre-training."
            )
        self.eod_id = self._control_ids[eod_token]
        # Ids may have holes; what the embedding and the .bin must hold is the highest one.
        self.vocab_size = max(vocabulary.values()) + 1
        text_tokens = [token for token, text in zip(added, is_text, strict=True) if text]
        plain = {**content, "added_tokens": text_tokens, "post_processor": None}
        plain |= {"truncation": None, "padding": None}
        self._plain = _tokenizer(path, plain)
        self._control_text = re.compile("|".join(map(re.escape, self._control_ids)))
        self._path = path
        self._check_plain(text_tokens, stock, _unknown_token(content["model"]))
        self._splits_like_stock = self._is_split_like_stock(stock, eod_token)

    def _check_plain(
        self,
        text_tokens: Sequence[Mapping[str, Any]],
        stock: Tokenizer,
        unknown_token: str | None,
    ) -> None:
        for token in text_tokens:
            name = token["content"]
            if self._plain.token_to_id(name) != stock.token_to_id(name):
                raise ValueError(
                    f"{self._path}: its added token {name!r} would get another id without the "
                    "control tokens. Such a tokenizer is not supported."
                )
        # What the model says of any text it does not know is no control token.
        unknown_id = self._plain.token_to_id(unknown_token) if unknown_token else None
        control_ids = set(self._control_ids.values()) - {unknown_id}
        for name in self._control_ids:
            if control_ids & set(self._plain.encode(name, add_special_tokens=False).ids):
                raise ValueError(
                    f"{self._path}: its model turns the text {name!r} into a control token by "
                    "itself, so a record could end a document. Such a tokenizer is not supported."
                )

    def _is_split_like_stock(self, stock: Tokenizer, eod_token: str) -> bool:
        """Returns whether text after a control token is encoded as text at the start is."""
        around = stock.encode(f"a{eod_token}a", add_special_tokens=False).ids
        alone = self._plain.encode("a", add_special_tokens=False).ids
        return bool(around == [*alone, self.eod_id, *alone])

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
        if spans and not self._splits_like_stock:
            raise ValueError(
                f"{self._path}: it encodes text after a control token unlike text at the start "
                "(Metaspace), which rendered records of qa and agent families cannot have. Such a "
                "tokenizer is supported for sources of family text only."
            )
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


def whole_text_tokenizer(path: Path) -> Tokenizer:
    """Returns a tokenizer.json as it is, but for cutting and padding; ValueError if it is none."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path}: not a tokenizer.json ({error})") from error
    # A saved tokenizer may cut at its training length, and would then see no further.
    tokenizer.no_truncation()
    tokenizer.no_padding()
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


def _unknown_token(model: Mapping[str, Any]) -> str | None:
    if model.get("unk_id") is not None:  # Unigram
        name: str = model["vocab"][model["unk_id"]][0]
        return name
    return model.get("unk_token")


def _tokenizer(path: Path, content: Mapping[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path}: not a tokenizer.json ({error})") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a tokenizer.json ({error})") from error
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{path}: not a tokenizer.json (no `model` in it)")
    return content
