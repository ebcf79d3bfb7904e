"""Texts measured in a judge's tokens, and cut to head and tail between tokens.

What counts is the text as it is sent, quoted by `fence`: of `<|im_end|>` a tokenizer makes one
token, of the quoted form six, so a record full of them is longer than it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.rubric.fence import quote, unquote
from mira_megatron.tokenization.tokenizer import whole_text_tokenizer

# A tokenizer's answer takes some hundred bytes per token; for a record of 64 MiB, piece by piece.
_MAX_PIECE_CHARS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeasuredText:
    """A text in quoted form, with the characters at which its tokens start and end."""

    quoted: str
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    note_tokens: int  # of the note that stands where something was cut

    @property
    def num_tokens(self) -> int:
        """Returns the number of tokens as sent."""
        return len(self.starts)

    def cut(self, max_tokens: int) -> str:
        """Returns the text if it has no more tokens, else as much from each end as fits, or none.

        A token of a few bytes of a character is left out with all of the character.
        """
        if self.num_tokens <= max_tokens:
            return unquote(self.quoted)
        num_kept = max(0, max_tokens - self.note_tokens)
        num_tail = num_kept // 2
        num_head = num_kept - num_tail
        head = self.quoted[: int(self.starts[num_head])]
        tail = self.quoted[int(self.ends[-num_tail - 1]) :] if num_tail else ""
        return unquote(head) + left_out(self.num_tokens - num_kept) + unquote(tail)


class TokenCounter:
    """Measures texts in the tokens of one tokenizer.json.

    Raises ValueError, naming the file, for one that is not a tokenizer.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file. `tokenizer` must name the judge's tokenizer.json; save a "
                "slow tokenizer as a fast one first (transformers: save_pretrained)."
            )
        self._tokenizer = whole_text_tokenizer(path)
        self._note_tokens = self.count(left_out(10**9 - 1))

    def measure(self, text: str) -> MeasuredText:
        """Returns the text with its tokens, none of them added by a template."""
        quoted = quote(text)
        spans: list[npt.NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
        for start, end in _pieces(quoted):
            encoding = self._tokenizer.encode(quoted[start:end], add_special_tokens=False)
            spans.append(np.array(encoding.offsets, np.int64).reshape(-1, 2) + start)
        all_spans = np.concatenate(spans)
        return MeasuredText(
            quoted=quoted,
            starts=all_spans[:, 0],
            ends=all_spans[:, 1],
            note_tokens=self._note_tokens,
        )

    def count(self, text: str) -> int:
        """Returns the number of tokens of the text as it is sent."""
        quoted = quote(text)
        pieces = [quoted[start:end] for start, end in _pieces(quoted)]
        return sum(len(self._tokenizer.encode(piece, add_special_tokens=False)) for piece in pieces)


def left_out(num_tokens: int, num_messages: int | None = None) -> str:
    """Returns the line that stands where tokens, or whole messages, were left out."""
    match num_messages:
        case None:
            messages = ""
        case 1:
            messages = "1 message, "
        case _:
            messages = f"{num_messages:,} messages, "
    return f"\n[…: {messages}{num_tokens:,} tokens left out]\n"


def largest_fitting(
    show: Callable[[int], str], max_tokens: int, counter: TokenCounter
) -> tuple[str, int] | None:
    """Returns what `show` makes of a budget of at most `max_tokens`, if it fits, and its tokens.

    Notes, JSON's escapes and tokens that merge differently beside a cut make the outcome longer
    than the budget; so it is counted, and the budget shrunk in proportion. That never shrinks it
    too far where the outcome grows linearly with the budget.
    """
    budget = max_tokens
    while budget > 0:
        text = show(budget)
        num_tokens = counter.count(text)
        if num_tokens <= max_tokens:
            return text, num_tokens
        budget = min(budget - 1, budget * max_tokens // num_tokens)
    return None


def fair_shares(sizes: Sequence[int], budget: int) -> list[int]:
    """Returns how much of the budget each size gets: all it needs, or the same as others cut."""
    shares = [0] * len(sizes)
    left = max(0, budget)
    by_size = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for num_served, index in enumerate(by_size):
        shares[index] = min(sizes[index], left // (len(sizes) - num_served))
        left -= shares[index]
    return shares


def _pieces(text: str) -> list[tuple[int, int]]:
    """Returns start and end of pieces that end at a newline where they can."""
    pieces, start = [], 0
    while start < len(text):
        end = min(start + _MAX_PIECE_CHARS, len(text))
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        pieces.append((start, end))
        start = end
    return pieces
