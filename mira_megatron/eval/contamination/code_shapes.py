"""The shape of code: its tokens without comments, and without the names of variables.

A copy whose variables were renamed, or that was given comments, has the same shape. A variable is
an identifier that is no keyword, no call and no attribute; it counts as the place of its first
occurrence among the tokens that are compared, so `a + b * a` is `x + y * x` and not `x + x * y`.

That comparison is dear, so it is made only where the *skeleton* is known, in which all variables
are one: its hashes are differences of running sums, as those of other n-grams are.

Legend: B bytes, T tokens, N tokens compared, M places where a known skeleton stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mira_megatron.eval.contamination.arrays import I64, U8, U64, Bools
from mira_megatron.eval.contamination.code_tokens import Tokens, mixed, ngrams, running_sums
from mira_megatron.eval.contamination.code_tokens import text_tokens as _tokens

# Of Python and the languages of MultiPL-E: words that no renaming changes.
_KEYWORDS = (
    "and as assert async await auto bool boolean break case catch char class const continue def "
    "default del delete do done double echo elif else enum esac except extends false fi final "
    "finally float for foreach from function global if implements import in instanceof int "
    "interface is lambda let local long match namespace new nil none nonlocal not null or pass "
    "private protected public raise return self static std string struct switch then this throw "
    "throws true try typeof using var vector void while with yield"
)


def _hashes(*words: str) -> U64:
    return np.sort(np.array([_tokens(word).hash_T[0] for word in words], dtype=np.uint64))


_KEYWORD_HASHES = _hashes(*_KEYWORDS.split())
((_DOT,), (_OPEN,), (_SHARP,), (_SLASH,)) = (_hashes(sign) for sign in (".", "(", "#", "/"))
_ANY_VARIABLE = np.uint64(0x1234567890ABCDEF)
_MAX_PLACES = 4096  # compared at one time, for memory


@dataclass(frozen=True, slots=True)
class Shape:
    """Tokens of code, without comments."""

    tokens: Tokens
    is_variable_T: Bools


def shape_of(content_B: U8, tokens: Tokens, document_start_D: I64) -> Shape:
    """Returns the shape of the tokens of a buffer."""
    bare = tokens.taken(np.flatnonzero(~_is_comment(content_B, tokens, document_start_D)))
    hash_T = bare.hash_T
    place_T = np.searchsorted(_KEYWORD_HASHES, hash_T)
    place_T[place_T == len(_KEYWORD_HASHES)] = 0
    is_variable_T = bare.has_letter_T & (_KEYWORD_HASHES[place_T] != hash_T)
    is_variable_T[1:] &= hash_T[:-1] != _DOT
    is_variable_T[:-1] &= hash_T[1:] != _OPEN
    return Shape(bare, is_variable_T)


def text_shape(text: str) -> Shape:
    """Returns the shape of one text."""
    content = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    return shape_of(content, _tokens(text), np.zeros(1, dtype=np.int64))


def skeletons(shape: Shape, num_tokens: int) -> U64:
    """Returns the hash of every `num_tokens` tokens in a row, all variables being one."""
    hash_T = np.where(shape.is_variable_T, _ANY_VARIABLE, shape.tokens.hash_T)
    return ngrams(running_sums(hash_T), num_tokens)


def shape_ngrams(shape: Shape, num_tokens: int, rows: I64) -> U64:
    """Returns the hashes of `num_tokens` tokens from some places on, variables told apart."""
    found = [np.zeros(0, dtype=np.uint64)]
    for start in range(0, len(rows), _MAX_PLACES):
        row_MN = rows[start : start + _MAX_PLACES, None] + np.arange(num_tokens)
        hash_MN = shape.tokens.hash_T[row_MN]
        first_MN = np.argmax(hash_MN[:, :, None] == hash_MN[:, None, :], axis=2)
        is_variable_MN = shape.is_variable_T[row_MN]
        code_MN = np.where(is_variable_MN, first_MN.astype(np.uint64) + _ANY_VARIABLE, hash_MN)
        grams = np.zeros(len(row_MN), dtype=np.uint64)
        for column in range(num_tokens):
            grams = mixed(grams * np.uint64(31) + code_MN[:, column])
        found.append(grams)
    return np.concatenate(found)


def _is_comment(content_B: U8, tokens: Tokens, document_start_D: I64) -> Bools:
    """Returns which tokens are of comments: from # or // to the end of the line."""
    hash_T = tokens.hash_T
    begins_T: Bools = hash_T == _SHARP
    is_slash_T = hash_T == _SLASH
    is_joined_T = tokens.start_T[1:] == tokens.end_T[:-1]
    begins_T[:-1] |= is_slash_T[:-1] & is_slash_T[1:] & is_joined_T
    begin_C = np.flatnonzero(begins_T)
    if not len(begin_C):
        return begins_T
    is_escaped_n_B = content_B[1:] == ord("n")
    is_escaped_n_B &= content_B[:-1] == ord("\\")
    line_ends = np.concatenate(
        [
            np.flatnonzero(content_B == ord("\n")),
            np.flatnonzero(is_escaped_n_B) + 1,
            document_start_D,
        ]
    )
    line_T = np.searchsorted(np.sort(line_ends), tokens.start_T, side="right")
    line_C, first_C = np.unique(line_T[begin_C], return_index=True)
    place_T = np.minimum(np.searchsorted(line_C, line_T), len(line_C) - 1)
    is_comment_T: Bools = line_C[place_T] == line_T
    is_comment_T &= np.arange(len(hash_T)) >= begin_C[first_C][place_T]
    return is_comment_T
