"""How many tokens a prompt has: by the judge's tokenizer, or by its bytes where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mira_megatron import layout
from mira_megatron.scoring.judge import Judge
from mira_megatron.tokenization.tokenizer import whole_text_tokenizer

# A tokenizer's answer takes some hundred bytes per token; so a long text is counted in pieces.
_MAX_PIECE_CHARS = 1 << 20


class PromptTokens:
    """Counts the tokens of prompts and answers, for one judge.

    A chat template adds some tokens of its own to a request (of Qwen's ten or so), which only the
    server counts.
    """

    def __init__(self, judge: Judge, bytes_per_token: float) -> None:
        path = _tokenizer_file(judge)
        self._tokenizer = None if path is None else whole_text_tokenizer(path)
        self._bytes_per_token = bytes_per_token

    @property
    def basis(self) -> str:
        """Returns what is counted, in words."""
        if self._tokenizer is not None:
            return "the judge's tokenizer"
        return f"{self._bytes_per_token:g} bytes per token (no tokenizer is configured)"

    def count(self, text: str) -> float:
        """Returns the number of tokens; a fraction where it is told by bytes."""
        if self._tokenizer is None:
            return len(text.encode("utf-8", "surrogatepass")) / self._bytes_per_token
        pieces = range(0, len(text), _MAX_PIECE_CHARS)
        return sum(
            len(self._tokenizer.encode(text[at : at + _MAX_PIECE_CHARS], add_special_tokens=False))
            for at in pieces
        )

    def count_digits(self, text: str) -> float:
        """Returns the number of tokens of digits and blanks, a token each without a tokenizer.

        Bytes per token are those of text: tokenizers of today keep digits apart.
        """
        return len(text) if self._tokenizer is None else self.count(text)

    def count_messages(self, messages: Sequence[dict[str, str]]) -> float:
        """Returns the number of tokens of what all messages say."""
        return sum(self.count(message["content"]) for message in messages)

    def count_shared(self, prompts: Sequence[Sequence[dict[str, str]]]) -> float:
        """Returns how many tokens all prompts begin with: what a server's prefix cache saves."""
        if len(prompts) < 2:
            return 0
        texts = ["".join(message["content"] for message in prompt) for prompt in prompts]
        return self.count(_common_beginning(min(texts), max(texts)))


def _tokenizer_file(judge: Judge) -> Path | None:
    """Returns the tokenizer that the recipe names, or the one beside the model."""
    if judge.tokenizer is not None:
        return judge.tokenizer
    if judge.model_folder is None:
        return None
    path = judge.model_folder / layout.TOKENIZER_FILE
    return path if path.is_file() else None


def _common_beginning(first: str, last: str) -> str:
    """Returns what both begin with; of the first and last of many in order, what all begin with."""
    pairs = enumerate(zip(first, last, strict=False))
    length = next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))
    return first[:length]
