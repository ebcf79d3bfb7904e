"""The same scan in plain Python: regular expressions, tuples of tokens and sets, no hashes."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from mira_megatron.eval.contamination.items import Item, TextForm

_SPACE = rb"(?:\xc2[\x85\xa0]|\xe2\x80[\x80-\xbf]|\xe2\x81[\x80-\xaf]|\xe3\x80\x80|\xef\xbb\xbf)"
_TOKEN = re.compile(
    rb"\\[nrt]|\\|%s|(?:(?!%s)[0-9A-Za-z_\x80-\xff])+|[^\x00-\x20\x7f]" % (_SPACE, _SPACE)
)
_SKIPPED = re.compile(rb"\\|" + _SPACE)
_NUM_TOKENS = {TextForm.CODE: 10, TextForm.SQL: 8, TextForm.PROSE: 13}
_MIN_LETTERED, _MIN_NGRAMS = 3, 10
_SHAPE_TOKENS = 20
_COMMENT = re.compile(rb"(#|//)(?:(?!\n|\\n).)*", re.DOTALL)
_KEYWORDS = {b"for", b"in", b"if", b"def", b"return", b"while", b"and", b"or", b"not", b"else"}


def plain_tokens(text: str) -> list[tuple[bytes, int, int]]:
    """Returns every token as it is compared, with its bytes."""
    found = []
    for match in _TOKEN.finditer(text.encode()):
        if _SKIPPED.match(match[0]):
            continue
        token = match[0].lower() if match[0].isascii() else _ascii_lower(match[0])
        found.append((re.sub(rb"['`]", b'"', token), match.start(), match.end()))
    return found


def _ascii_lower(token: bytes) -> bytes:
    return bytes(each + 32 if 65 <= each <= 90 else each for each in token)


def _is_word(token: bytes) -> bool:
    return bool(re.match(rb"[0-9a-z_\x80-\xff]", token))


def plain_ngrams(text: str, form: TextForm) -> set[tuple[bytes, ...]]:
    tokens = [token for token, _, _ in plain_tokens(text)]
    if form is TextForm.PROSE:
        tokens = list(filter(_is_word, tokens))
    length = _NUM_TOKENS[form]
    return {tuple(tokens[at : at + length]) for at in range(len(tokens) - length + 1)}


def _is_lettered(gram: tuple[bytes, ...]) -> bool:
    words = [token for token in gram if _is_word(token) and not token[:1].isdigit()]
    return len(words) >= _MIN_LETTERED


def plain_scores(
    items: Sequence[Item], documents: Sequence[str], max_items: int
) -> dict[tuple[int, str, str, str], float]:
    """Returns the score of every document, benchmark, task and kind of surface that is not 0."""
    surfaces = [(item, surface) for item in items for surface in item.surfaces]
    clusters: dict[object, set[str]] = defaultdict(set)
    having: dict[object, set[str]] = defaultdict(set)
    for item, surface in surfaces:
        clusters[surface.form, item.split].add(item.cluster)
        for gram in filter(_is_lettered, plain_ngrams(surface.text, surface.form)):
            having[surface.form, item.split, gram].add(item.cluster)
    scores: dict[tuple[int, str, str, str], float] = {}
    for item, surface in surfaces:
        own = {
            gram: math.log1p(
                len(clusters[surface.form, item.split])
                / len(having[surface.form, item.split, gram])
            )
            for gram in filter(_is_lettered, plain_ngrams(surface.text, surface.form))
            if len(having[surface.form, item.split, gram]) <= max_items
        }
        if len(own) < _MIN_NGRAMS:
            continue
        for number, document in enumerate(documents):
            found = plain_ngrams(document, surface.form) & own.keys()
            score = sum(own[gram] for gram in found) / sum(own.values())
            if score:
                scores[number, item.benchmark, item.task_id, surface.kind.value] = score
    return scores


def plain_shapes(text: str) -> list[tuple[tuple[bytes | int, ...], int]]:
    """Returns every 20 tokens in a row without comments, variables by their first occurrence.

    With each, how many of its tokens are words that are no variables. Keywords are those that
    tests use.
    """
    code = _COMMENT.sub(b" ", text.encode()).decode()
    tokens = [token for token, _, _ in plain_tokens(code)]
    is_variable = [
        _is_word(token)
        and not token[:1].isdigit()
        and token not in _KEYWORDS
        and tokens[at - 1 : at] != [b"."]
        and tokens[at + 1 : at + 2] != [b"("]
        for at, token in enumerate(tokens)
    ]
    found = []
    for at in range(len(tokens) - _SHAPE_TOKENS + 1):
        own = tokens[at : at + _SHAPE_TOKENS]
        variables = is_variable[at : at + _SHAPE_TOKENS]
        names = zip(own, variables, strict=True)
        shape = tuple(own.index(token) if is_one else token for token, is_one in names)
        words = [_is_word(token) and not token[:1].isdigit() for token in own]
        found.append((shape, sum(words) - sum(variables)))
    return found
