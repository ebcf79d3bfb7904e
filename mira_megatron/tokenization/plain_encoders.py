"""Plain text to token ids: gigatoken where it is installed and agrees, else Hugging Face.

gigatoken is some fifty times faster on one core, is beta, and reproduces byte-level BPE and some
SentencePiece tokenizers: not every tokenizer, and it does not always say so. So it is used for a
tokenizer only if it encodes PROBES as Hugging Face does, and what it makes of the actual texts is
checked again while they are encoded (`self_check`).

Shape letters: T token ids, D texts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import parent_process
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from mira_megatron.tokenization.text_columns import starts_of, utf8_of

logger = logging.getLogger(__name__)


BACKENDS = ("auto", "gigatoken", "huggingface")

# What implementations of one tokenizer have been seen to disagree on: white space of every kind and
# length, line ends, contractions and their Unicode relatives, digits, composed and combining
# characters, scripts without spaces, emoji sequences, controls, long runs, code.
PROBES: tuple[str, ...] = (
    "",
    " ",
    "a",
    " a",
    "a ",
    "a b\n\n  c\r\n\td \n \n",
    "    if x:\n\t\treturn {'k': [1, 22, 333]}  # done\n\n\n\nclass A(B):\n        pass\n",
    "it's I'LL we'Ve they'd 'S 'ſ don’t",
    "0 12 345 6789 1_000 3.14e-10 ١٢٣ ½ Ⅷ",
    "née e\u0301 a\u030a Å ﬁ ǅ ß ẞ İ ı",
    "日本語のテキスト。한국어 ไทย עברית العربية हिन्दी",
    "🙂👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈 \U0001f1e9\U0001f1ea",
    "x\u00a0y\u2003z\u2028p\u3000q\u200br\ufeffs\u0085t",
    "\x00\x01\x1f\x7f \x0b\x0c a\x0b\x0cb",
    "x" * 300 + " " * 70 + "=" * 70 + "\n" * 40,
    "<a href='https://x.org/?q=1&r=%20'>#!/bin/sh $HOME \\n @f() => !!! ... --- ***</a>",
    "\U0010ffff\ufffd\ue000 \u0300 ",
)


@dataclass(frozen=True, slots=True)
class TokenLists:
    """The ids of many texts, one after another."""

    ids_T: npt.NDArray[np.uint32]
    ends_D: npt.NDArray[np.int64]  # where each text's ids end in ids_T

    def ids(self, text: int) -> npt.NDArray[np.uint32]:
        """Returns the ids of one text."""
        start = int(self.ends_D[text - 1]) if text else 0
        return self.ids_T[start : int(self.ends_D[text])]


class PlainEncoder(Protocol):
    """What turns texts, none of them null, into ids; nothing in a text is a control token."""

    @property
    def name(self) -> str:
        """Returns gigatoken or huggingface."""

    def encode(self, texts: pa.LargeStringArray) -> TokenLists:
        """Returns the ids of every text, whose UTF-8 is valid."""


class HuggingFaceEncoder:
    """The reference: a Hugging Face tokenizer that has no control tokens."""

    name = "huggingface"

    def __init__(self, plain: Tokenizer) -> None:
        self._plain = plain
        if parent_process() is not None:
            # One of several worker processes, each of which would take all cores for itself.
            os.environ["TOKENIZERS_PARALLELISM"] = "false"

    def encode(self, texts: pa.LargeStringArray) -> TokenLists:
        """Returns the ids of every text."""
        encodings = self._plain.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        lists = [encoding.ids for encoding in encodings]
        ends_D = np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists)))
        return TokenLists(_flat(lists, int(ends_D[-1]) if lists else 0), ends_D)


class GigatokenEncoder:
    """gigatoken on the calling thread alone; several threads may share one encoder.

    It lets go of the interpreter while it encodes, but lets one thread at a time use a tokenizer
    and its cache of words; so every thread that encodes at the same time gets one of its own.
    Raises RuntimeError for a tokenizer that it does not know how to load.
    """

    name = "gigatoken"

    def __init__(self, tokenizer_json: bytes) -> None:
        # An extra, and 0.2 s to import: paid by those alone who encode with it.
        import awkward  # noqa: PLC0415
        from gigatoken.gigatoken_rs import load_hf_json  # noqa: PLC0415

        self._contents: Any = awkward.contents
        self._array: Any = awkward.Array
        self._index: Any = awkward.index.Index64
        self._load: Callable[[], Any] = partial(load_hf_json, tokenizer_json)
        self._idle: list[Any] = [self._load()]

    def prepare(self, num_threads: int) -> None:
        """Loads what `num_threads` threads need that encode at the same time."""
        while len(self._idle) < num_threads:
            self._idle.append(self._load())

    def encode(self, texts: pa.LargeStringArray) -> TokenLists:
        """Returns the ids of every text, which is read where it lies and never copied."""
        if not len(texts):
            return TokenLists(np.zeros(0, np.uint32), np.zeros(0, np.int64))
        try:
            tokenizer = self._idle.pop()
        except IndexError:  # all are at work in other threads
            tokenizer = self._load()
        try:
            encoded = tokenizer.encode_batch(self._borrowed(texts), parallel=False)
        finally:
            self._idle.append(tokenizer)
        ends = np.asarray(encoded.layout.offsets.data)
        ids_T = np.asarray(encoded.layout.content.data)[ends[0] : ends[-1]]
        return TokenLists(ids_T, (ends[1:] - ends[0]).astype(np.int64))

    def _borrowed(self, texts: pa.LargeStringArray) -> Any:
        contents = self._contents
        characters = contents.NumpyArray(utf8_of(texts), parameters={"__array__": "char"})
        strings = {"__array__": "string"}
        return self._array(
            contents.ListOffsetArray(self._index(starts_of(texts)), characters, parameters=strings)
        )


def choose_encoder(
    plain: Tokenizer, tokenizer_json: bytes, backend: str, *, where: object
) -> PlainEncoder:
    """Returns what encodes: `tokenizer_json`, of which `plain` was made, by gigatoken if it can.

    `auto` falls back to Hugging Face, with a line in the log; `gigatoken` raises ValueError naming
    the tokenizer, `where`, and the reason.
    """
    reference = HuggingFaceEncoder(plain)
    if backend == "huggingface":
        return reference
    try:
        fast = GigatokenEncoder(tokenizer_json)
        reason = _first_difference(fast, reference)
    except ModuleNotFoundError:
        reason = "it is not installed (pip install 'mira-megatron[gigatoken]')"
    except RuntimeError as error:
        reason = f"it cannot load this tokenizer: {str(error).splitlines()[0]}"
    if reason is None:
        return fast
    if backend == "gigatoken":
        raise ValueError(
            f"{where}: tokenize.backend=gigatoken cannot be used: {reason}. "
            "Set tokenize.backend=huggingface, or auto."
        )
    logger.info("%s: encoded by Hugging Face tokenizers, not gigatoken: %s", where, reason)
    return reference


def _first_difference(fast: PlainEncoder, reference: PlainEncoder) -> str | None:
    texts = pa.array(PROBES, pa.large_string())
    found, expected = fast.encode(texts), reference.encode(texts)
    for number, probe in enumerate(PROBES):
        if found.ids(number).tolist() != expected.ids(number).tolist():
            return f"it encodes {probe[:40]!r} unlike Hugging Face"
    return None


def _flat(lists: Iterable[list[int]], num_ids: int) -> npt.NDArray[np.uint32]:
    return np.fromiter(chain.from_iterable(lists), np.uint32, num_ids)
