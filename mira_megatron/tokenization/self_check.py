"""The check of a fast encoder on the texts that it encodes: a sample of them, encoded twice.

Of every chunk of texts these are compared with Hugging Face, id by id: the first text, the longest,
two drawn by the hash of the chunk, and two in which a character beyond ASCII stands, drawn alike.
A text of up to WINDOW_BYTES is compared as it was encoded; of a longer one a window, around what it
was drawn for, is encoded by both. That is about one byte in a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from mira_megatron.tokenization.plain_encoders import PlainEncoder, TokenLists
from mira_megatron.tokenization.text_columns import starts_of, utf8_of

# Of 4 MiB, a shard of a small input: six windows cost Hugging Face a tenth of what gigatoken takes.
WINDOW_BYTES = 700
_SEED_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The first place where two encoders disagree."""

    text: int  # its number in the chunk
    start: int  # byte at which the compared window begins
    token: int  # number of the first other id in that window
    found: int | None  # None: there are fewer ids
    expected: int | None


def first_difference(
    texts: pa.LargeStringArray, encoded: TokenLists, fast: PlainEncoder, reference: PlainEncoder
) -> Difference | None:
    """Returns where `encoded`, made of `texts` by `fast`, differs from the reference, or None."""
    windows = [_window(texts, *place) for place in sample_places(texts)]
    excerpts = pa.array([excerpt for _, _, excerpt in windows], pa.large_string())
    expected = reference.encode(excerpts)
    again = fast.encode(excerpts)
    for number, (text, start, _) in enumerate(windows):
        is_whole = len(texts[text].as_buffer()) <= WINDOW_BYTES
        found = encoded.ids(text) if is_whole else again.ids(number)
        difference = _unlike(found, expected.ids(number))
        if difference is not None:
            token, found_id, expected_id = difference
            return Difference(
                text=text, start=start, token=token, found=found_id, expected=expected_id
            )
    return None


def sample_places(texts: pa.LargeStringArray) -> list[tuple[int, int]]:
    """Returns what is compared, as numbers of texts and bytes in them; at most six, no text twice.

    The same texts give the same sample.
    """
    if not len(texts):
        return []
    starts = starts_of(texts)
    utf8 = utf8_of(texts)
    lengths = np.diff(starts)
    seed = xxhash.xxh3_128_digest(lengths.tobytes() + utf8[:_SEED_BYTES].tobytes())
    drawn = np.frombuffer(seed + xxhash.xxh3_128_digest(seed), np.uint64)
    picked = [int(number % np.uint64(len(texts))) for number in drawn[:2]]
    places = [(0, 0), (int(lengths.argmax()), int(drawn[2] % np.uint64(lengths.max() + 1)))]
    places += [(text, int(drawn[3] % np.uint64(lengths[text] + 1))) for text in picked]
    for position in _beyond_ascii(utf8, drawn[2:4]):
        text = int(np.searchsorted(starts, position, side="right")) - 1
        places.append((text, int(position - starts[text])))
    # The last place of a text counts: around an unusual character.
    return list(dict(places).items())


def _beyond_ascii(
    utf8: npt.NDArray[np.uint8], drawn: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    positions = np.flatnonzero(utf8 >= 0x80)
    if not len(positions):
        return positions
    return positions[(drawn % np.uint64(len(positions))).astype(np.int64)]


def _window(texts: pa.LargeStringArray, text: int, byte: int) -> tuple[int, int, str]:
    """Returns a text's number, and first byte and content of a window around a byte of it."""
    content = memoryview(texts[text].as_buffer())
    start, end = 0, len(content)
    if end > WINDOW_BYTES:
        start = max(0, min(byte - WINDOW_BYTES // 2, end - WINDOW_BYTES))
        end = start + WINDOW_BYTES
        while _is_inside_character(content, start):
            start += 1
        while _is_inside_character(content, end):
            end -= 1
    return text, start, bytes(content[start:end]).decode()


def _is_inside_character(utf8: memoryview, byte: int) -> bool:
    return byte < len(utf8) and utf8[byte] & 0xC0 == 0x80


def _unlike(
    found: npt.NDArray[np.uint32], expected: npt.NDArray[np.uint32]
) -> tuple[int, int | None, int | None] | None:
    shared = min(len(found), len(expected))
    unlike = np.flatnonzero(found[:shared] != expected[:shared])
    if not len(unlike) and len(found) == len(expected):
        return None
    at = int(unlike[0]) if len(unlike) else shared
    return (
        at,
        int(found[at]) if at < len(found) else None,
        int(expected[at]) if at < len(expected) else None,
    )
