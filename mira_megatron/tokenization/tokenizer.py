"""Text to token ids for training: control tokens only where a renderer wrote them.

A Hugging Face tokenizer turns `<|endoftext|>` or `<|im_start|>` into one control token wherever the
string occurs; inside a record that would be a false document end. So records are encoded by the
tokenizer without its added tokens, and the control tokens that a renderer wrote are put in by id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from mira_megatron.tokenization.document_layout import (
    DocumentLayout,
    assembled,
    pieces_and_ids,
    texts_alone,
)
from mira_megatron.tokenization.index_file import token_dtype
from mira_megatron.tokenization.plain_encoders import (
    GigatokenEncoder,
    HuggingFaceEncoder,
    TokenLists,
    choose_encoder,
)
from mira_megatron.tokenization.self_check import first_difference
from mira_megatron.tokenization.text_columns import TextError, check_texts, count_matches

# Megatron stores ids as int32 at most: its index has no code for unsigned 32 bits.
_MAX_IDS = 2**31

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
# How Qwen2, 2.5 and 3 cut text before BPE.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """The documents of many texts, one after another, each with the EOD at its end."""

    ids_T: npt.NDArray[np.number]  # of the dtype that the .bin has
    num_tokens_D: npt.NDArray[np.int64]
    num_control_texts: int  # control-token strings inside the texts, encoded as ordinary text


class RecordEncoder:
    """A tokenizer that keeps control tokens out of record text.

    Raises ValueError, naming the file, for one that cannot: without the EOD token, with a model
    that finds control tokens in plain text by itself (Unigram, with `</s>` in its vocabulary), or
    with ids that Megatron's int32 cannot hold.
    """

    def __init__(self, path: Path, eod_token: str, backend: str = "auto") -> None:
        content = _read(path)
        added = content.get("added_tokens") or []
        # Runs of spaces that some vocabularies add for indented code are text, not control.
        is_text = [not token["content"].strip() and not token.get("special") for token in added]
        text_tokens = [token for token, text in zip(added, is_text, strict=True) if text]
        without_control = {**content, "added_tokens": text_tokens, "post_processor": None}
        plain_json = orjson.dumps(without_control | {"truncation": None, "padding": None})
        plain = _tokenizer(path, plain_json)
        stock = _with_added_tokens(plain, added)
        controls = [
            token["content"] for token, text in zip(added, is_text, strict=True) if not text
        ]
        self._path = path
        ids = {token["content"]: stock.token_to_id(token["content"]) for token in added}
        self._control_ids: dict[str, int] = {name: ids[name] for name in controls}
        self.eod_id = self._eod_id(eod_token)
        # Ids may have holes; what the embedding and the .bin must hold is the highest one.
        self.vocab_size = max([_highest_id(content["model"]), *ids.values()]) + 1
        if self.vocab_size > _MAX_IDS:
            raise ValueError(
                f"{path}: token ids up to {self.vocab_size - 1:,}, but a .bin holds them as int32, "
                f"below {_MAX_IDS:,}. Such a tokenizer is not supported."
            )
        self.token_dtype = token_dtype(self.vocab_size)
        self._control_text = re.compile("|".join(map(re.escape, self._control_ids)).encode())
        self._reference = HuggingFaceEncoder(plain)
        self._check_plain(plain, text_tokens, stock, _unknown_token(content["model"]))
        self._splits_like_stock = self._is_split_like_stock(plain, stock, eod_token)
        self._encoder = choose_encoder(plain, plain_json, backend, where=path)

    @property
    def backend(self) -> str:
        """Returns what encodes: gigatoken or huggingface."""
        return self._encoder.name

    def prepare(self, num_threads: int) -> None:
        """Loads ahead what `num_threads` threads need that will call `encode` at the same time."""
        if isinstance(self._encoder, GigatokenEncoder):
            self._encoder.prepare(num_threads)

    def _eod_id(self, eod_token: str) -> int:
        if eod_token not in self._control_ids:
            raise ValueError(
                f"{self._path}: tokenize.eod_token={eod_token!r} is not one of its added tokens "
                f"({', '.join(sorted(self._control_ids)) or 'it has none'}). Name the token that "
                "ends a document in pre-training."
            )
        return self._control_ids[eod_token]

    def _check_plain(
        self,
        plain: Tokenizer,
        text_tokens: Sequence[Mapping[str, Any]],
        stock: Tokenizer,
        unknown_token: str | None,
    ) -> None:
        for token in text_tokens:
            name = token["content"]
            if plain.token_to_id(name) != stock.token_to_id(name):
                raise ValueError(
                    f"{self._path}: its added token {name!r} would get another id without the "
                    "control tokens. Such a tokenizer is not supported."
                )
        # What the model says of any text it does not know is no control token.
        unknown_id = plain.token_to_id(unknown_token) if unknown_token else None
        control_ids = set(self._control_ids.values()) - {unknown_id}
        for name in self._control_ids:
            if control_ids & set(plain.encode(name, add_special_tokens=False).ids):
                raise ValueError(
                    f"{self._path}: its model turns the text {name!r} into a control token by "
                    "itself, so a record could end a document. Such a tokenizer is not supported."
                )

    def _is_split_like_stock(self, plain: Tokenizer, stock: Tokenizer, eod_token: str) -> bool:
        """Returns whether text after a control token is encoded as text at the start is."""
        around = stock.encode(f"a{eod_token}a", add_special_tokens=False).ids
        alone = plain.encode("a", add_special_tokens=False).ids
        return bool(around == [*alone, self.eod_id, *alone])

    def encode(
        self, texts: pa.LargeStringArray, control_spans: pa.ListArray | None = None
    ) -> EncodedTexts:
        """Returns one document per text, the EOD at its end.

        `control_spans` gives for each text the character offsets (start, end, start, end …) of the
        control tokens a renderer wrote; one the tokenizer does not have is ordinary text too.
        Raises TextError for a text that is null or no UTF-8, and where gigatoken gives other ids
        than Hugging Face.
        """
        check_texts(texts)
        if control_spans is None or not len(control_spans.flatten()):
            layout = texts_alone(texts, self.eod_id)
        else:
            spans = zip(texts.to_pylist(), control_spans.to_pylist(), strict=True)
            layout = pieces_and_ids([self._split(*both) for both in spans], self.eod_id)
        encoded = self._encoder.encode(layout.pieces)
        self._check_sample(layout, encoded)
        ids_T, num_tokens_D = assembled(layout, encoded, self.token_dtype)
        return EncodedTexts(ids_T, num_tokens_D, count_matches(self._control_text, layout.pieces))

    def _check_sample(self, layout: DocumentLayout, encoded: TokenLists) -> None:
        if self._encoder.name == self._reference.name:
            return
        other = first_difference(layout.pieces, encoded, self._encoder, self._reference)
        if other is not None:
            raise TextError(
                layout.document_of(other.text),
                f"{self._encoder.name} encodes it unlike Hugging Face: token {other.token} after "
                f"byte {other.start} of its text is {other.found}, expected {other.expected}. "
                "Nothing of it was written: set tokenize.backend=huggingface and run again.",
            )

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


def train_byte_level_bpe(
    texts: Iterable[str], vocab_size: int, *, cuts_like_qwen: bool = False
) -> Tokenizer:
    """Returns a byte-level BPE trained on `texts`, with Qwen's control tokens added.

    For demos and tests: a trainee's own tokenizer is given by its folder. The same texts give the
    same tokenizer. One that `cuts_like_qwen` (NFC, then Qwen's split) can be exported with a dense
    model, which transformers takes for a Qwen2; without, text is cut as GPT-2 does.
    """
    tokenizer = Tokenizer(models.BPE())
    if cuts_like_qwen:
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    else:
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


def _with_added_tokens(plain: Any, added: Sequence[Mapping[str, Any]]) -> Any:
    """Returns the stock tokenizer, with the model of `plain`: reading a large one twice is slow."""
    stock = Tokenizer(plain.model)
    for component in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(plain, component) is not None:
            setattr(stock, component, getattr(plain, component))
    options = ("single_word", "lstrip", "rstrip", "normalized", "special")
    stock.add_tokens(
        [
            AddedToken(token["content"], **{name: token[name] for name in options if name in token})
            for token in added
        ]
    )
    return stock


def _highest_id(model: Mapping[str, Any]) -> int:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        return max(vocabulary.values(), default=-1)
    return len(vocabulary) - 1  # Unigram lists its pieces


def _unknown_token(model: Mapping[str, Any]) -> str | None:
    if model.get("unk_id") is not None:  # Unigram
        name: str = model["vocab"][model["unk_id"]][0]
        return name
    return model.get("unk_token")


def _tokenizer(path: Path, tokenizer_json: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path}: not a tokenizer.json ({error})") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path}: not a tokenizer.json ({error})") from error
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{path}: not a tokenizer.json (no `model` in it)")
    return content
