"""Tokens of code, SQL and prose, and hashes of n of them in a row, over whole buffers of documents.

A token is a run of letters, digits, `_` and bytes of other alphabets, or one other character.
White space parts tokens and is none; so do a backslash and the n, r or t behind it, so that code
inside of JSON has the tokens of the code itself. ASCII letters are lower-cased, and the three
quotes are one character: neither tells a copy from what it was copied from. Unicode's spaces and
its general punctuation (curly quotes, dashes, characters without width) are white space, too: web
pages put them where an original has a space or a quote.

Everything is arithmetic modulo 2**64 on arrays, without a loop over documents or tokens. The hash
of bytes b[s:e] is sum(T[b[i]] * B**i) * B**-s, a difference of two running sums; B is odd, and so
has an inverse. The hash of n tokens is the same over the tokens' hashes.

Legend: B bytes, T tokens, D documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mira_megatron.eval.contamination.arrays import I64, U8, U64, Bools

_SPACE, _WORD, _OTHER = 0, 1, 2
_BACKSLASH = ord("\\")
_BYTE_BASE, _TOKEN_BASE = 0x9E3779B97F4A7C15 | 3, 0xD1342543DE82EF95 | 3
_WRAP = 1 << 64


def mixed(values: U64) -> U64:
    """Returns values whose every bit depends on all bits (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _classes() -> U8:
    classes = np.full(256, _OTHER, dtype=np.uint8)
    classes[: ord(" ") + 1] = _SPACE
    classes[[_BACKSLASH, 0x7F]] = _SPACE
    classes[[ord(each) for each in "0123456789_"]] = _WORD
    classes[ord("A") : ord("Z") + 1] = _WORD
    classes[ord("a") : ord("z") + 1] = _WORD
    classes[0x80:] = _WORD
    return classes


def _byte_hashes() -> U64:
    hashes = mixed(np.arange(1, 257, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    hashes[ord("A") : ord("Z") + 1] = hashes[ord("a") : ord("z") + 1]
    hashes[[ord("'"), ord("`")]] = hashes[ord('"')]
    return hashes


_CLASS, _HASH = _classes().tobytes(), _byte_hashes()
_IS_DIGIT = np.isin(np.arange(256), [ord(each) for each in "0123456789"])


@cache
def _powers(base: int, log2_count: int) -> U64:
    """Returns 1, base, base**2 … modulo 2**64."""
    powers = np.full(1 << log2_count, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _powers_for(base: int, count: int) -> tuple[U64, U64]:
    log2_count = max(10, (count - 1).bit_length())
    inverse = pow(base, -1, _WRAP)
    return _powers(base, log2_count)[:count], _powers(inverse, log2_count)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a buffer, in order."""

    start_T: I64  # first byte
    end_T: I64  # one past the last byte
    hash_T: U64
    is_word_T: Bools
    has_letter_T: Bools  # a word that does not begin with a digit

    def __len__(self) -> int:
        return len(self.start_T)

    def words(self) -> Tokens:
        """Returns the words alone, as prose is compared."""
        rows = np.flatnonzero(self.is_word_T)
        return self.taken(rows)

    def taken(self, rows: I64 | slice) -> Tokens:
        """Returns some of the tokens."""
        return Tokens(
            self.start_T[rows],
            self.end_T[rows],
            self.hash_T[rows],
            self.is_word_T[rows],
            self.has_letter_T[rows],
        )


def tokens_of(content_B: U8, document_start_D: I64 | None = None) -> Tokens:
    """Returns the tokens of UTF-8 bytes; none reaches over the beginning of a document."""
    starts_D = np.zeros(1, dtype=np.int64) if document_start_D is None else document_start_D
    starts_D = starts_D[starts_D < len(content_B)]
    # bytes.translate is several times as fast as an index by an array of bytes.
    class_B = np.frombuffer(content_B.tobytes().translate(_CLASS), dtype=np.uint8).copy()
    _space_escapes(content_B, class_B, starts_D)
    _space_characters(content_B, class_B)
    is_word_B = class_B == _WORD
    follows_word_B = np.zeros(len(content_B) + 1, dtype=np.bool_)
    follows_word_B[1:] = is_word_B
    follows_word_B[starts_D] = False
    is_other_B = class_B == _OTHER
    start_T = np.flatnonzero(is_other_B | (is_word_B & ~follows_word_B[:-1]))
    # A word ends where what follows does not go on with it.
    goes_on_B = np.zeros(len(content_B), dtype=np.bool_)
    goes_on_B[:-1] = is_word_B[1:] & follows_word_B[1:-1]
    end_T = np.flatnonzero(is_other_B | (is_word_B & ~goes_on_B)) + 1
    powers, inverses = _powers_for(_BYTE_BASE, len(content_B))
    sums = np.zeros(len(content_B) + 1, dtype=np.uint64)
    np.cumsum(_HASH[content_B.astype(np.intp)] * powers, out=sums[1:])
    hash_T = mixed((sums[end_T] - sums[start_T]) * inverses[start_T])
    is_word_T = is_word_B[start_T]
    return Tokens(
        start_T=start_T,
        end_T=end_T,
        hash_T=hash_T,
        is_word_T=is_word_T,
        has_letter_T=is_word_T & ~_IS_DIGIT[content_B[start_T]],
    )


def text_tokens(text: str) -> Tokens:
    """Returns the tokens of one text."""
    content = text.encode("utf-8", "surrogatepass")
    return tokens_of(np.frombuffer(content, dtype=np.uint8))


def running_sums(hash_T: U64) -> U64:
    """Returns what `ngrams` takes its differences of: T + 1 values."""
    powers, _ = _powers_for(_TOKEN_BASE, len(hash_T))
    sums = np.zeros(len(hash_T) + 1, dtype=np.uint64)
    np.cumsum(hash_T * powers, out=sums[1:])
    return sums


def ngrams(sums: U64, num_tokens: int) -> U64:
    """Returns the hash of every `num_tokens` tokens in a row, by the first of them."""
    count = max(0, len(sums) - num_tokens)
    return ngrams_at(sums, num_tokens, slice(0, count))


def ngrams_at(sums: U64, num_tokens: int, rows: slice | I64) -> U64:
    """Returns the hashes of `num_tokens` tokens from each of some positions on."""
    _, inverses = _powers_for(_TOKEN_BASE, len(sums))
    last = (
        slice(rows.start + num_tokens, rows.stop + num_tokens)
        if isinstance(rows, slice)
        else rows + num_tokens
    )
    return mixed((sums[last] - sums[rows]) * inverses[rows])


def _space_escapes(content_B: U8, class_B: U8, document_start_D: I64) -> None:
    """Makes the n, r and t of escapes white space, in place."""
    behind = np.flatnonzero(content_B == _BACKSLASH) + 1
    behind = behind[behind < len(content_B)]
    if len(behind):
        is_escape = np.isin(content_B[behind], np.frombuffer(b"nrt", dtype=np.uint8))
        behind = behind[is_escape]
        is_first = np.isin(behind, document_start_D)
        class_B[behind[~is_first]] = _SPACE


def _space_characters(content_B: U8, class_B: U8) -> None:
    """Makes what Unicode knows as spaces or general punctuation white space, in place."""
    if len(content_B) == 0 or content_B.max() < 0x80:
        return
    second_B, third_B = content_B[1:], content_B[2:]
    row_C = np.flatnonzero(content_B[:-1] == 0xC2)
    row_C = row_C[np.isin(second_B[row_C], (0x85, 0xA0))]
    class_B[row_C[:, None] + np.arange(2)] = _SPACE
    row_C = np.flatnonzero(np.isin(content_B[:-2], (0xE2, 0xE3, 0xEF)))
    code_C = content_B[row_C].astype(np.int64) << 16
    code_C |= second_B[row_C].astype(np.int64) << 8 | third_B[row_C]
    is_space_C = (code_C >= 0xE28080) & (code_C <= 0xE281AF)  # U+2000 to U+206F
    is_space_C |= (code_C == 0xE38080) | (code_C == 0xEFBBBF)
    class_B[row_C[is_space_C, None] + np.arange(3)] = _SPACE
